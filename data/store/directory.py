"""A data set directory: `{train,val,test}/00000.tar` with a table and a stats file beside each, and `dataset.json`, which says what all of it is.

A shard is done iff its stats file exists: it is written last, and each file under a temporary name first. A directory is only gone on with by the
settings that it was begun with.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from data.errors import ShardError
from data.files import read_json
from data.splits import SPLITS, Split
from data.store.archive import PairLocation, index_archive

DATASET_FILE = "dataset.json"
LOCK_FILE = ".lock"
LOCKS = ".locks"  # of shards, in each split's directory; they stay where they are, since one that is removed while another waits for it locks nothing


def stats_path(stem: Path) -> Path:
    return Path(f"{stem}_stats.json")


def read_stats(stem: Path) -> dict[str, Any]:
    """What a shard's stats file says; empty where there is none yet."""
    path = stats_path(stem)
    return read_json(path) if path.exists() else {}


def finished_shards(split_directory: Path) -> list[Path]:
    """The tars of all shards that are done, in order."""
    return sorted(tar for tar in split_directory.glob("*.tar") if stats_path(tar.with_suffix("")).exists())


def index_shard(tar_path: Path) -> list[PairLocation]:
    """Find every pair of one of our shards without reading the images.

    Raises:
        ShardError: the tar is cut short or damaged, or holds other than its stats file says.
    """
    index = index_archive(tar_path)
    if index.error is not None:
        raise ShardError(f"{tar_path} is cut short or damaged ({index.error}). {_remedy(tar_path)}")
    expected = read_stats(tar_path.with_suffix("")).get("successes")
    if expected is not None and len(index.pairs) != expected:
        raise ShardError(f"{tar_path} holds {len(index.pairs)} pairs, but its stats file says {expected}. {_remedy(tar_path)}")
    return index.pairs


def _remedy(tar_path: Path) -> str:
    return f"Delete {stats_path(tar_path.with_suffix(''))} and run the command that made the data set again: it makes the shard anew"


def planned_shards(about: Mapping[str, Any]) -> dict[Split, int] | None:
    """How many shards each split is to have; None where that is not decided yet."""
    if isinstance(about.get("shards"), dict):
        return {split: int(about["shards"].get(split, 0)) for split in SPLITS}
    counts, size = about.get("counts"), (about.get("settings") or {}).get("shard_size")
    if isinstance(counts, dict) and isinstance(size, int):  # written before the shards were counted
        return {split: math.ceil(counts.get(split, 0) / size) for split in SPLITS}
    return None


def is_finished(directory: Path) -> bool:
    """Whether all shards are there that it is to have."""
    planned = planned_shards(read_json(directory / DATASET_FILE))
    return planned is not None and all(len(finished_shards(directory / split)) >= planned[split] for split in SPLITS)


def check_finished(directory: Path) -> None:
    """
    Raises:
        ShardError: some of the shards that it is to have are not there; says how many, and how to go on.
    """
    about = read_json(directory / DATASET_FILE)
    planned = planned_shards(about)
    if planned is None:
        raise ShardError(f"{directory} is not finished. Go on with: {command_of(directory, about)}")
    done = {split: len(finished_shards(directory / split)) for split in SPLITS}
    if not is_finished(directory):
        there, wanted = sum(done.values()), sum(planned.values())
        raise ShardError(
            f"{directory} has {there} of {wanted} shards. Go on with: {command_of(directory, about)}   (or take what is there with --partial)"
        )


def command_of(directory: Path, about: Mapping[str, Any]) -> str:
    """The command that a data set is made with."""
    arguments = about.get("arguments") or ["--out", str(directory)]
    return f"{about.get('command', 'python generate_data.py')} {shlex.join(map(str, arguments))}"


def begun_settings(out: Path, *, leftovers: tuple[str, ...] = ()) -> dict[str, Any] | None:
    """The settings that a directory was begun with; None where it was not.

    Args:
        leftovers: files that a run may leave which was killed before it had begun.

    Raises:
        ShardError: it is a file, or holds other things.
    """
    if out.is_file():
        raise ShardError(f"--out {out} is a file; name a directory")
    if (out / DATASET_FILE).exists():
        settings = read_json(out / DATASET_FILE).get("settings")
        return settings if isinstance(settings, dict) else {}
    if out.is_dir() and any(path.name not in (LOCK_FILE, *leftovers) and path.suffix != ".tmp" for path in out.iterdir()):
        raise ShardError(f"--out {out} holds other things and no {DATASET_FILE}; name a new or empty directory")
    return None


def nothing_made(out: Path) -> bool:
    """Whether a directory that was begun has no finished shard yet, and nobody is making one."""
    if any(out.glob("*/*_stats.json")):
        return False
    for path in out.glob(f"*/{LOCKS}/*.lock"):
        lock = FileLock(path)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return False
        lock.release()
    return True


def check_begun(out: Path, before: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """What an earlier version did not write down is not compared.

    Raises:
        ShardError: it was begun with other settings; names them.
    """
    differing = [f"{name}: {before[name]!r} there, {now!r} now" for name, now in settings.items() if name in before and before[name] != now]
    if differing:
        raise ShardError(f"{out} was begun with other settings ({'; '.join(differing)}). Name another --out, or the same settings to go on")
