"""Pictures that were sent: some files, or ZIP archives of them."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NoReturn, TypeAlias

from data.images import SUFFIXES
from inference.line_files import COLUMNS, table_line
from inference.rows import Row, one_line, printable

MOST_PICTURES = 500  # of one request
MOST_BYTES = 64 << 20  # of one picture
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others unpack all that is in a file, however little is asked for
_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, OSError, EOFError, ValueError)

Read: TypeAlias = Callable[[], bytes]


class SentError(ValueError):
    """Files that cannot be taken; says why."""


@contextmanager
def sent_pictures(files: Sequence[tuple[str, str]]) -> Iterator[list[tuple[str, Read]]]:
    """Name of each picture and what reads it, those of archives among them; what is no picture by its name in an archive, or hidden, is passed over.
    What cannot be read raises a `SentError` when its turn comes, and costs nothing but itself.

    Args:
        files: path and name of each.

    Raises:
        SentError: more than is taken, before any is read.
    """
    with ExitStack() as archives:
        found = [picture for path, name in files for picture in _pictures(path, name, archives)]
        if len(found) > MOST_PICTURES:
            raise SentError(f"more than {MOST_PICTURES} pictures at once; send fewer, or use: python caption.py FOLDER")
        yield found


def _pictures(path: str, name: str, archives: ExitStack) -> list[tuple[str, Read]]:
    suffix = PurePosixPath(name).suffix.lower()
    if suffix != ".zip" and (suffix in SUFFIXES or not zipfile.is_zipfile(path)):
        return [(name, partial(_read, path, name))]
    try:
        archive = archives.enter_context(zipfile.ZipFile(path))
    except _DAMAGED as error:
        return [(name, partial(_refuse, name, error))]
    places = [(member.filename.replace("\\", "/"), member) for member in archive.infolist()]
    return [(str(PurePosixPath(place)), partial(_unpack, archive, member, place)) for place, member in places if _is_picture(place)]


def _is_picture(place: str) -> bool:
    """And neither hidden nor a folder."""
    path = PurePosixPath(place)
    return path.suffix.lower() in SUFFIXES and not place.endswith("/") and not any(part.startswith(".") and part != ".." for part in path.parts)


def _read(path: str, name: str) -> bytes:
    _limited(Path(path).stat().st_size, name)
    return Path(path).read_bytes()


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> bytes:
    _limited(member.file_size, name)
    if member.compress_type not in _COMPRESSIONS:
        raise SentError(f"{printable(name)} is packed in a way that is not read here; pack it as ZIP files usually are (deflated)")
    try:
        with archive.open(member) as file:
            return file.read(member.file_size)  # no more than it says, whatever is in it
    except _DAMAGED as error:
        _refuse(name, error)


def _refuse(name: str, error: Exception) -> NoReturn:
    raise SentError(f"{printable(name)} cannot be unpacked ({printable(error)})") from error


def _limited(size: int, name: str) -> None:
    if size > MOST_BYTES:
        raise SentError(f"{printable(name)} is larger than {MOST_BYTES >> 20} MB")


def results_archive(rows: Sequence[tuple[str, Row]], path: Path) -> None:
    """A ZIP with a text for each picture, beside where the picture was, and the table of all that caption.py --csv writes."""
    table = [",".join(COLUMNS)]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        used: set[str] = set()
        for name, row in rows:
            table.append(table_line(replace(row, file=Path(name))))
            archive.writestr(_text_name(name, used), f"{one_line(row.prompts[0])}\n")
        archive.writestr("prompts.csv", "".join(f"{line}\n" for line in table))


def _text_name(name: str, used: set[str]) -> str:
    """Inside the archive, whatever the picture's name says of other places; told apart also where a system knows no capitals."""
    named = [re.sub(r"^([A-Za-z]:)+", "", part) for part in name.replace("\\", "/").split("/")]
    parts = [printable(part).replace("\\", "_") for part in named if part not in ("", "..", ".")]
    place = PurePosixPath(*(parts or ["picture"]))
    text, number = str(place.with_suffix(".txt")), 1
    while text.casefold() in used:
        number += 1
        text = str(place.with_name(f"{place.stem} {number}.txt"))
    used.add(text.casefold())
    return text
