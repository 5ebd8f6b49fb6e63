"""A data set directory that may have been begun: it is only gone on with by the same settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.shards import DATASET_FILE, ShardError, read_json

LOCK_FILE = ".lock"


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


def check_begun(out: Path, before: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """
    Raises:
        ShardError: it was begun with other settings; names them.
    """
    differing = [f"{name}: {before.get(name)!r} there, {now!r} now" for name, now in settings.items() if before.get(name) != now]
    if differing:
        raise ShardError(f"{out} was begun with other settings ({'; '.join(differing)}). Name another --out, or the same settings to go on")
