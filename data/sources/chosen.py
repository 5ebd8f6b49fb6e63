"""Pairs by number, whatever they come from, and some of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol

from PIL import Image
from torch.utils.data import Dataset

from data.errors import PairError
from data.store.pairs import Pair


class PairSource(Protocol):
    """Pairs by number. `skipped` counts by kind what was lost before the first pair was asked for."""

    skipped: Counter[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Pair: ...

    def image(self, index: int) -> Image.Image: ...

    def prompt(self, index: int) -> str: ...

    def key(self, index: int) -> str:
        """Its name, the same wherever the pairs lie."""
        ...

    def metadata(self, index: int) -> dict[str, Any]: ...

    def picture(self, index: int) -> str:
        """By which its picture is known: the pairs of one picture share it."""
        ...

    def fingerprint(self) -> str: ...


class ChosenPairs(Dataset[Pair]):
    """Some of a source's pairs, by their numbers."""

    def __init__(self, pairs: PairSource, indices: Sequence[int]) -> None:
        self.pairs = pairs
        self.indices = indices
        self.skipped: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Pair:
        return self.pairs[self.indices[index]]

    def image(self, index: int) -> Image.Image:
        return self.pairs.image(self.indices[index])

    def prompt(self, index: int) -> str:
        return self.pairs.prompt(self.indices[index])

    def key(self, index: int) -> str:
        return self.pairs.key(self.indices[index])

    def metadata(self, index: int) -> dict[str, Any]:
        return self.pairs.metadata(self.indices[index])

    def picture(self, index: int) -> str:
        return self.pairs.picture(self.indices[index])

    def fingerprint(self) -> str:
        chosen = ",".join(map(str, self.indices))
        return hashlib.sha256(f"{self.pairs.fingerprint()} {chosen}".encode()).hexdigest()[:16]


def prompts(pairs: PairSource) -> Iterator[str]:
    """Every prompt that can be read, in order."""
    for index in range(len(pairs)):
        with suppress(PairError):
            yield pairs.prompt(index)


def spread(pairs: PairSource) -> list[int]:
    """The numbers of all pairs in the order of a hash of their keys, so that the first of them come from everywhere: folders and shards are often
    sorted by what is in them. Of pairs with one key, the captions of a picture, the first comes before all second ones: as many pictures as can
    be."""
    seen: Counter[str] = Counter()

    def place(index: int) -> tuple[int, bytes]:
        key = pairs.key(index)
        seen[key] += 1
        return seen[key], hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest()

    return sorted(range(len(pairs)), key=place)
