"""The splits that data declares by itself: by directories, by the names of tars, in a column or value `split`."""

from __future__ import annotations

import glob
import os
import re
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import TypeVar

from data.errors import ShardError
from data.sources.tars import expand
from data.splits import SPLITS, Split, declared_split, split_in_path
from data.store.directory import finished_shards, read_stats

_Part = TypeVar("_Part")


def tars_by_split(source: str) -> dict[Split, list[str]]:
    """The tars of a directory, or of a pattern of paths or URLs. Directories below it declare the split, `train/00000.tar`, or the tar's name does,
    `mine-train-00000.tar`; what declares none is for training."""
    if Path(source).is_dir():
        files, root = expand(f"{glob.escape(source)}/**/*.tar"), len(source)
    else:
        files = expand(source)
        shared = os.path.commonprefix(files).replace("\\", "/")  # noqa: RUF071 (of URLs too, of which commonpath makes others)
        root = shared.rfind("/") + 1
    found: dict[Split, list[str]] = {}
    undeclared = 0
    for file in files:
        relative = file[root:].replace("\\", "/").lstrip("/")
        words = [split for word in re.split(r"[-._ ]", PurePosixPath(relative).stem) if (split := declared_split(word)) is not None]
        declared = split_in_path(relative) or (words[0] if len(set(words)) == 1 else None)
        undeclared += declared is None
        found.setdefault(declared or "train", []).append(file)
    if 0 < undeclared < len(files):
        warnings.warn(f"{undeclared} of {len(files)} tars of {source} declare no split, where others do; they are for training", stacklevel=3)
    return found


def splits_with_pairs(directory: Path) -> list[Split]:
    """Of a data set directory of ours those that have any."""
    return [split for split in SPLITS if any(read_stats(tar.with_suffix("")).get("successes", 1) for tar in finished_shards(directory / split))]


def by_split(named: Mapping[str, _Part], source: str) -> dict[Split, _Part]:
    """The parts of a source whose names are those of splits.

    Raises:
        ShardError: two names mean one split.
    """
    found: dict[Split, _Part] = {}
    names: dict[Split, str] = {}
    for name, part in named.items():
        split = declared_split(name)
        if split in names:
            raise ShardError(f"{source} has two splits for {split}, {names[split]} and {name}; make one of them")
        if split is not None:
            names[split], found[split] = name, part
    return found


def about_carving(missing: Collection[Split], source: str) -> str:
    """For people; empty where nothing was carved out."""
    return f"{' and '.join(missing)} taken out of train, by what pairs say or the hash of their prompts, as {source} declares none" if missing else ""


def missing_splits(declared: Collection[Split]) -> tuple[Split, ...]:
    """Those of val and test that are not declared, and are carved out of train."""
    return tuple(split for split in SPLITS if split != "train" and split not in declared)


def check_train(parts: Collection[Split], split: Split, source: str) -> None:
    """
    Raises:
        ShardError: a split that is not declared is to come out of a train that is not there.
    """
    if split not in parts and "train" not in parts:
        raise ShardError(f"{source} has no {split} split, only {' and '.join(parts)}; and without train none can be carved out")
