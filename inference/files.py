"""Which files a command line means."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from data.images import pictures_below


def find_images(paths: Iterable[Path], closed: Callable[[Path, OSError], None]) -> Iterator[tuple[Path, Path]]:
    """The files among `paths`, of each folder every picture in it and below it, in order, and what a pattern such as "renders/*.png" stands for where
    nothing has that name; each file once, with the folder below which it was found.

    Args:
        closed: is told of folders that cannot be entered.

    Raises:
        FileNotFoundError: a path that does not exist, or a pattern that nothing fits; names it.
    """
    seen: set[Path] = set()
    for path in paths:
        for file, root in _below(path, closed):
            if file not in seen:
                seen.add(file)
                yield file, root


def _below(path: Path, closed: Callable[[Path, OSError], None]) -> Iterator[tuple[Path, Path]]:
    if path.is_dir():
        yield from ((file, path) for file in pictures_below(path, closed))
    elif path.exists():
        yield path, path.parent
    elif found := sorted(glob.glob(str(path), recursive=True)):  # noqa: PTH207  # absolute patterns too, where no shell has done it
        for name in found:
            yield from _below(Path(name), closed)
    else:
        raise FileNotFoundError(f"{path} does not exist" + (", and no name fits it" if glob.has_magic(str(path)) else ""))


def listed_paths(lines: Iterable[bytes]) -> list[Path]:
    """Paths of a list, as `find -print` writes it: one in a line, or with zero bytes between (`-print0`), whatever bytes they are of."""
    content = b"".join(lines)
    names = content.split(b"\0") if b"\0" in content else content.splitlines()
    return [Path(name.decode("utf-8", "surrogateescape")) for name in names if name.strip()]
