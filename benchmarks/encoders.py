"""Which image encoder learns most in the same time? Trains the mini preset with each candidate for as many steps as fit into the same minutes.

    python benchmarks/encoders.py --data datasets/mini --minutes 5 --json encoders.json

Every candidate is trained from scratch by train.py itself; the number of steps comes from a timed forward and backward pass.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from core.device import autocast, compute_precision  # noqa: E402
from model import CaptionModel  # noqa: E402
from tokenizer import PromptTokenizer  # noqa: E402
from training.config import NetworkConfig, mini  # noqa: E402
from training.optimizer import build_optimizer  # noqa: E402
from training.starting import model_config  # noqa: E402

CANDIDATES: dict[str, NetworkConfig] = {
    name: dataclasses.replace(mini().model, encoder=encoder, stage=stage, image_size=size, encoder_arguments=arguments)
    for name, encoder, stage, size, arguments in (
        ("ResNet-18, 96 px, 6 x 6", "resnet18", 3, 96, ()),
        ("ResNet-18, 64 px, 8 x 8", "resnet18", 2, 64, ()),
        ("ResNet-10-T, 96 px, 6 x 6", "resnet10t", 3, 96, ()),
        ("ConvNeXt-atto, stem stride 2, 64 px, 4 x 4", "convnext_atto", 2, 64, ("patch_size=2",)),
        ("ViT-tiny, patch 8, depth 6, 64 px", "vit_tiny_patch16_224", None, 64, ("img_size=64", "patch_size=8", "depth=6")),
    )
}


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """What to train on and for how long."""

    data: Path = Path("datasets/mini")
    minutes: float = 5.0
    """Training time for each candidate."""
    runs: Path = Path("runs/encoders")
    json: Path | None = None
    only: tuple[str, ...] = ()
    """Candidates whose name contains one of these (default: all)."""


def seconds_per_step(network: NetworkConfig, batch_size: int) -> tuple[float, float]:
    """Median time of a training step on random data, and the parameters in millions."""
    tokenizer = PromptTokenizer.train(["a cat on a beach, rain"] * 3, 700)
    model = CaptionModel(model_config(network, tokenizer)).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(
        mini().optimizer,
        model.encoder,
        model.decoder,
        learning_rate=1e-6,
        encoder_rate=1.0,
        weight_decay=0.0,
        dtype=compute_precision(torch.device("cpu")).dtype,
    )
    pixels, ids = torch.randn(batch_size, 3, *model.config.preprocessing.size), torch.randint(3, tokenizer.vocab_size, (batch_size, 20))
    times = []
    for _ in range(6):
        start = time.perf_counter()
        with autocast(torch.device("cpu")):
            loss = model.loss(pixels, ids, ids)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - start)
    return sorted(times[1:])[2], sum(parameter.numel() for parameter in model.parameters()) / 1e6


def main(config: BenchmarkConfig) -> None:
    rows = []
    for name, network in CANDIDATES.items():
        if config.only and not any(part in name for part in config.only):
            continue
        step, parameters = seconds_per_step(network, mini().batch_size)
        steps = max(10, int(config.minutes * 60 / step))
        out = config.runs / name.lower().replace(" ", "-").replace(",", "")
        shutil.rmtree(out, ignore_errors=True)
        arguments = ["--model.encoder", network.encoder, "--model.stage", str(network.stage), "--model.image-size", str(network.image_size)]
        arguments += ["--model.encoder-arguments", *network.encoder_arguments]
        command = [sys.executable, str(ROOT / "train.py"), "mini", "--data", str(config.data), "--out", str(out), "--max-steps", str(steps)]
        start = time.perf_counter()
        subprocess.run([*command, *arguments], check=True)
        result = json.loads((out / "report" / "results.json").read_text())["results"][0]
        means = {metric: estimate["mean"] for metric, estimate in (result["metrics"] | result["slots"]).items()}
        rows.append({"name": name, "parameters_m": parameters, "steps": steps, "seconds_per_step": step, "wall": time.perf_counter() - start} | means)
    shown = ("parameters_m", "seconds_per_step", "steps", "similarity", "cider_d", "exact_match", "subject", "background", "style")
    print(f"\n{config.data}, {config.minutes} minutes of training each\n")
    print("| encoder | " + " | ".join(shown) + " |\n" + "|---" * (len(shown) + 1) + "|")
    for row in rows:
        print(f"| {row['name']} | " + " | ".join(f"{row[name]:.3f}" if isinstance(row[name], float) else str(row[name]) for name in shown) + " |")
    if config.json is not None:
        config.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(BenchmarkConfig, description=__doc__))
