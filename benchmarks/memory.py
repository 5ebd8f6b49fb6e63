"""The most memory that a training run and an evaluation take, by how many large pictures they are measured on.

    python benchmarks/memory.py
    python benchmarks/memory.py --counts 20 300 1000 --side 2048

Pictures of 1024 x 1024 are 3 MB each when decoded. Training validates on up to 256 of them and compares on all; evaluate.py on all.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image
from rounds import machine, markdown

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data.files import write_json
from data.store.directory import DATASET_FILE
from data.store.writer import ShardWriter

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """What to measure."""

    counts: tuple[int, ...] = (20, 300)
    """Pairs in each of val and test."""
    side: int = 1024
    """Pixels."""


def write_pairs(directory: Path, count: int, side: int) -> None:
    """Smooth pictures, `count` in each split."""
    draw = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        with ShardWriter(directory / split, 0) as writer:
            for number in range(count):
                small = Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8))
                picture = small.resize((side, side), Image.Resampling.BICUBIC)
                writer.add(f"{number:05d}", picture, {"prompt": f"picture {number} of {split}"})
    write_json(directory / DATASET_FILE, {"shards": {"train": 1, "val": 1, "test": 1}})


def peak(*command: object) -> float:
    """Gigabytes that a command held at most, measured in a process of its own, since the system counts for all children together."""
    code = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL); "
    code += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    done = subprocess.run([sys.executable, "-c", code, sys.executable, *map(str, command)], capture_output=True, text=True, check=True, cwd=ROOT)
    unit = 1 if sys.platform == "darwin" else 1024
    return int(done.stdout) * unit / 1e9


def main(config: MemoryConfig) -> None:
    rows = []
    for count in config.counts:
        with tempfile.TemporaryDirectory() as directory:
            data = Path(directory) / "data"
            write_pairs(data, count, config.side)
            short = ["--max-steps", 2, "--warmup-steps", 1, "--batch-size", 8, "--evaluate-every", 1, "--workers", 0]
            training = peak("train.py", "mini", "--data", data, "--out", Path(directory) / "run", *short)
            evaluation = peak("evaluate.py", "--data", data, "--num-beams", 1)
            decoded = count * config.side**2 * 3 / 1e9
            rows.append({"pictures": count, "decoded, GB": decoded, "train.py, GB": training, "evaluate.py, GB": evaluation})
    print(f"\nPeak memory, pictures of {config.side} x {config.side} in val and test\n{machine(torch.device('cpu'))}\n\n{markdown(rows)}")
    first, last = rows[0], rows[-1]
    for name in ("train.py, GB", "evaluate.py, GB"):
        more = (float(last[name]) - float(first[name])) / (int(last["pictures"]) - int(first["pictures"])) * 1e3
        print(f"{name[:-4]}: {more:.2f} MB a picture more")


if __name__ == "__main__":
    main(tyro.cli(MemoryConfig, description=__doc__))
