"""The pairs of any WebDataset tars on this machine, by number."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path

from data.errors import ShardError
from data.store.archive import index_archive
from data.store.pairs import ArchivePairs

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


def expand(pattern: str) -> list[str]:
    """`a/{00..02}.tar` -> three names; `a/*.tar` -> the files there are; a name of an existing file or a URL -> itself."""
    braces = _BRACES.search(pattern)
    if braces:
        first, last = braces.groups()
        numbers = [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
        return [name for number in numbers for name in expand(pattern[: braces.start()] + number + pattern[braces.end() :])]
    if "://" in pattern:
        return [pattern]
    return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 (Path.glob wants a relative pattern)


class TarPairs(ArchivePairs):
    """Of a tar that is cut short the pairs before the cut; of images and texts that are alone how many."""

    def __init__(self, tars: Sequence[Path], prompt_name: str | None = None) -> None:
        found = [index_archive(tar) for tar in tars]
        super().__init__([location for index in found for location in index.pairs], prompt_name)
        self.skipped["cut archive"] += sum(index.error is not None for index in found)
        for index in found:
            self.skipped.update(index.alone)
        self.skipped = +self.skipped
        if not self.locations:
            reason = next((f" ({index.error})" for index in found if index.error is not None), "")
            raise ShardError(f"{tars[0]}{' and the others' if len(tars) > 1 else ''}: no image with a .txt or .json beside it{reason}")
