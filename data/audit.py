"""Proof that nothing leaks: for every test and validation prompt the nearest training prompt, by all pairs and not by sampling.

Examples:
    python -m data.audit datasets/mine
    python -m data.audit datasets/mine --threshold 0.7 --json audit.json
    python -m data.audit datasets/mine --sentence-model sentence-transformers/all-MiniLM-L6-v2 --sentence-threshold 0.8

Nearness is the share of common words (shared / in either) and, where the data set was made with a sentence model or one is named, the cosine
similarity of what prompts say. The command fails if any prompt is at a threshold or above, or if a picture of another split is nearly the same;
what a data set of the embedded world promises is less: that no scene is in two splits.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import tyro
from tqdm import tqdm

from data.embeddings import SentenceEncoder
from data.extras import MissingExtraError
from data.groups import AUTO, NONE, Nearness
from data.nearness import PictureIndex, nearest_by_sentences, nearest_by_words
from data.shards import DATASET_FILE, ShardError, finished_shards, read_json
from data.splits import SPLITS, Split

_BINS = 10
Nearest = Callable[[Sequence[str], Sequence[str]], Iterator[tuple[np.ndarray, np.ndarray]]]


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """What to check."""

    directory: tyro.conf.Positional[Path]
    """A data set directory."""
    threshold: float | None = None
    """From which share of common words on two prompts are too near (default: what the data set was made with)."""
    sentence_model: str = AUTO
    """Compares what prompts say: a directory of sentence-transformers, a Hub id, "none", or "auto": the one that the data set was made with."""
    sentence_threshold: float | None = None
    """From which cosine similarity on two prompts are too near (default: what the data set was made with)."""
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


@dataclass(frozen=True)
class Measure:
    """One way to compare prompts. `threshold` is where two are too near, None where nothing was promised."""

    name: str
    what: str
    nearest: Nearest
    threshold: float | None


def main(config: AuditConfig) -> bool:
    """Whether nothing leaks."""
    promised = read_json(config.directory / DATASET_FILE).get("near_duplicates", {})
    measures = _measures(config, promised)
    rows = {split: read_rows(config.directory, split) for split in SPLITS}
    if not rows["train"]:
        raise ShardError(f"{config.directory / 'train'} holds no finished shard")
    leaks = _shared_groups(rows)
    found: dict[str, Any] = {"directory": str(config.directory), "groups_in_two_splits": leaks}
    print(f"{config.directory}: " + ", ".join(f"{split} {len(rows[split])}" for split in SPLITS))
    print(f"groups in two splits: {leaks}")
    prompts = {split: sorted({row.prompt for row in some}) for split, some in rows.items()}
    for measure in measures:
        compared = _compare(measure, prompts, config.examples)
        found[measure.name] = {"threshold": measure.threshold} | compared
        leaks += sum(part["over"] for part in compared.values())
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


def _measures(config: AuditConfig, promised: dict[str, Any]) -> list[Measure]:
    threshold = config.threshold if config.threshold is not None else promised.get("prompt_similarity")
    measures = [Measure("words", "the words they share with", nearest_by_words, threshold)]
    model = Nearness(sentence_model=config.sentence_model).settled(promised).sentence_model
    if model != NONE:
        threshold = config.sentence_threshold if config.sentence_threshold is not None else promised.get("sentence_similarity")
        nearest = partial(nearest_by_sentences, encode=SentenceEncoder(model))
        measures.append(Measure("sentences", "how much they say the same as", nearest, threshold))
    elif config.sentence_threshold is not None:
        raise ShardError(f"{config.directory} was made without a sentence model; name one with --sentence-model")
    return measures


def _compare(measure: Measure, prompts: dict[Split, list[str]], examples: int) -> dict[str, dict[str, Any]]:
    """For validation and test, what their nearest training prompts are."""
    held_out = [prompt for split in ("val", "test") for prompt in prompts[split]]
    parts = []
    with tqdm(total=len(held_out), desc=f"comparing {measure.name}", unit="prompt", leave=False) as bar:
        for part in measure.nearest(held_out, prompts["train"]):
            parts.append(part)
            bar.update(len(part[0]))
    similarity, where = (np.concatenate(column) for column in zip(*parts, strict=True)) if parts else (np.empty(0), np.empty(0, dtype=int))
    found, start = {}, 0
    for split in ("val", "test"):
        own = slice(start, start + len(prompts[split]))
        start = own.stop
        if prompts[split]:
            nearest = [prompts["train"][number] for number in where[own]]
            found[split] = _show(measure, split, prompts[split], similarity[own], nearest, examples)
    return found


def _show(measure: Measure, split: str, prompts: list[str], similarity: np.ndarray, nearest: list[str], examples: int) -> dict[str, Any]:
    counts, edges = np.histogram(np.clip(similarity, 0, 1), bins=_BINS, range=(0, 1))
    print(f"\n{len(prompts)} different {split} prompts by {measure.what} their nearest training prompt:")
    for count, edge in zip(counts, edges, strict=False):
        print(f"  {edge:.1f} to {edge + 1 / _BINS:.1f}  {count:7d}  {'#' * round(50 * count / max(1, counts.max()))}")
    order = similarity.argsort()[::-1][:examples]
    shown = [{"similarity": round(float(similarity[i]), 3), split: prompts[i], "train": nearest[i]} for i in order]
    for one in shown:
        print(f"  {one['similarity']:.2f}  {str(one[split])[:70]!r} / {str(one['train'])[:70]!r}")
    over = int((similarity >= measure.threshold).sum()) if measure.threshold is not None else 0
    if measure.threshold is not None:
        print(f"  at {measure.threshold:g} or above: {over}")
    else:
        print("  no threshold was promised (prompts of the embedded world are kept apart by their scenes); give one to check it")
    return {"histogram": counts.tolist(), "over": over, "nearest": shown}


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
    except (MissingExtraError, OSError, ValueError) as error:
        print(f"data.audit: {error}", file=sys.stderr)
        sys.exit(2)
