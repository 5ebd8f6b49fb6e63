"""Pictures of files and folders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from data.images import pictures_below


def find_images(paths: Iterable[Path], closed: Callable[[Path, OSError], None]) -> Iterator[Path]:
    """The files among `paths` as they are, and of each folder every picture in it and below it, in order; `closed` is told of folders that cannot be
    entered.

    Raises:
        FileNotFoundError: a path that does not exist; names it.
    """
    for path in paths:
        if path.is_dir():
            yield from pictures_below(path, closed)
        elif path.exists():
            yield path
        else:
            raise FileNotFoundError(f"{path} does not exist")
