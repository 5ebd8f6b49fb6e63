"""What a data set will hold, decided before anything is rendered: every image's key, seed, split and shard."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from data.prompts import PromptRecord
from data.splits import SPLITS, Split, split_of

MAX_PAIRS = 10**9


@dataclass(frozen=True)
class PlannedPair:
    """One image to make. It depends on `record.prompt` and `seed` alone, never on its neighbours."""

    key: str
    record: PromptRecord
    seed: int


@dataclass(frozen=True)
class PlannedShard:
    split: Split
    number: int
    pairs: tuple[PlannedPair, ...]


def plan_shards(records: Sequence[PromptRecord], *, num_images: int, seed: int, shard_size: int) -> list[PlannedShard]:
    """Spread `num_images` images over `records` (in order, from the first again when they run out) and put them into shards by split.

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
        record = records[i % len(records)]
        by_split[split_of(record.group)].append(PlannedPair(f"{i:09d}", record, image_seed(seed, i)))
    return [
        PlannedShard(split, number, tuple(pairs[start : start + shard_size]))
        for split, pairs in by_split.items()
        for number, start in enumerate(range(0, len(pairs), shard_size))
    ]


def image_seed(seed: int, index: int) -> int:
    """The seed of image `index` of a data set: 32 bits, spread by a hash so that data sets of neighbouring seeds share none."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{index}".encode()).digest()[:4], "big")
