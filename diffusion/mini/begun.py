"""A run directory is gone on with from where it began only: what it holds depends on it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BEGUN_FILE = "begun.json"


def check_begun(run_dir: Path, now: Mapping[str, Any], *, unrecorded: Mapping[str, Any] | None = None) -> None:
    """Keep in `run_dir` what it is begun with, or compare.

    Args:
        unrecorded: what a directory without a record was begun with; None is the same as `now`.

    Raises:
        ValueError: it was begun with something else.
    """
    path = run_dir / BEGUN_FILE
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
    else:
        before = dict(now if unrecorded is None else unrecorded)
        path.with_suffix(".tmp").write_text(json.dumps(before) + "\n", encoding="utf-8")
        os.replace(path.with_suffix(".tmp"), path)
    if differing := [f"{name}: {before.get(name)} there, {value} now" for name, value in now.items() if before.get(name) != value]:
        raise ValueError(f"--run-dir {run_dir} was begun with something else ({'; '.join(differing)}); name another, or the same to go on")
