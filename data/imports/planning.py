"""Which pair of an import comes into which shard: by the split that the source declares, or its group's, decided once and kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.files import write_lines
from data.groups.groups import Groups
from data.imports.examining import lines_of
from data.splits import SPLITS, Split, prompt_group, split_of
from data.store.columns import read_rows
from data.store.directory import finished_shards

SURVEY_FILE = "survey.jsonl"
GROUPS_FILE = "groups.jsonl"  # a line for each line of the survey, written when it is whole: groups are found once, so that they cannot change
MOST_PAIRS = 10**9
_SplitOf = Callable[[str, Split | None], Split]


@dataclass(frozen=True)
class ImportShard:
    """Pairs of a shard: (key, place of their line in survey.jsonl, group)."""

    split: Split
    number: int
    pairs: tuple[tuple[str, int, str], ...]


@dataclass(frozen=True)
class ImportPlan:
    """`skipped` is what is left out: (name, kind, message). `declared` are the splits that the source divides itself into, none where it does not.
    `grouped` are the prompts with their groups."""

    shards: Sequence[ImportShard]
    skipped: Sequence[tuple[str, str, str]]
    declared: tuple[Split, ...]
    grouped: Sequence[tuple[str, str]]


def find_groups(out: Path, groups: Groups, beside: Iterable[Path]) -> None:
    """Write groups.jsonl: for each line of the survey its group, or why it has none."""
    write_lines(out / GROUPS_FILE, _grouped(out, groups, beside))


def plan_import(out: Path, shard_size: int, *, own_splits: bool) -> ImportPlan:
    """
    Args:
        own_splits: keep the source's own train, val and test, where it has them; what of them is missing is carved out of train.
    """
    survey = out / SURVEY_FILE
    declared = declared_splits(survey) if own_splits else ()
    by_split: dict[Split, list[tuple[str, int, str]]] = {split: [] for split in SPLITS}
    skipped, grouped = [], []
    with open(out / GROUPS_FILE, encoding="utf-8") as lines:
        for number, ((place, line), found) in enumerate(zip(lines_of(survey), map(json.loads, lines), strict=True)):
            one = json.loads(line)
            group, split = found.get("group"), one["split"] if declared else None
            if group is None and split is not None and not one["kind"]:  # near two of our splits, which is nothing to one who divided it himself
                group = prompt_group(one["prompt"])
            if group is None:
                skipped.append((one["name"], found["left_out"], one["message"] or "it may be in no split: see docs/PAIRS.md"))
                continue
            grouped.append((one["prompt"], group))
            where: Split = split if split is not None else "train"
            if where == "train" and (hashed := split_of(group)) not in declared:
                where = hashed
            by_split[where].append((f"{number % MOST_PAIRS:09d}", place, group))
    shards = [
        ImportShard(split, number, tuple(pairs[start : start + shard_size]))
        for split, pairs in by_split.items()
        for number, start in enumerate(range(0, len(pairs), shard_size))
    ]
    return ImportPlan(shards, skipped, declared, grouped)


def declared_splits(survey: Path) -> tuple[Split, ...]:
    """The splits that a source divides itself into. Without a train it has only a directory of such a name."""
    found = {json.loads(line)["split"] for _, line in lines_of(survey)}
    return tuple(split for split in SPLITS if split in found) if {"train"} < (found - {None}) else ()


def _grouped(out: Path, groups: Groups, beside: Iterable[Path]) -> Iterator[dict[str, str]]:
    for directory in beside:
        groups.add(_existing(directory))

    def surveyed() -> Iterator[dict[str, Any]]:
        return (json.loads(line) for _, line in lines_of(out / SURVEY_FILE))

    found = groups.assign((one["prompt"], int(one["picture"], 16)) for one in surveyed() if not one["kind"])
    total = sum(1 for _ in lines_of(out / SURVEY_FILE))
    for one in tqdm(surveyed(), "finding near-duplicates", total=total, unit="pair", leave=False):
        if one["kind"]:
            yield {"left_out": one["kind"]}
        else:
            group = next(found)
            yield {"group": group} if isinstance(group, str) else {"left_out": group.kind}


def _existing(directory: Path) -> Iterator[tuple[str, str, int | None]]:
    """Prompt, group and picture of the pairs of a data set of ours."""
    tars = [tar for split in SPLITS for tar in finished_shards(directory / split)]
    for tar in tqdm(tars, f"reading {directory}", unit="shard", leave=False):
        for row in read_rows(tar, ["status", "prompt", "prompt_group", "picture"]):
            if row["status"] == "success":
                yield row["prompt"], row["prompt_group"], int(row["picture"], 16) if row.get("picture") else None
