"""Importing a folder: images a second of `data.importers` beside bare reading of the same files, and beside decoding them.

    python benchmarks/importing.py --source PHOTOS
    python benchmarks/importing.py                      pictures of 512 x 512 pixels, made here

An import reads every file twice (to look at it, to copy it), decodes it once, finds its prompt and computes a perceptual hash.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image, PngImagePlugin
from rounds import median_seconds, report

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data.embeddings import sentence_model_at_hand
from data.groups.nearness import AUTO, Nearness
from data.importers import FolderImport
from data.importers import main as import_folder
from data.imports.listing import folder


@dataclass(frozen=True, kw_only=True)
class ImportingConfig:
    """What to measure."""

    source: Path | None = None
    """A folder of images; without it pictures are made."""
    count: int = 1000
    pixels: int = 512
    workers: int = os.cpu_count() or 1
    rounds: int = 3
    json: Path | None = None


def pictures(directory: Path, config: ImportingConfig) -> Path:
    """Smooth pictures with some grain, with AUTOMATIC1111's text in them."""
    generator = np.random.default_rng(0)
    directory.mkdir()
    for i in range(config.count):
        side = config.pixels
        coarse = Image.fromarray(generator.integers(0, 255, (side // 32, side // 32, 3), dtype=np.uint8)).resize((side, side))
        grain = generator.integers(-6, 6, (side, side, 1))
        notes = PngImagePlugin.PngInfo()
        words = " ".join(f"word{number}" for number in generator.integers(0, 5000, 12))
        notes.add_text("parameters", f"{words}\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: {i}")
        Image.fromarray((np.asarray(coarse).astype(int) + grain).clip(0, 255).astype(np.uint8)).save(directory / f"{i:05d}.png", pnginfo=notes)
    return directory


def main(config: ImportingConfig) -> None:
    with tempfile.TemporaryDirectory() as directory:
        source = config.source if config.source is not None else pictures(Path(directory) / "in", config)
        files = [original.file for original in folder(source)]
        number = iter(range(10**6))

        def bare() -> None:
            for file in files:
                file.read_bytes()

        def decoded() -> None:
            for file in files:
                with Image.open(file) as image:
                    image.convert("RGB")

        def imported(sentence_model: str) -> None:
            out = Path(directory) / f"out {next(number)}"
            with contextlib.redirect_stdout(sys.stderr):
                import_folder(FolderImport(source=source, out=out, workers=config.workers, nearness=Nearness(sentence_model=sentence_model)))
            shutil.rmtree(out)

        functions: dict[str, Callable[[], None]] = {"reading the files": bare, "decoding them, one process": decoded}
        functions[f"import, {config.workers} processes, prompts compared by words"] = lambda: imported("none")
        if sentence_model_at_hand() is not None:
            functions[f"import, {config.workers} processes, by words and sentences"] = lambda: imported(AUTO)
        time.sleep(0.1)
        seconds = median_seconds(functions, rounds=config.rounds, device=torch.device("cpu"))
    rates = {name: len(files) / value for name, value in seconds.items()}
    decoding = rates["decoding them, one process"]
    rows = [{"what": name, "images/s": rate, "of decoding": rate / decoding} for name, rate in rates.items()]
    report(f"{len(files)} files, medians of {config.rounds} rounds", rows, torch.device("cpu"), config.json)


if __name__ == "__main__":
    main(tyro.cli(ImportingConfig, description=__doc__))
