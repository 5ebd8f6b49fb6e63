"""Pairs, and a data set directory of ours as a map-style PyTorch data set of them."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import Dataset

from data.images import read_image
from data.shards import DATASET_FILE, PairLocation, ShardError, finished_shards, index_shard, read_column, read_json, read_member
from data.splits import SPLITS, Split

PROMPT_NAMES = ("prompt", "text", "caption")


class PairError(ValueError):
    """A pair that cannot be used; names it and says why. `kind` is the reason in two words, for counting."""

    def __init__(self, message: str, kind: str = "unusable pair") -> None:  # a default, since workers hand errors on by their message alone
        super().__init__(message)
        self.kind = kind


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

    def __init__(self, locations: Sequence[PairLocation], prompt_names: Sequence[str] = PROMPT_NAMES) -> None:
        self.locations = list(locations)
        self.prompt_names = prompt_names
        self.skipped: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self.locations)

    def metadata(self, index: int) -> dict[str, Any]:
        """A pair's metadata without its image; empty where it has only a text.

        Raises:
            PairError: it is not JSON.
        """
        location = self.locations[index]
        if location.metadata is None:
            return {}
        try:
            content = json.loads(read_member(location.tar, location.metadata))
        except ValueError as error:
            raise PairError(f"{location.tar}:{location.key}.json is not JSON ({error})", "damaged metadata") from error
        return content if isinstance(content, dict) else {}

    def prompt(self, index: int) -> str:
        """A pair's prompt without its image.

        Raises:
            PairError: it has none, or one that is not text.
        """
        location = self.locations[index]
        if location.text is not None:
            try:
                return read_member(location.tar, location.text).decode("utf-8")
            except UnicodeDecodeError as error:
                raise PairError(f"{location.tar}:{location.key}: the prompt is not UTF-8 ({error})", "damaged prompt") from error
        return prompt_of(self.metadata(index), self.prompt_names, f"{location.tar}:{location.key}")

    def image(self, index: int) -> Image.Image:
        """
        Raises:
            ImageError: it cannot be decoded; names archive and key.
        """
        location = self.locations[index]
        return read_image(read_member(location.tar, location.image), name=f"{location.tar}:{location.key}")

    def __getitem__(self, index: int) -> Pair:
        """
        Raises:
            ImageError, PairError: image, prompt or metadata cannot be read.
        """
        return Pair(self.locations[index].key, self.image(index), self.prompt(index), self.metadata(index))

    def fingerprint(self) -> str:
        """Changes when pairs are added, removed, renamed or of another size; not when the files are moved."""
        digest = hashlib.sha256()
        for place in self.locations:
            digest.update(f"{place.tar.name} {place.key} {place.image} {place.metadata} {place.text}\n".encode())
        return digest.hexdigest()[:16]


class PairDataset(ArchivePairs):
    """All pairs of one split of a data set directory made by generate_data.py, in order."""

    def __init__(self, directory: Path, split: Split) -> None:
        """
        Raises:
            ShardError: not a data set directory, a split without shards, or a damaged shard.
        """
        if not (directory / DATASET_FILE).is_file():
            raise ShardError(
                f"{directory} is not a data set: it has no {DATASET_FILE}. Make one with: python generate_data.py --out {directory}"
                if not directory.exists()
                else f"{directory} is not a data set: it has no {DATASET_FILE}. Name the directory that generate_data.py was given as --out"
            )
        super().__init__([location for tar in finished_shards(directory / split) for location in index_shard(tar)])
        if not self.locations:
            about = read_json(directory / DATASET_FILE)
            arguments = about.get("arguments") or ["--out", str(directory)]
            command = f"{about.get('command', 'python generate_data.py')} {shlex.join(arguments)}"
            raise ShardError(f"{directory / split} holds no finished shard (every split has one from a few hundred pairs on). Go on with: {command}")


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


def prompt_of(metadata: dict[str, Any], names: Sequence[str], label: str) -> str:
    """The first of `names` that the metadata has as text.

    Raises:
        PairError: none.
    """
    prompt = next((metadata[name] for name in names if isinstance(metadata.get(name), str)), None)
    if prompt is None:
        raise PairError(f"{label}: no text under {' or '.join(names)}", "no prompt")
    return prompt
