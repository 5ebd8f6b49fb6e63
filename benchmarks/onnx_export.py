"""The exported graphs beside PyTorch: are the greedy texts the same, and which is quicker?

python export.py --out exported && python export.py --out exported8 --int8
python benchmarks/onnx_export.py --exported exported --int8 exported8
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import tyro
from rounds import median_seconds, report

from data.sources.held_out import HeldOutPictures
from data.sources.opening import open_splits
from inference import DEFAULT_CHECKPOINT, PromptInverter


@dataclass(frozen=True, kw_only=True)
class ExportedConfig:
    """What to compare, on what."""

    exported: Path
    int8: Path | None = None
    checkpoint: Path = DEFAULT_CHECKPOINT
    data: str = "assets/mini-benchmark"
    pictures: int = 500
    batch_size: int = 32
    rounds: int = 3
    json: Path | None = None


def main(config: ExportedConfig) -> None:
    pictures = HeldOutPictures.of(open_splits(config.data)["test"], config.pictures)
    images = [image for place in range(len(pictures)) for image in pictures.images(place, 1)]
    places = {"PyTorch fp32": config.checkpoint, "onnxruntime fp32": config.exported}
    places |= {"onnxruntime int8": config.int8} if config.int8 is not None else {}
    rows = []
    for beams in (1, 4):
        inverters = {name: PromptInverter.from_pretrained(place, dtype="float32") for name, place in places.items()}
        runs: dict[str, Callable[[], object]] = {
            name: partial(inverter.predict, images, num_beams=beams, batch_size=config.batch_size) for name, inverter in inverters.items()
        }
        texts = {name: [tuple(token.text for token in prediction.tokens) for prediction in run()] for name, run in runs.items()}  # type: ignore[attr-defined]
        seconds = median_seconds(runs, rounds=config.rounds, device=torch.device("cpu"))
        for name, found in seconds.items():
            same = sum(one == other for one, other in zip(texts[name], texts["PyTorch fp32"], strict=True))
            size = sum(path.stat().st_size for path in places[name].iterdir()) / 1e6
            row: dict[str, object] = {"beams": beams, "runtime": name, "same tokens": f"{same} of {len(images)}"}
            rows.append(row | {"images/s": len(images) / found, "times as fast": seconds["PyTorch fp32"] / found, "MB": size})
    report(f"{len(images)} pictures, batches of {config.batch_size}, medians of {config.rounds} rounds", rows, torch.device("cpu"), config.json)


if __name__ == "__main__":
    main(tyro.cli(ExportedConfig, description=__doc__))
