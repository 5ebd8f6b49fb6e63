"""Reading pairs: what a worker makes ready for the network in a second, beside bare Pillow decoding of the same files in one process.

    python benchmarks/loader.py --data datasets/mini
    python benchmarks/loader.py --data datasets/mini --image-size 224 --json loader.json
    python benchmarks/loader.py --pixels 512                     pictures of that size, made here

A worker reads the archive, decodes, takes a random part, resizes it, normalises and tokenises. The ratio is its images a second over Pillow's.
How long training waits for data is a curve of every run, speed/data_wait in TensorBoard.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image
from rounds import median_seconds, report
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data.loading.augmentation import RandomCrop
from data.loading.examples import Collate, Examples, TextFormat
from data.loading.order import ShuffledBatches
from data.sources.opening import open_pairs
from data.store.archive import read_member
from data.store.directory import index_shard
from data.store.pairs import ArchivePairs
from data.store.writer import ShardWriter
from model import IGNORED_LABEL, Preprocessing
from tokenizer import PromptTokenizer


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """What to compare."""

    data: Path | None = None
    """A data set directory, or tars; without it pictures are made."""
    pixels: int = 512
    """Of the pictures that are made: as Stable Diffusion's."""
    image_size: int = 224
    """What the network wants."""
    images: int = 512
    """In a round."""
    batch_size: int = 32
    rounds: int = 5
    json: Path | None = None


def pictures(directory: Path, pixels: int, count: int) -> ArchivePairs:
    """Smooth pictures with some grain, which compress about as well as generated ones."""
    generator = np.random.default_rng(0)
    with ShardWriter(directory, 0) as writer:
        for i in range(count):
            coarse = Image.fromarray(generator.integers(0, 255, (pixels // 32, pixels // 32, 3), dtype=np.uint8)).resize((pixels, pixels))
            grain = generator.integers(-6, 6, (pixels, pixels, 1))
            image = Image.fromarray((np.asarray(coarse).astype(int) + grain).clip(0, 255).astype(np.uint8))
            writer.add(f"{i:05d}", image, {"prompt": f"a picture with the number {i}, grainy, highly detailed"})
    return ArchivePairs(index_shard(directory / "00000.tar"))


def main(config: LoaderConfig) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        if config.data is None:
            pairs = pictures(Path(directory), config.pixels, 128)
        else:
            source = open_pairs(str(config.data), "train")
            if not isinstance(source, ArchivePairs):
                sys.exit("loader.py: --data must be a data set directory")
            pairs = source
        size = pairs[0].image.size
        tokenizer = PromptTokenizer.train([pairs.prompt(i) for i in range(min(len(pairs), 1000))], 2048)
        text = TextFormat(tokenizer.encode, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, 96)
        preprocess = Preprocessing(image_size=config.image_size)
        examples = Examples(pairs, preprocess, text, augment=RandomCrop(preprocess.size, preprocess.interpolation))
        files = [read_member(location.tar, location.image) for location in pairs.locations[: config.images]]

        def bare() -> None:
            for i in range(config.images):
                with Image.open(io.BytesIO(files[i % len(files)])) as image:
                    image.convert("RGB")

        def here() -> None:
            order = iter(ShuffledBatches(len(pairs), config.batch_size, seed=0))
            collate = Collate(tokenizer.pad_id, IGNORED_LABEL)
            for _ in range(config.images // config.batch_size):
                collate(examples.__getitems__(next(order)))

        loader = iter(
            DataLoader(
                examples,
                batch_sampler=ShuffledBatches(len(pairs), config.batch_size, seed=0),
                collate_fn=Collate(tokenizer.pad_id, IGNORED_LABEL),
                num_workers=1,
                prefetch_factor=2,
            )
        )

        def worker() -> None:
            for _ in range(config.images // config.batch_size):
                next(loader)

        worker()  # it starts, and fills its queue
        functions: dict[str, Callable[[], None]] = {"bare Pillow": bare, "in the training process": here, "one worker": worker}
        seconds = {}
        for name, function in functions.items():  # not in turn: a worker reads ahead while others are timed
            time.sleep(1)
            if name == "one worker":
                for _ in range(3):
                    next(loader)  # what it had read ahead while nobody asked
            seconds |= median_seconds({name: function}, rounds=config.rounds, device=torch.device("cpu"))
        rates = {name: config.images / value for name, value in seconds.items()}
        rows = [{"reader": name, "images/s": rate, "of bare Pillow": rate / rates["bare Pillow"]} for name, rate in rates.items()]
    title = f"Reading pairs of {size[0]} x {size[1]} pixels for a network that sees {config.image_size}, medians of {config.rounds} rounds"
    report(title, rows, torch.device("cpu"), config.json)


if __name__ == "__main__":
    main(tyro.cli(LoaderConfig, description=__doc__))
