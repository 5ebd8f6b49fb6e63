"""Folders of pictures: those that a metadata file lists (Hugging Face's imagefolder), and those with a text file beside each picture."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import Dataset

from data.errors import PairError, ShardError
from data.images import pictures_below, read_image
from data.metadata.tools import read_sidecar
from data.rows import Malformed, open_table
from data.splits import Split, declared_split, split_in_path
from data.store.pairs import Pair
from data.text import PROMPT_NAMES, cleaned, decoded, prompts_of

METADATA_FILES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
FILE_NAMES = ("file_name", "image", "image_path", "file", "filename", "path")
SIDECARS = (".txt", ".caption")
LONGEST_SIDECAR = 1_000_000  # bytes


@dataclass(frozen=True)
class ListedFile:
    """A picture that a metadata file lists, with one of its prompts."""

    file: Path
    name: str  # as it is listed
    prompt: str | None
    row: dict[str, Any] = field(default_factory=dict)
    problem: PairError | None = None

    @property
    def split(self) -> Split | None:
        """What its row or its directory declares."""
        return declared_split(self.row.get("split")) or split_in_path(self.name)


def listed_files(table: Path, prompt_name: str | None = None) -> Iterator[ListedFile]:
    """What a metadata file lists, a picture with several prompts once for each; rows that cannot be used with the reason.

    Raises:
        TableError: the metadata file cannot be read.
    """
    names = (prompt_name,) if prompt_name is not None else PROMPT_NAMES
    listing = open_table(table)
    if listing.notice:
        warnings.warn(listing.notice, stacklevel=2)
    for number, row in listing.rows():
        label = f"{table.name}:{number}"
        if isinstance(row, Malformed):
            yield ListedFile(table, label, None, problem=PairError(f"{label}: {row.reason}", "damaged metadata"))
            continue
        value = next((row[name] for name in FILE_NAMES if row.get(name)), None)
        name = value.get("path") if isinstance(value, dict) else value
        if not isinstance(name, str) or not name:
            message = f"{label}: no file under {' or '.join(FILE_NAMES[:2])} (there is: {', '.join(map(str, row)) or 'nothing'})"
            yield ListedFile(table, label, None, row, PairError(message, "no file_name"))
            continue
        name = name.replace("\\", "/")  # written on Windows
        if name.startswith("/") or name[1:2] == ":" or ".." in name.split("/"):
            yield ListedFile(table, label, None, row, PairError(f"{label}: {name!r} lies outside the folder", "outside the folder"))
            continue
        file = table.parent / name
        try:
            prompts: list[str | None] = list(prompts_of(row, names, label))
            problem = None
        except PairError as error:
            prompts, problem = [None], error
        yield from (ListedFile(file, name, prompt, row, problem) for prompt in prompts)


def closed_folder(folder: Path, error: OSError) -> None:
    """Say that the pictures of a folder are left out."""
    warnings.warn(f"{folder} cannot be entered ({error.strerror}); its pictures are left out", stacklevel=2)


def sidecar_of(picture: Path) -> Path | None:
    """The text file beside a picture: x.txt or x.caption, or x.png.txt, in small letters or capitals."""
    for suffix in (form for one in SIDECARS for form in (one, one.upper())):
        for base in (picture.stem, picture.name):
            if (path := picture.with_name(base + suffix)).is_file():
                return path
    return None


def read_sidecar_text(path: Path) -> str:
    """
    Raises:
        PairError: it is no text, or no prompt by its size.
    """
    if path.stat().st_size > LONGEST_SIDECAR:
        raise PairError(f"{path}: {path.stat().st_size:,} bytes are no prompt", "damaged sidecar")
    try:
        return cleaned(decoded(path.read_bytes()))
    except UnicodeDecodeError as error:
        raise PairError(f"{path}: neither UTF-8 nor UTF-16 ({error.reason} at byte {error.start})", "damaged sidecar") from error
    except OSError as error:
        raise PairError(f"{path} cannot be read ({error})", "damaged sidecar") from error


class FolderPairs(Dataset[Pair]):
    """Pictures with their prompts, listed or beside them."""

    def __init__(self, directory: Path, files: Sequence[ListedFile], skipped: Counter[str]) -> None:
        self.directory = directory
        self.files = list(files)
        self.skipped = skipped
        if not self.files:
            raise ShardError(f"{directory}: no picture with a prompt" + (f" ({_kinds(skipped)})" if skipped else ""))

    @classmethod
    def listed(cls, directory: Path, prompt_name: str | None = None) -> FolderPairs:
        """By the metadata file of a directory."""
        table = next(directory / name for name in METADATA_FILES if (directory / name).is_file())
        found = list(listed_files(table, prompt_name))
        lost = Counter(one.problem.kind for one in found if one.problem is not None and one.problem.kind != "no prompt")
        return cls(directory, [one for one in found if one.problem is None or one.problem.kind == "no prompt"], lost)

    @classmethod
    def captioned(cls, directory: Path) -> FolderPairs:
        """By the text files beside the pictures; a picture without one is counted."""
        files, skipped = [], Counter[str]()
        for picture in pictures_below(directory, closed_folder):
            sidecar = sidecar_of(picture)
            if sidecar is None:
                skipped["no prompt"] += 1
            else:
                files.append(ListedFile(picture, picture.relative_to(directory).as_posix(), None, {"sidecar": str(sidecar)}))
        return cls(directory, files, skipped)

    def __len__(self) -> int:
        return len(self.files)

    def prompt(self, index: int) -> str:
        one = self.files[index]
        if one.problem is not None:
            raise one.problem
        if one.prompt is not None:
            return one.prompt
        found = read_sidecar(read_sidecar_text(Path(one.row["sidecar"])))
        if found is None:
            raise PairError(f"{one.row['sidecar']}: the prompt is empty", "empty prompt")
        return cleaned(found.prompt)

    def image(self, index: int) -> Image.Image:
        return read_image(self.files[index].file)

    def __getitem__(self, index: int) -> Pair:
        return Pair(self.key(index), self.image(index), self.prompt(index), self.metadata(index))

    def key(self, index: int) -> str:
        return self.files[index].name

    def metadata(self, index: int) -> dict[str, Any]:
        one = self.files[index]
        return one.row if one.split is None else one.row | {"split": one.split}

    def picture(self, index: int) -> str:
        return str(self.files[index].file)

    def fingerprint(self) -> str:
        """Changes when pictures or prompts are added, removed, renamed or of another size."""
        digest = hashlib.sha256()
        for one in self.files:
            size = one.file.stat().st_size if one.file.is_file() else -1
            text = one.prompt if one.prompt is not None else str(Path(one.row["sidecar"]).stat().st_size if "sidecar" in one.row else "")
            digest.update(json.dumps([one.name, size, text]).encode())
        return digest.hexdigest()[:16]


def _kinds(counts: Counter[str]) -> str:
    return ", ".join(f"{count} x {kind}" for kind, count in counts.most_common())
