"""A large set of rendered scenes on disk, in chunks: what the embedded diffusion model learns from.

A chunk is `images-00000.npy` (N, 64, 64, 3 uint8) with `masks-00000.npy` (N, 64, 64 uint8, 255 on the subjects) and `scenes-00000.jsonl`
(prompt and slots, one line an image). A chunk depends only on (seed, its number); it is written to a temporary name and renamed, so
that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from diffusion.mini.render import Sprites, load_sprites, render
from diffusion.mini.world import random_scenes

CHUNK = 2000


def render_scenes(count: int, seed: int, *, held_out: bool, sprites: Sprites) -> tuple[NDArray[np.uint8], NDArray[np.uint8], list[dict[str, Any]]]:
    """Draw and render `count` scenes: images (count, 64, 64, 3), masks (count, 64, 64) and for each `{"prompt": str, "slots": {...}}`."""
    rng = random.Random(f"renders-{seed}")
    images, masks, lines = [], [], []
    for scene, prompt in itertools.islice(random_scenes(rng.getrandbits(48), held_out=held_out), count):
        image, mask = render(scene, sprites, rng)
        images.append(np.asarray(image))
        masks.append(np.asarray(mask))
        lines.append({"prompt": prompt, "slots": scene.slots()})
    return np.stack(images), np.stack(masks), lines


def make_renders(directory: Path, count: int, *, seed: int, processes: int, quiet: bool = False) -> None:
    """Fill `directory` with at least `count` renders of scenes that are not held out; chunks that are there stay."""
    directory.mkdir(parents=True, exist_ok=True)
    missing = [number for number in range(-(-count // CHUNK)) if not _images(directory, number).exists()]
    if not missing:
        return
    load_sprites()  # a missing font is reported here, once
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        done = pool.imap_unordered(partial(_make_chunk, directory, seed), missing)
        list(tqdm(done, "rendering", total=len(missing), unit="chunk", disable=quiet))


def _make_chunk(directory: Path, seed: int, number: int) -> None:
    images, masks, lines = render_scenes(CHUNK, seed * 1_000_003 + number, held_out=False, sprites=load_sprites())
    scenes = _scenes(directory, number)
    scenes.with_suffix(".tmp").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    os.replace(scenes.with_suffix(".tmp"), scenes)
    save_array(_masks(directory, number), masks)
    save_array(_images(directory, number), images)  # last: its presence says that the chunk is whole


def save_array(path: Path, array: NDArray[np.generic]) -> None:
    """Write a .npy file under a temporary name and rename it."""
    with open(path.with_suffix(".tmp"), "wb") as file:
        np.save(file, array)
    os.replace(path.with_suffix(".tmp"), path)


def _images(directory: Path, number: int) -> Path:
    return directory / f"images-{number:05d}.npy"


def _masks(directory: Path, number: int) -> Path:
    return directory / f"masks-{number:05d}.npy"


def _scenes(directory: Path, number: int) -> Path:
    return directory / f"scenes-{number:05d}.jsonl"


def read_prompts(directory: Path, count: int) -> list[str]:
    """The prompts of the first `count` renders, in order."""
    return [line["prompt"] for line in _lines(directory, count)]


def read_slots_of(directory: Path, count: int) -> list[dict[str, str]]:
    """The slots of the first `count` renders, in order."""
    return [line["slots"] for line in _lines(directory, count)]


def _lines(directory: Path, count: int) -> Iterator[dict[str, Any]]:
    for number in range(-(-count // CHUNK)):
        with open(_scenes(directory, number), encoding="utf-8") as file:
            for line in itertools.islice(file, count - number * CHUNK):
                yield json.loads(line)


class Chunks:
    """Rows of several .npy files as if they were one array, read from disk as needed."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.files = [np.load(path, mmap_mode="r") for path in paths]
        self.starts = np.cumsum([0] + [len(file) for file in self.files])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, rows: NDArray[np.integer]) -> NDArray[Any]:
        which = np.searchsorted(self.starts, rows, side="right") - 1
        return np.stack([self.files[file][row - self.starts[file]] for file, row in zip(which, rows, strict=True)])


def open_images(directory: Path, count: int) -> Chunks:
    """The first `count` rendered images (rounded up to whole chunks)."""
    return Chunks([_images(directory, number) for number in range(-(-count // CHUNK))])


def open_masks(directory: Path, count: int) -> Chunks:
    """The masks of the first `count` renders (rounded up to whole chunks): 255 where a subject is."""
    return Chunks([_masks(directory, number) for number in range(-(-count // CHUNK))])
