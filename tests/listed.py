"""Pairs in memory, for the tests of several rooms."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch.utils.data import Dataset

from data.store.pairs import Pair


class ListedPairs(Dataset[Pair]):
    """Pairs in memory."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = pairs
        self.skipped: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Pair:
        return self.pairs[index]

    def image(self, index: int) -> Image.Image:
        return self.pairs[index].image

    def prompt(self, index: int) -> str:
        return self.pairs[index].prompt

    def key(self, index: int) -> str:
        return self.pairs[index].key

    def metadata(self, index: int) -> dict[str, Any]:
        return self.pairs[index].metadata

    def picture(self, index: int) -> str:
        return str(id(self.pairs[index].image))

    def fingerprint(self) -> str:
        lines = (f"{pair.key} {pair.prompt} {pair.image.size}" for pair in self.pairs)
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]
