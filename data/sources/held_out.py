"""Pairs to measure on, and to compare with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image
from tqdm import tqdm

from data.errors import ImageError, PairError
from data.images import shrunk
from data.sources.chosen import PairSource, spread
from data.store.pairs import Pair


def spread_pairs(source: PairSource) -> Iterator[tuple[int, Pair | None]]:
    """The numbers and pairs of a source, so that the first of them come from all over it (`spread`); None for one that cannot be read or has no
    prompt. Whoever takes some pairs of a source takes the first of these."""
    for number in spread(source):
        try:
            pair = source[number]
        except (ImageError, PairError):
            yield number, None
        else:
            yield number, pair if pair.prompt.strip() else None


@dataclass(frozen=True)
class HeldOutPairs:
    """Pairs of a source that can be read: keys, prompts and slots in memory, pictures when they are asked for.

    Attributes:
        unread: how many pairs on the way could not be read, or have an empty prompt.
    """

    source: PairSource
    numbers: Sequence[int]
    keys: Sequence[str]
    prompts: Sequence[str]
    slots: Sequence[Mapping[str, str]]
    unread: int

    @classmethod
    def of(cls, source: PairSource, count: int) -> HeldOutPairs:
        """`count` pairs from all over the source, or as many as there are; all are read once."""
        numbers: list[int] = []
        keys: list[str] = []
        prompts: list[str] = []
        slots: list[Mapping[str, str]] = []
        unread = 0
        with tqdm(total=min(count, len(source)), desc="reading", unit="pair", leave=False) as bar:
            for number, pair in spread_pairs(source):
                if len(numbers) == count:
                    break
                if pair is None:
                    unread += 1
                    continue
                numbers.append(number)
                keys.append(pair.key)
                prompts.append(pair.prompt)
                slots.append(pair.slots)
                bar.update()
        return cls(source, numbers, keys, prompts, slots, unread)

    def __len__(self) -> int:
        return len(self.numbers)

    def images(self, first: int, count: int) -> list[Image.Image]:
        """Pictures by their place. Of one that is twice as large as anybody needs, a whole number of pixels is averaged to one."""
        return [shrunk(self.source.image(number)) for number in self.numbers[first : first + count]]
