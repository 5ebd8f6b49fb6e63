"""Proof that nothing leaks: for every test and validation prompt the nearest training prompt, by all pairs and not by sampling.

Examples:
    python -m data.audit datasets/mine
    python -m data.audit datasets/mine --threshold 0.7 --json audit.json

Nearness is the share of common words (shared / in either). The command fails if any prompt is at the threshold or above, or if a picture of
another split is nearly the same; what a data set of the embedded world promises is less: that no scene is in two splits.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import tyro
from tqdm import tqdm

from data.groups import MissingExtraError, PictureIndex
from data.shards import DATASET_FILE, ShardError, finished_shards, read_json
from data.splits import SPLITS, Split, words_of

_ROWS = 256  # prompts compared at once
_BINS = 10


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """What to check."""

    directory: tyro.conf.Positional[Path]
    """A data set directory."""
    threshold: float | None = None
    """From which share of common words on two prompts are too near (default: what the data set was made with)."""
    examples: int = 10
    """Nearest prompts to show."""
    json: Path | None = None


@dataclass(frozen=True)
class Row:
    key: str
    prompt: str
    group: str
    picture: int | None


def read_rows(directory: Path, split: Split) -> list[Row]:
    """The pairs of a split, from the parquet files beside the tars."""
    rows = []
    for tar in finished_shards(directory / split):
        for row in pq.read_table(tar.with_suffix(".parquet")).to_pylist():
            if row["status"] == "success":
                rows.append(Row(row["key"], row["prompt"], row["prompt_group"], int(row["picture"], 16) if row.get("picture") else None))
    return rows


def nearest(prompts: Sequence[str], known: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """For each prompt its nearest among `known`: (Jaccard similarity of their words, number of the known one), exactly.

    The words two prompts share are counted by a product of sparse matrices, prompts x words.
    """
    from scipy.sparse import csr_matrix

    numbers: dict[str, int] = {}

    def matrix(texts: Sequence[str]) -> tuple[Any, np.ndarray]:
        columns, ends = list[int](), [0]
        for text in texts:
            columns += [numbers.setdefault(word, len(numbers)) for word in words_of(text)]
            ends.append(len(columns))
        return (np.ones(len(columns), dtype=np.float32), columns, ends), np.diff(ends).astype(np.float32)

    (ours, our_sizes), (theirs, their_sizes) = matrix(prompts), matrix(known)
    width = max(1, len(numbers))
    one, other = csr_matrix(ours, shape=(len(prompts), width)), csr_matrix(theirs, shape=(len(known), width)).T.tocsr()
    best, where = np.zeros(len(prompts), dtype=np.float32), np.zeros(len(prompts), dtype=np.int64)
    for start in tqdm(range(0, len(prompts), _ROWS), "comparing prompts", leave=False):
        shared = np.asarray((one[start : start + _ROWS] @ other).todense())
        union = our_sizes[start : start + _ROWS, None] + their_sizes[None] - shared
        similarity = np.where(union > 0, shared / np.maximum(union, 1), 1)
        where[start : start + _ROWS] = similarity.argmax(1)
        best[start : start + _ROWS] = similarity.max(1)
    return best, where


def main(config: AuditConfig) -> bool:
    """Whether nothing leaks."""
    about = read_json(config.directory / DATASET_FILE)
    promised = about.get("near_duplicates", {})
    threshold = config.threshold if config.threshold is not None else promised.get("prompt_similarity")
    rows = {split: read_rows(config.directory, split) for split in SPLITS}
    if not rows["train"]:
        raise ShardError(f"{config.directory / 'train'} holds no finished shard")
    found: dict[str, Any] = {"directory": str(config.directory), "threshold": threshold}
    crossing = _shared_groups(rows)
    found["groups_in_two_splits"] = crossing
    print(f"{config.directory}: " + ", ".join(f"{split} {len(rows[split])}" for split in SPLITS))
    print(f"groups in two splits: {crossing}")
    leaks = crossing
    for split in ("val", "test"):
        if rows[split]:
            leaks += _compare(config, split, rows, threshold, found)
    distance = promised.get("picture_distance")
    if distance is not None:
        found["pictures_in_two_splits"] = alike = _shared_pictures(rows, distance)
        print(f"\npictures of another split that differ by at most {distance} of 256 bits: {alike}")
        leaks += alike
    found["leaks"] = leaks
    if config.json is not None:
        config.json.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"\n{'nothing leaks' if not leaks else f'{leaks} leaks'}")
    return not leaks


def _compare(config: AuditConfig, split: Split, rows: dict[Split, list[Row]], threshold: float | None, found: dict[str, Any]) -> int:
    train, held_out = rows["train"], rows[split]
    similarity, where = nearest([row.prompt for row in held_out], [row.prompt for row in train])
    counts, edges = np.histogram(similarity, bins=_BINS, range=(0, 1))
    print(f"\n{split} prompts by the words they share with their nearest training prompt:")
    for count, edge in zip(counts, edges, strict=False):
        print(f"  {edge:.1f} to {edge + 1 / _BINS:.1f}  {count:7d}  {'#' * round(50 * count / max(1, counts.max()))}")
    first = {held_out[i].prompt: i for i in similarity.argsort()}  # each prompt once, the least alike first
    order = list(first.values())[::-1][: config.examples]
    shown = [{"similarity": round(float(similarity[i]), 3), split: held_out[i].prompt, "train": train[where[i]].prompt} for i in order]
    for one in shown:
        print(f"  {one['similarity']:.2f}  {str(one[split])[:70]!r} / {str(one['train'])[:70]!r}")
    over = int((similarity >= threshold).sum()) if threshold is not None else 0
    if threshold is not None:
        print(f"  at {threshold:g} or above: {over}")
    else:
        print("  no threshold was promised (prompts of the embedded world are kept apart by their scenes); give --threshold to check one")
    found[split] = {"histogram": counts.tolist(), "over": over, "nearest": shown}
    return over


def _shared_groups(rows: dict[Split, list[Row]]) -> int:
    splits = defaultdict(set)
    for split, some in rows.items():
        for row in some:
            splits[row.group].add(split)
    return sum(len(where) > 1 for where in splits.values())


def _shared_pictures(rows: dict[Split, list[Row]], distance: int) -> int:
    """Pictures that are held out and have a near one in training."""
    index = PictureIndex(distance)
    for row in rows["train"]:
        if row.picture is not None:
            index.add(row.picture, row.key)
    return sum(bool(index.near(row.picture)) for split in ("val", "test") for row in rows[split] if row.picture is not None)


if __name__ == "__main__":
    try:
        sys.exit(0 if main(tyro.cli(AuditConfig, description=__doc__)) else 1)
    except (MissingExtraError, OSError, ShardError) as error:
        print(f"data.audit: {error}", file=sys.stderr)
        sys.exit(2)
