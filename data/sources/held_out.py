"""Pictures to measure on, with all their prompts, and pairs to compare with."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
class HeldOutPictures:
    """Pictures of a source that can be read, each once, however many prompts it has; the pictures themselves when they are asked for.

    Attributes:
        numbers: of the first pair of each picture.
        references: of each picture all its prompts.
        metadata: of the first pair of each picture, its slots among it.
        groups: which pictures are no independent evidence: those of one `prompt_group`, or where the data has none of the same first prompt. (By
            further prompts they are not joined, as `data.sources.pictures` says.)
        unread: how many pairs on the way could not be read, or have an empty prompt, by kind.
    """

    source: PairSource
    numbers: Sequence[int]
    keys: Sequence[str]
    references: Sequence[Sequence[str]]
    metadata: Sequence[Mapping[str, Any]]
    groups: Sequence[str]
    unread: Counter[str]

    @classmethod
    def of(cls, source: PairSource, count: int) -> HeldOutPictures:
        """`count` pictures from all over the source, or as many as there are; all are read once."""
        order = spread(source)
        chosen: dict[str, int] = {}  # place by picture
        numbers: list[int] = []
        keys: list[str] = []
        references: list[list[str]] = []
        metadata: list[Mapping[str, Any]] = []
        unread: Counter[str] = Counter()
        with tqdm(total=min(count, len(source)), desc="reading", unit="picture", leave=False) as bar:
            for number in order:
                picture = source.picture(number)
                if picture not in chosen and len(numbers) == count:
                    continue
                try:
                    prompt = source.prompt(number)
                    if not prompt.strip():
                        raise PairError("the prompt is empty", "empty prompt")
                    if picture not in chosen:
                        pair = source[number]
                        chosen[picture] = len(numbers)
                        numbers.append(number)
                        keys.append(pair.key)
                        metadata.append(pair.metadata)
                        references.append([])
                        bar.update()
                except (ImageError, PairError) as error:
                    unread[error.kind] += 1
                else:
                    references[chosen[picture]].append(prompt)
        groups = [_group(about, prompts[0]) for about, prompts in zip(metadata, references, strict=True)]
        return cls(source, numbers, keys, references, metadata, groups, unread)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def slots(self) -> list[Mapping[str, str]]:
        """The parts that each prompt was made from; empty where they are not known."""
        return [about.get("slots") or {} for about in self.metadata]

    def fingerprint(self) -> str:
        """Changes with the source, the pictures chosen and their prompts."""
        digest = hashlib.sha256(self.source.fingerprint().encode())
        digest.update(json.dumps([list(self.numbers), [list(prompts) for prompts in self.references]]).encode())
        return digest.hexdigest()[:16]

    def images(self, first: int, count: int) -> list[Image.Image]:
        """Pictures by their place. Of one that is twice as large as anybody needs, a whole number of pixels is averaged to one."""
        return [shrunk(self.source.image(number)) for number in self.numbers[first : first + count]]


def _group(metadata: Mapping[str, Any], prompt: str) -> str:
    group = metadata.get("prompt_group")
    return str(group) if group is not None else f"prompt {' '.join(prompt.casefold().split())}"
