"""What a pair is in a tar, the same whether its files are found by their places or come as a stream: an image, and a text or metadata of its name.

The WebDataset convention: `KEY.png|jpg|jpeg|webp|...`, `KEY.txt|caption` and `KEY.json`, one after another.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

from data.errors import PairError
from data.images import SUFFIXES
from data.text import cleaned, decoded, prompts_of

TEXT_SUFFIXES = (".txt", ".caption")
METADATA_SUFFIX = ".json"
LARGEST = 128 << 20  # bytes of a file in an archive; what is larger is no picture anybody wants, and may be made to fill the memory
_Part = TypeVar("_Part")


@dataclass(frozen=True)
class PairParts(Generic[_Part]):
    """The files of one pair, or where they lie."""

    key: str
    image: _Part
    metadata: _Part | None
    text: _Part | None


def pair_name(name: str) -> tuple[str, str] | None:
    """(key, suffix) of a file that may belong to a pair; None for others, and for what macOS and hidden folders leave in archives."""
    if any(part.startswith((".", "__MACOSX")) and part not in (".", "..") for part in name.split("/")):
        return None
    key, suffix = os.path.splitext(name)
    suffix = suffix.lower()
    return (key, suffix) if suffix in SUFFIXES or suffix in TEXT_SUFFIXES or suffix == METADATA_SUFFIX else None


def pair_of(key: str, parts: Mapping[str, _Part]) -> PairParts[_Part] | str:
    """The files of one name as a pair; or what is missing for one, in few words."""
    image = next((parts[suffix] for suffix in SUFFIXES if suffix in parts), None)
    text = next((parts[suffix] for suffix in TEXT_SUFFIXES if suffix in parts), None)
    metadata = parts.get(METADATA_SUFFIX)
    if image is None:
        return "missing image"
    return PairParts(key, image, metadata, text) if text is not None or metadata is not None else "no prompt"


def metadata_in(content: bytes | None, label: str) -> dict[str, Any]:
    """
    Raises:
        PairError: it is not JSON.
    """
    if content is None:
        return {}
    try:
        found = json.loads(decoded(content))
    except (ValueError, RecursionError) as error:
        raise PairError(f"{label}{METADATA_SUFFIX} is not JSON ({str(error)[:80]})", "damaged metadata") from error
    return found if isinstance(found, dict) else {}


def prompt_in(text: bytes | None, metadata: bytes | None, names: Sequence[str], *, asked: bool, label: str) -> str:
    """The prompt of a pair: its text file, or the first of `names` in its metadata. Where a name was `asked` for, the metadata alone counts.

    Raises:
        PairError: it has none, or one that is not text.
    """
    if text is not None and not asked:
        try:
            return cleaned(decoded(text))
        except UnicodeDecodeError as error:
            raise PairError(f"{label}: the prompt is not UTF-8 ({error.reason} at byte {error.start})", "damaged prompt") from error
    return prompts_of(metadata_in(metadata, label), names, label)[0]


@dataclass(frozen=True)
class PairLocation:
    """Where the files of a pair lie inside their tar: (offset, size) in bytes."""

    tar: Path
    key: str
    image: tuple[int, int]
    metadata: tuple[int, int] | None
    text: tuple[int, int] | None


@dataclass(frozen=True)
class ArchiveIndex:
    """The whole pairs of a tar in order, how many images or texts were alone, by kind, and what is wrong with the rest of the file."""

    pairs: list[PairLocation]
    alone: Counter[str] = field(default_factory=Counter)
    error: str | None = None


def index_archive(tar_path: Path) -> ArchiveIndex:
    """Find every pair of any WebDataset tar without reading them."""
    files: dict[str, dict[str, tuple[int, int]]] = {}
    error = None
    try:
        size = tar_path.stat().st_size
        with tarfile.open(tar_path, "r:", errorlevel=1) as tar:
            for member in tar:
                if member.offset_data + member.size > size:
                    raise tarfile.ReadError("unexpected end of data")
                tar.members = []  # type: ignore[attr-defined]  # which it would keep
                if member.isfile() and (name := pair_name(member.name)) is not None:
                    files.setdefault(name[0], {})[name[1]] = (member.offset_data, member.size)
    except (tarfile.TarError, OSError, ValueError, OverflowError) as failure:
        error = str(failure)
    pairs, alone = [], Counter[str]()
    for key, parts in files.items():
        found = pair_of(key, parts)
        if isinstance(found, str):
            alone[found] += 1
        else:
            pairs.append(PairLocation(tar_path, key, found.image, found.metadata, found.text))
    return ArchiveIndex(pairs, alone, error)


def stream_archive(file: IO[bytes]) -> Iterator[PairParts[bytes] | PairError]:
    """The pairs of a tar that is read once from its beginning, whatever its compression; in the place of one that is not whole, why. Of files that
    belong to no pair nothing is kept in memory.

    Raises:
        tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError: it cannot be read further.
    """
    with tarfile.open(fileobj=file, mode="r|*") as tar:
        key, parts = None, dict[str, bytes]()
        too_large = False
        for member in tar:
            tar.members = []  # type: ignore[attr-defined]  # which it would keep
            if not member.isfile() or (name := pair_name(member.name)) is None:
                continue
            if name[0] != key:
                yield from _streamed(key, parts, too_large)
                key, parts, too_large = name[0], {}, False
            if member.size > LARGEST:
                too_large = True
                continue
            content = tar.extractfile(member)
            parts[name[1]] = content.read() if content is not None else b""
        yield from _streamed(key, parts, too_large)


def _streamed(key: str | None, parts: Mapping[str, bytes], too_large: bool) -> Iterator[PairParts[bytes] | PairError]:
    if key is None:
        return
    if too_large:
        yield PairError(f"{key}: a file of more than {LARGEST >> 20} MB", "huge file")
        return
    found = pair_of(key, parts)
    yield PairError(f"{key}: {found}", found) if isinstance(found, str) else found


def read_member(tar: Path, part: tuple[int, int]) -> bytes:
    """The bytes at (offset, size) of a tar.

    Raises:
        PairError: more than `LARGEST`, or the file is not there any more.
    """
    offset, size = part
    if size > LARGEST:
        raise PairError(f"{tar}: a file of {size:,} bytes", "huge file")
    try:
        with open(tar, "rb") as file:
            file.seek(offset)
            return file.read(size)
    except OSError as error:
        raise PairError(f"{tar} cannot be read ({error})", "unreadable archive") from error
