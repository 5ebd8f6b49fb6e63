"""A folder to prompts, as caption.py does it: files read ahead by threads, batches filled across files.

    python benchmarks/captioning.py                      beside the loop that reads and writes one picture after the other
    python benchmarks/captioning.py --git                beside transformers, with the same GIT weights (random ones in git-base's shape)
    python benchmarks/captioning.py --memory 20000       how much memory so many small files take, from the first thousand on

transformers 5 has no `image-to-text` pipeline any more; what stands for it is its loop over files: `AutoProcessor`, `generate`, `batch_decode`, one
picture at a time, as the pipeline did without a batch size.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import tyro
from folder import save_random_git
from PIL import Image
from rounds import median_seconds_when_warm, report

from inference import DEFAULT_CHECKPOINT, load_inverter
from inference.captioning import Captioning, Outcome
from inference.line_files import JsonLines
from inference.outputs import opened


@dataclass(frozen=True, kw_only=True)
class CaptioningConfig:
    """What to measure."""

    checkpoint: Path = DEFAULT_CHECKPOINT
    count: int = 400
    side: int = 512
    """Pixels of the pictures' sides."""
    suffix: str = ".jpg"
    git: bool = False
    memory: int = 0
    batch_size: int = 32
    num_beams: int = 4
    max_new_tokens: int | None = None
    """By default as many as the network has positions for; with --git 20, as transformers."""
    rounds: int = 3
    json: Path | None = None


def draw(directory: Path, count: int, side: int, suffix: str) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        paths.append(directory / f"{number:06d}{suffix}")
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(paths[-1])
    return paths


def captioned(inverter: Any, paths: list[Path], config: CaptioningConfig, out: Path, done: Any = lambda: None) -> None:
    decoding = {"num_beams": config.num_beams, "max_new_tokens": config.max_new_tokens}
    captioning = Captioning(inverter=inverter, decoding=decoding, batch_size=config.batch_size)
    outcome = Outcome()
    with opened([lambda: JsonLines(out, "overwrite", "benchmark")]) as outputs:
        captioning.run(paths, outputs, outcome, failed=print, done=done)
    if outcome.model != len(paths):
        raise RuntimeError(str(outcome))


def beside(config: CaptioningConfig) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        (root / "pictures").mkdir()
        paths = draw(root / "pictures", config.count, config.side, config.suffix)
        source = config.checkpoint
        if config.git:
            source = root / "git"
            source.mkdir()
            save_random_git(source)
        inverter = load_inverter(source, dtype="float32")
        arguments: dict[str, Any] = {"num_beams": config.num_beams, "max_new_tokens": config.max_new_tokens}

        def ours(some: list[Path] = paths) -> None:
            captioned(inverter, some, config, root / "rows.jsonl")

        def one_by_one(some: list[Path] = paths) -> None:
            for path in some:
                inverter.predict(path, **arguments)

        runs = {"caption.py": ours, "one by one": one_by_one}
        if config.git:
            runs["transformers"] = _theirs(source, config, paths)
        for run in runs.values():
            run(paths[:8])  # type: ignore[call-arg]
        seconds = median_seconds_when_warm(runs, rounds=config.rounds, device=torch.device("cpu"))
    rows = [
        {"way": name, "images/s": len(paths) / found, "caption.py is so many times as fast": found / seconds["caption.py"]}
        for name, found in seconds.items()
    ]
    about = f"{config.count} pictures of {config.side} x {config.side} ({config.suffix}), {config.num_beams} beams, batches of {config.batch_size}"
    report(f"{about}, medians of {config.rounds} rounds", rows, torch.device("cpu"), config.json)


def _theirs(source: Path, config: CaptioningConfig, paths: list[Path]) -> Any:
    from transformers import AutoProcessor, GitForCausalLM

    processor, model = AutoProcessor.from_pretrained(source), GitForCausalLM.from_pretrained(source).eval()

    @torch.inference_mode()
    def run(some: list[Path] = paths) -> None:
        for path in some:
            pixel_values = processor(images=Image.open(path).convert("RGB"), return_tensors="pt").pixel_values
            ids = model.generate(pixel_values=pixel_values, num_beams=config.num_beams, max_new_tokens=config.max_new_tokens, do_sample=False)
            processor.batch_decode(ids, skip_special_tokens=True)

    return run


def memory(config: CaptioningConfig) -> None:
    process, inverter = psutil.Process(), load_inverter(config.checkpoint)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        (root / "pictures").mkdir()
        paths = draw(root / "pictures", config.memory, 64, ".png")
        sizes: list[int] = []
        begun = time.perf_counter()

        def done() -> None:
            if len(sizes) % 1000 == 0 or len(sizes) + 1 == len(paths):
                print(f"{len(sizes):7} files  {process.memory_info().rss / 1e6:7.0f} MB", flush=True)
            sizes.append(process.memory_info().rss if len(sizes) % 100 == 0 else sizes[-1])

        captioned(inverter, paths, config, root / "rows.jsonl", done)
        seconds = time.perf_counter() - begun
    grown = (max(sizes[1000:]) - sizes[999]) / 1e6
    print(f"{len(paths)} files in {seconds:.0f} s ({len(paths) / seconds:.0f} images/s); {grown:.0f} MB more at most than after the first thousand")


def main(config: CaptioningConfig) -> None:
    if config.git and config.max_new_tokens is None:  # random weights never end a text
        config = replace(config, max_new_tokens=20)
    if config.memory:
        memory(config)
    else:
        beside(config)


if __name__ == "__main__":
    main(tyro.cli(CaptioningConfig, description=__doc__))
