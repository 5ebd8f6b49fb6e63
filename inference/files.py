"""Which files a command line means."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from data.images import pictures_below


def find_images(paths: Iterable[Path], closed: Callable[[Path, OSError], None]) -> Iterator[tuple[Path, Path]]:
    """The files among `paths`, of each folder every picture in it and below it, in order, and what a pattern such as "renders/*.png" stands for where
    nothing has that name; each file once, with the folder below which it was found (of a pattern what stands before its first sign).

    Args:
        closed: is told of folders that cannot be entered.

    Raises:
        FileNotFoundError: a path that does not exist, or a pattern that nothing fits; names it.
    """
    seen: set[str] = set()
    for path in paths:
        for file, root in _below(path, closed):
            if (name := os.path.abspath(file)) not in seen:  # noqa: PTH100  # a link is a file of its own
                seen.add(name)
                yield file, root


def _below(path: Path, closed: Callable[[Path, OSError], None]) -> Iterator[tuple[Path, Path]]:
    if path.is_dir():
        yield from ((file, path) for file in pictures_below(path, closed))
    elif path.exists():
        yield path, path.parent
    elif found := [Path(name) for name in sorted(glob.glob(str(path), recursive=True)) if Path(name).exists()]:  # noqa: PTH207  # absolute ones too
        root = _before_signs(path)
        for one in found:
            yield from ((file, root) for file, _ in _below(one, closed))
    else:
        raise FileNotFoundError(f"{path} does not exist" + (", and no name fits it" if glob.has_magic(str(path)) else ""))


def _before_signs(pattern: Path) -> Path:
    """The folder below which everything lies that a pattern stands for."""
    while glob.has_magic(str(pattern)):
        pattern = pattern.parent
    return pattern


def listed_paths(lines: Iterable[bytes]) -> list[Path]:
    """Paths of a list, as `find -print` writes it: one in a line, or with zero bytes between (`-print0`), whatever bytes they are of."""
    content = b"".join(lines)
    names = content.split(b"\0") if b"\0" in content else content.splitlines()
    return [Path(name.decode("utf-8", "surrogateescape")) for name in names if name.strip()]
