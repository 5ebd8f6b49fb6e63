"""Groups of pairs that must not be divided between splits: prompts of nearly the same words or that say nearly the same, pictures that look nearly
the same.

A group's split is a hash of its name, and its name is that of the first prompt in it. So data that is added later joins groups that are there
or begins new ones, but never moves one. What is near to groups of two splits at once can be in neither, and is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, TypeVar

from data.embeddings import SentenceEncoder
from data.groups.nearness import NONE, PICTURE_DISTANCE, Nearness
from data.groups.pictures import PictureIndex
from data.groups.sentences import Comparison, SentenceIndex, comparing
from data.groups.words import Counted, WordIndex
from data.splits import prompt_group, split_of

_AT_ONCE = 1024  # prompts whose sentences are compared in one go
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Leak:
    """Why a pair can be in no split. `kind` is the reason in few words, for counting."""

    kind: Literal["prompt near two splits", "picture near another split"]


class Groups:
    """Gives pairs their groups, in order."""

    def __init__(self, nearness: Nearness, *, picture_distance: int = PICTURE_DISTANCE) -> None:
        """
        Args:
            nearness: settled.

        Raises:
            MissingExtraError, SentenceModelError: what is needed to compare is not there.
        """
        self._counted = Counted(nearness.ignore_words)
        self._words = WordIndex(nearness.prompt_similarity)
        self._pictures = PictureIndex(picture_distance)
        self._sentences: SentenceIndex | None = None
        if nearness.sentence_model != NONE:
            encode = comparing(SentenceEncoder(nearness.sentence_model), self._counted)
            self._sentences = SentenceIndex(nearness.sentence_similarity, encode)

    def assign(self, pairs: Iterable[tuple[str, int | None]]) -> Iterator[str | Leak]:
        """The group of each (prompt, picture hash), which is known from then on; or why it has none, and then it is not remembered."""
        for some in _batches(pairs, _AT_ONCE):
            comparison = self._sentences.compare([prompt for prompt, _ in some]) if self._sentences is not None else None
            for prompt, picture in some:
                found = self._group(prompt, picture, comparison)
                if isinstance(found, str):
                    self._remember(prompt, found, picture, comparison)
                yield found
            if comparison is not None:
                comparison.close()

    def add(self, pairs: Iterable[tuple[str, str, int | None]]) -> None:
        """Pairs (prompt, group, picture hash) that are settled: of a data set that is there already."""
        for some in _batches(pairs, _AT_ONCE):
            comparison = self._sentences.compare([prompt for prompt, _, _ in some]) if self._sentences is not None else None
            for prompt, group, picture in some:
                self._remember(prompt, group, picture, comparison)
            if comparison is not None:
                comparison.close()

    def _group(self, prompt: str, picture: int | None, comparison: Comparison | None) -> str | Leak:
        key = prompt_group(prompt)
        own = self._words.group(key)
        near = {own} if own is not None else self._words.near(self._counted.words(prompt))
        if comparison is not None:
            near |= comparison.near(prompt)
        alike = set(self._pictures.near(picture)) if picture is not None else set()
        if len({split_of(group) for group in near}) > 1:
            return Leak("prompt near two splits")
        if len({split_of(group) for group in near | alike}) > 1:
            return Leak("picture near another split")
        return own or min(near or alike or {key})

    def _remember(self, prompt: str, group: str, picture: int | None, comparison: Comparison | None) -> None:
        self._words.add(prompt_group(prompt), group, self._counted.words(prompt))
        if comparison is not None:
            comparison.add(prompt, group)
        if picture is not None:
            self._pictures.add(picture, group)


def _batches(items: Iterable[_Item], size: int) -> Iterator[Sequence[_Item]]:
    iterator = iter(items)
    while some := list(islice(iterator, size)):
        yield some
