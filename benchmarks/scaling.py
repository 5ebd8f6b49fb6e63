"""How the cost of training grows: with the network, and with the number of pairs.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --presets mini small --pairs 1000 10000 100000 --json scaling.json

Networks: updates on random pictures in the presets' shapes (weights drawn, not fetched), images and tokens a second, and the most memory
taken, each in a process of its own.
Pairs: archives of small pictures are written here; what opening them takes, what they take in memory, and how fast one worker reads them in
the shuffled order of training.
"""

from __future__ import annotations

import dataclasses
import gc
import io
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
import tyro
from PIL import Image
from rounds import machine, report

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from core.device import autocast, compute_precision
from data.loading.augmentation import RandomCrop
from data.loading.examples import Collate, Examples, TextFormat
from data.loading.order import ShuffledBatches
from data.store.directory import index_shard
from data.store.pairs import ArchivePairs
from data.store.writer import ShardWriter
from model import IGNORED_LABEL, CaptionModel, Preprocessing
from tokenizer import PromptTokenizer
from training.config import PRESETS
from training.estimate import estimate
from training.objective import CaptionLoss
from training.starting import model_config


@dataclass(frozen=True, kw_only=True)
class ScalingConfig:
    """What to measure."""

    presets: tuple[str, ...] = ("mini", "small", "base")
    batch_sizes: tuple[int, ...] = (64, 16, 8)
    """One for each preset, that its activations fit."""
    pairs: tuple[int, ...] = (1000, 10_000, 100_000)
    text_tokens: int = 24
    updates: int = 5
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    json: Path | None = None


def train_some(name: str, batch_size: int, config: ScalingConfig) -> dict[str, Any]:
    """Median of some updates, in the precision of the device, after two that do not count."""
    device = torch.device(config.device)
    precision = compute_precision(device)
    tokenizer = PromptTokenizer.train(["a cat on a beach"] * 3, 300)
    preset = PRESETS[name]()
    shape = dataclasses.replace(model_config(preset.model, tokenizer), vocab_size=preset.model.vocab_size)
    needs = estimate(shape, batch_size=batch_size, text_tokens=config.text_tokens, half=precision.is_half)
    before = _most_taken()
    model = CaptionModel(shape).to(device, memory_format=torch.channels_last)
    objective, optimizer = CaptionLoss(model).train(), torch.optim.AdamW(model.parameters(), 1e-5)
    images = torch.randn(batch_size, 3, *shape.preprocessing.size, device=device)
    ids = torch.randint(3, shape.vocab_size, (batch_size, config.text_tokens), device=device)
    times = []
    for _ in range(config.updates + 2):
        start = time.perf_counter()
        with autocast(device, precision):
            loss = objective(images, ids, ids)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    seconds = sorted(times[2:])[config.updates // 2]
    taken = torch.cuda.max_memory_allocated() if device.type == "cuda" else _most_taken() - before
    return {
        "preset": name,
        "parameters": f"{(needs.encoder_parameters + needs.decoder_parameters) / 1e6:.1f} M",
        "batch": batch_size,
        "s an update": seconds,
        "images/s": batch_size / seconds,
        "tokens/s": batch_size * config.text_tokens / seconds,
        "estimated GB": (needs.states + needs.activations) / 1e9,
        "GB at most": taken / 1e9,
    }


def _most_taken() -> int:
    """Bytes that this process held at most."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes if sys.platform == "darwin" else kilobytes * 1024


def read_some(directory: Path, count: int) -> dict[str, Any]:
    """Archives of `count` pairs, opened and read."""
    file = io.BytesIO()
    Image.effect_noise((64, 64), 40).convert("RGB").save(file, "PNG")
    image = Image.open(file)
    image.load()
    for number, start in enumerate(range(0, count, 1000)):
        with ShardWriter(directory, number) as writer:
            for i in range(start, min(start + 1000, count)):
                writer.add(f"{i:09d}", image, {"prompt": f"a watercolor painting of the thing with the number {i}"})
    gc.collect()
    before, begin = psutil.Process().memory_info().rss, time.perf_counter()
    pairs = ArchivePairs([location for tar in sorted(directory.glob("*.tar")) for location in index_shard(tar)])
    opened, held = time.perf_counter() - begin, psutil.Process().memory_info().rss - before
    text = TextFormat(lambda prompt: [5] * 12, 1, 2, 0, 48)
    preprocess = Preprocessing(image_size=64)
    examples, collate = Examples(pairs, preprocess, text, augment=RandomCrop(preprocess.size, preprocess.interpolation)), Collate(0, IGNORED_LABEL)
    order = iter(ShuffledBatches(len(pairs), 64, seed=0))
    begin = time.perf_counter()
    next(order)
    shuffled = time.perf_counter() - begin
    begin = time.perf_counter()
    for _ in range(20):
        collate(examples.__getitems__(next(order)))
    rate = 20 * 64 / (time.perf_counter() - begin)
    return {"pairs": count, "opened s": opened, "MB held": held / 1e6, "shuffled s": shuffled, "images/s read": rate}


def main(config: ScalingConfig) -> None:
    device = torch.device(config.device)
    rows = []
    for name, size in zip(config.presets, config.batch_sizes, strict=True):  # each in a process of its own, which holds nothing else
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            rows.append(process.submit(train_some, name, size, config).result())
    report(f"Training updates, {compute_precision(device).name}, random pictures", rows, device, None)
    data = []
    for count in config.pairs:
        with tempfile.TemporaryDirectory() as directory:
            data.append(read_some(Path(directory), count))
    report("Opening and reading pairs", data, device, None)
    if config.json is not None:
        config.json.write_text(json.dumps({"machine": machine(device), "networks": rows, "pairs": data}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(ScalingConfig, description=__doc__))
