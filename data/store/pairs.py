"""Pairs, and a data set directory of ours as a map-style PyTorch data set of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import Dataset

from data.errors import PairError, ShardError
from data.files import read_json
from data.images import read_image
from data.splits import SPLITS, Split
from data.store.archive import PairLocation, metadata_in, prompt_in, read_member
from data.store.columns import read_column
from data.store.directory import DATASET_FILE, check_finished, command_of, finished_shards, index_shard
from data.text import PROMPT_NAMES


@dataclass(frozen=True)
class Pair:
    """One image with its prompt and metadata."""

    key: str
    image: Image.Image
    prompt: str
    metadata: dict[str, Any]

    @property
    def slots(self) -> dict[str, str]:
        """The parts the prompt was made from; empty where they are not known."""
        return dict(self.metadata.get("slots") or {})


class ArchivePairs(Dataset[Pair]):
    """Pairs inside tar files, in order. Only their places are held in memory."""

    def __init__(self, locations: Sequence[PairLocation], prompt_name: str | None = None) -> None:
        """
        Args:
            prompt_name: which value of the metadata is the prompt; by default the text file, or one of the usual names.
        """
        self.locations = list(locations)
        self.prompt_name = prompt_name
        self.skipped: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self.locations)

    def key(self, index: int) -> str:
        return self.locations[index].key

    def metadata(self, index: int) -> dict[str, Any]:
        """A pair's metadata without its image; empty where it has only a text.

        Raises:
            PairError: it is not JSON.
        """
        return metadata_in(*self._file(index, "metadata"))

    def prompt(self, index: int) -> str:
        """A pair's prompt without its image.

        Raises:
            PairError: it has none, or one that is not text.
        """
        asked = self.prompt_name is not None
        names = (self.prompt_name,) if self.prompt_name is not None else PROMPT_NAMES
        text, label = self._file(index, "text") if not asked else (None, self._label(index))
        metadata = self._file(index, "metadata")[0] if text is None else None
        return prompt_in(text, metadata, names, asked=asked, label=label)

    def image(self, index: int) -> Image.Image:
        """
        Raises:
            ImageError: it cannot be decoded; names archive and key.
        """
        return read_image(read_member(self.locations[index].tar, self.locations[index].image), name=self._label(index))

    def __getitem__(self, index: int) -> Pair:
        """
        Raises:
            ImageError, PairError: image, prompt or metadata cannot be read.
        """
        return Pair(self.locations[index].key, self.image(index), self.prompt(index), self.metadata(index))

    def picture(self, index: int) -> str:
        """Neighbours whose pictures are the same to the last byte are pairs of one."""
        return str(self._pictures[index])

    @cached_property
    def _pictures(self) -> list[int]:
        found: list[int] = []
        for number, place in enumerate(self.locations):
            before = self.locations[number - 1] if number else None
            found.append(found[-1] if before is not None and _same_picture(before, place) else number)
        return found

    def _label(self, index: int) -> str:
        return f"{self.locations[index].tar}:{self.locations[index].key}"

    def _file(self, index: int, part: str) -> tuple[bytes | None, str]:
        place = getattr(self.locations[index], part)
        return (None if place is None else read_member(self.locations[index].tar, place)), self._label(index)

    def fingerprint(self) -> str:
        """Changes when pairs are added, removed, renamed or of another size; not when the files are moved."""
        digest = hashlib.sha256()
        for place in self.locations:
            digest.update(f"{place.tar.name} {place.key} {place.image} {place.metadata} {place.text}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:16]


def _same_picture(one: PairLocation, other: PairLocation) -> bool:
    """To the last byte; a few in the middle tell most others apart."""
    (offset, size), (other_offset, other_size) = one.image, other.image
    if one.tar != other.tar or size != other_size:
        return False
    some = size // 2, min(size - size // 2, 4096)
    alike = read_member(one.tar, (offset + some[0], some[1])) == read_member(other.tar, (other_offset + some[0], some[1]))
    return alike and read_member(one.tar, one.image) == read_member(other.tar, other.image)


class PairDataset(ArchivePairs):
    """All pairs of one split of a data set directory of ours, in order."""

    def __init__(self, directory: Path, split: Split, *, partial: bool = False) -> None:
        """
        Args:
            partial: take what is there of a data set that is not finished.

        Raises:
            ShardError: not a data set directory, one that is not finished, a split without shards, or a damaged shard.
        """
        if not (directory / DATASET_FILE).is_file():
            raise ShardError(
                f"{directory} is not a data set: it has no {DATASET_FILE}. Make one with: python generate_data.py --out {directory}"
                if not directory.exists()
                else f"{directory} is not a data set: it has no {DATASET_FILE}. Name the directory that generate_data.py was given as --out"
            )
        if not partial:
            check_finished(directory)
        super().__init__([location for tar in finished_shards(directory / split) for location in index_shard(tar)])
        if not self.locations:
            command = command_of(directory, read_json(directory / DATASET_FILE))
            raise ShardError(f"{directory / split} holds no pair. It was made with: {command}")


def find_pair(directory: Path, key: str) -> Pair:
    """One pair of a data set directory, of whatever split.

    Raises:
        PairError: there is none of this key in the finished shards.
    """
    for split in SPLITS:
        for tar in finished_shards(directory / split):
            if (read_column(tar, "status") or {}).get(key) == "success":  # which is quicker than looking into every tar
                return ArchivePairs([location for location in index_shard(tar) if location.key == key])[0]
    raise PairError(f"{directory}: no finished shard holds the pair {key!r}; keys are the names of the files in the tars, such as 000000042")
