"""Pictures of files and folders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"})


def find_images(paths: Iterable[Path]) -> Iterator[Path]:
    """The files among `paths` as they are, and of each folder every picture in it and below it, sorted.

    Raises:
        FileNotFoundError: a path that does not exist; names it.
    """
    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
        elif path.exists():
            yield path
        else:
            raise FileNotFoundError(f"{path} does not exist")
