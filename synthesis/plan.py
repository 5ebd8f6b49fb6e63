"""What a data set will hold, decided before anything is rendered: every image's key, seed, settings, split and shard."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from data.splits import SPLITS, Split, split_of
from synthesis.prompts import PromptRecord

MAX_PAIRS = 10**9
_Value = TypeVar("_Value", int, float)


@dataclass(frozen=True)
class PlannedPair:
    """One image to make. It depends on its prompt, seed and settings alone, never on its neighbours. None is what the pipeline usually takes."""

    key: str
    record: PromptRecord
    seed: int
    steps: int | None = None
    guidance_scale: float | None = None


@dataclass(frozen=True)
class PlannedShard:
    split: Split
    number: int
    pairs: tuple[PlannedPair, ...]


def plan_shards(
    records: Sequence[PromptRecord],
    *,
    num_images: int,
    seed: int,
    shard_size: int,
    steps: Sequence[int] = (),
    guidance_scales: Sequence[float] = (),
) -> list[PlannedShard]:
    """Spread `num_images` images over `records` (in order, from the first again when they run out) and put them into shards by split. Of
    several steps and guidance scales each image draws one.

    Raises:
        ValueError: numbers out of range, or no records.
    """
    if not 1 <= num_images < MAX_PAIRS:
        raise ValueError(f"the number of images must be 1 to {MAX_PAIRS - 1:,}, not {num_images}")
    if shard_size < 1:
        raise ValueError(f"a shard holds one image or more, not {shard_size}")
    if not records:
        raise ValueError("there are no prompts")
    by_split: dict[Split, list[PlannedPair]] = {split: [] for split in SPLITS}
    for i in range(num_images):
        record, own = records[i % len(records)], image_seed(seed, i)
        pair = PlannedPair(f"{i:09d}", record, own, _drawn(steps, f"{own}:steps"), _drawn(guidance_scales, f"{own}:guidance"))
        by_split[split_of(record.group)].append(pair)
    return [
        PlannedShard(split, number, tuple(pairs[start : start + shard_size]))
        for split, pairs in by_split.items()
        for number, start in enumerate(range(0, len(pairs), shard_size))
    ]


def image_seed(seed: int, index: int) -> int:
    """The seed of image `index` of a data set: 32 bits, spread by a hash so that data sets of neighbouring seeds share none."""
    return _hashed(f"{seed}:{index}")


def _drawn(values: Sequence[_Value], name: str) -> _Value | None:
    return values[_hashed(name) % len(values)] if values else None


def _hashed(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
