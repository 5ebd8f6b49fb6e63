"""Pictures that were sent: some files, or ZIP archives of them."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from data.images import SUFFIXES
from inference.rows import Row, printable

MOST_PICTURES = 500  # of one request
MOST_BYTES = 64 << 20  # of one picture


class SentError(ValueError):
    """Files that cannot be taken; says why."""


def sent_pictures(files: Sequence[tuple[str, str]]) -> Iterator[tuple[str, bytes]]:
    """Name and content of each picture, those of archives among them; what is no picture by its name in an archive is passed over.

    Args:
        files: path and name of each.

    Raises:
        SentError: an archive that cannot be read, or more than is taken.
    """
    count = 0
    for path, name in files:
        if zipfile.is_zipfile(path) and PurePosixPath(name).suffix.lower() not in SUFFIXES:
            inside = _unpacked(path, name)
        else:
            _limited(Path(path).stat().st_size, name)
            inside = iter([(name, Path(path).read_bytes())])
        for one in inside:
            count += 1
            if count > MOST_PICTURES:
                raise SentError(f"more than {MOST_PICTURES} pictures at once; send fewer, or use: python caption.py FOLDER")
            yield one


def _limited(size: int, name: str) -> None:
    if size > MOST_BYTES:
        raise SentError(f"{printable(name)} is larger than {MOST_BYTES >> 20} MB")


def _unpacked(path: str, name: str) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                inner = PurePosixPath(member.filename.replace("\\", "/"))
                if member.is_dir() or inner.suffix.lower() not in SUFFIXES or inner.name.startswith("."):
                    continue
                _limited(member.file_size, inner.name)
                with archive.open(member) as file:  # no more than it says, whatever is in it
                    yield str(inner), file.read(MOST_BYTES + 1)[:MOST_BYTES]
    except (zipfile.BadZipFile, RuntimeError, OSError, EOFError, NotImplementedError) as error:
        raise SentError(f"{printable(name)} cannot be unpacked ({error})") from error


def results_archive(rows: Sequence[tuple[str, Row]], path: Path) -> None:
    """A ZIP with a text for each picture, beside where the picture was, and a table of all."""
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["file", "prompt", "source", "confidence", "familiarity", "note"])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        used: set[str] = set()
        for name, row in rows:
            about = row.as_json()
            writer.writerow([printable(name), *(about.get(key, "") for key in ("prompt", "source", "confidence", "familiarity", "note"))])
            archive.writestr(_text_name(name, used), f"{' '.join(row.prompts[0].split())}\n")
        archive.writestr("prompts.csv", table.getvalue())


def _text_name(name: str, used: set[str]) -> str:
    """Inside the archive, whatever the picture's name says of other places."""
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", "..", ".") and not part.endswith(":")]
    place = PurePosixPath(*(parts or ["picture"]))
    text, number = str(place.with_suffix(".txt")), 1
    while text in used:
        number += 1
        text = str(place.with_name(f"{place.stem} {number}.txt"))
    used.add(text)
    return text
