"""A data set directory as a map-style PyTorch data set, and batches of it."""

from __future__ import annotations

import json
import shlex
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from data.images import read_image
from data.shards import DATASET_FILE, PairLocation, ShardError, finished_shards, index_shard, read_json, read_member
from data.splits import Split

IGNORED_LABEL = -100


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


class PairDataset(Dataset[Pair]):
    """All pairs of one split, in order. Only places in the tars are held in memory."""

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
        self.directory = directory
        self.locations: list[PairLocation] = []
        for tar in finished_shards(directory / split):
            self.locations += index_shard(tar)
        if not self.locations:
            arguments = read_json(directory / DATASET_FILE).get("arguments") or ["--out", str(directory)]
            command = shlex.join(["python", "generate_data.py", *arguments])
            raise ShardError(f"{directory / split} holds no finished shard (every split has one from a few hundred pairs on). Go on with: {command}")

    def __len__(self) -> int:
        return len(self.locations)

    def metadata(self, index: int) -> dict[str, Any]:
        """A pair's metadata without its image."""
        location = self.locations[index]
        content: dict[str, Any] = json.loads(read_member(location, location.metadata))
        return content

    def __getitem__(self, index: int) -> Pair:
        """
        Raises:
            ImageError: the image cannot be decoded; names shard and key.
        """
        location = self.locations[index]
        metadata = self.metadata(index)
        image = read_image(read_member(location, location.image), name=f"{location.tar}:{location.key}")
        return Pair(location.key, image, metadata["prompt"], metadata)


@dataclass(frozen=True)
class Batch:
    """pixel_values (B, 3, H, W) float32; input_ids and labels (B, T); labels are shifted once, here, and -100 where ignored."""

    pixel_values: Tensor
    input_ids: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Collate:
    """Pairs to a `Batch`: tokens between begin and end, at most `max_tokens` of them, padded at the right.

    The text a position sees ends before its label: input = begin, t1 .. tn; labels = t1 .. tn, end. A prompt that is cut has no end.
    """

    preprocess: Callable[[Image.Image], Tensor]
    tokenize: Callable[[str], list[int]]
    bos_id: int
    eos_id: int
    pad_id: int
    max_tokens: int

    def __call__(self, pairs: Sequence[Pair]) -> Batch:
        texts = [[self.bos_id, *self.tokenize(pair.prompt), self.eos_id][: self.max_tokens + 1] for pair in pairs]
        longest = max(len(text) for text in texts) - 1
        input_ids = torch.full((len(texts), longest), self.pad_id)
        labels = torch.full((len(texts), longest), IGNORED_LABEL)
        for row, text in enumerate(texts):
            input_ids[row, : len(text) - 1] = torch.tensor(text[:-1])
            labels[row, : len(text) - 1] = torch.tensor(text[1:])
        return Batch(torch.stack([self.preprocess(pair.image) for pair in pairs]), input_ids, labels)


@dataclass(frozen=True)
class SeededCollate:
    """A collate function whose random augmentation depends on `seed` and the pairs of the batch alone, not on the worker that runs it,
    so that a resumed run sees the pictures it would have seen."""

    collate: Collate
    seed: int

    def __call__(self, pairs: Sequence[Pair]) -> Batch:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(zlib.crc32(f"{self.seed}:{','.join(pair.key for pair in pairs)}".encode()))
            return self.collate(pairs)
