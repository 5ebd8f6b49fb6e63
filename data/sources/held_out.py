"""Pairs to measure on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image
from tqdm import tqdm

from data.errors import ImageError, PairError
from data.sources.chosen import PairSource

_ENOUGH = 1024  # pixels of a picture's shorter side: more than any captioner looks at


@dataclass(frozen=True)
class HeldOutPairs:
    """The first pairs of a source that can be read: keys, prompts and slots in memory, pictures when they are asked for.

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
    def first(cls, source: PairSource, count: int) -> HeldOutPairs:
        """`count` of them, or as many as there are; all are read once."""
        numbers: list[int] = []
        keys: list[str] = []
        prompts: list[str] = []
        slots: list[Mapping[str, str]] = []
        unread = 0
        with tqdm(total=min(count, len(source)), desc="reading", unit="pair", leave=False) as bar:
            for number in range(len(source)):
                if len(numbers) == count:
                    break
                try:
                    pair = source[number]
                except (ImageError, PairError):
                    unread += 1
                    continue
                if not pair.prompt.strip():  # nothing to recover
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
        return [_reduced(self.source.image(number)) for number in self.numbers[first : first + count]]


def _reduced(image: Image.Image) -> Image.Image:
    factor = min(image.size) // _ENOUGH
    return image.reduce(factor) if factor > 1 else image
