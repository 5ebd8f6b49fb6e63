"""Prompts by their words: those that share most of them are near.

The index finds exactly what comparing each with all would find (tests/data/groups/test_words.py), by a prefix filter with positions, as AllPairs
(Bayardo, Ma, Srikant, WWW 2007, section 4) and PPJoin (Xiao et al., WWW 2008, section 3) do: with the rarest word first, two sets that share enough
have their first common word near the front of both. So a tail of twenty words that all prompts have costs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from data.groups.bags import count_matrices, products
from data.splits import words_of

_FEW = 32  # entries of a posting that are kept in one list; above, by their groups
_AT_ONCE = 1 << 14  # rows compared at once
_PAID = 100  # a new order takes as long as looking at so many candidates for each prompt
_PLACE = 20  # bits
_RUN = re.compile(r"\w+")
_COMMAS = re.compile(r"\s*,[\s,]*")

Entries = list[int] | dict[str, int | list[int]]  # numbers of prompts; where there are many, by their groups, most of which have one


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Shared / all; 1 where both are empty."""
    return len(one & other) / len(one | other) if one or other else 1.0


class Counted:
    """What of a prompt is compared: all of it but the words that are ignored; all where nothing else is left."""

    def __init__(self, ignored: Iterable[str] = ()) -> None:
        """
        Args:
            ignored: words and phrases.
        """
        self.ignored = frozenset(chain.from_iterable(map(words_of, ignored)))

    def words(self, prompt: str) -> frozenset[str]:
        words = words_of(prompt)
        return words - self.ignored or words

    def text(self, prompt: str) -> str:
        """For those who read sentences."""
        if not self.ignored:
            return prompt
        kept = _RUN.sub(lambda run: "" if words_of(run[0]) <= self.ignored else run[0], prompt)
        return _COMMAS.sub(", ", kept).strip(" ,") if words_of(kept) else prompt


class WordIndex:
    """Prompts by their words, for finding the groups of those that share most of them.

    Each prompt is in the postings of those of its words that can be the first it has in common with one near to it, by its number of words and the
    place of the word; whole postings that cannot suffice are passed over. The order of the words is that of rarity among the prompts so far. Any
    order finds the same, but a bad one slowly: it is made anew, and the postings with it, whenever that has paid for itself.
    """

    def __init__(self, similarity: float) -> None:
        self.similarity = similarity
        self._known: dict[str, str] = {}  # group of every prompt, by its key
        self._numbers: dict[str, int] = {}  # of words
        self._rank: list[int] = []  # of words; the lowest comes first
        self._rows: list[bytes] = []  # the numbers of each prompt's words, as int32
        self._groups: list[str] = []
        self._postings: dict[int, dict[int, Entries]] = {}  # by word; number of words and place; prompts
        self._mark = np.zeros(1024, dtype=np.int32)  # 1 for the words of the prompt that is looked for
        self._looked = 0  # how many postings and candidates so far
        self._reorder_at = 0
        self._shared = lru_cache(4096)(self._shared_with)

    def near(self, words: frozenset[str]) -> set[str]:
        """Groups of the prompts at least `similarity` alike; none where there are no words."""
        found = set[str]()
        if not words:
            return found
        if self._looked > self._reorder_at:
            self._reorder()
        ordered, (needed, least) = self._ordered(words), self._shared(len(words))
        self._mark[ordered] = 1
        some, large = self._candidates(ordered, needed)
        self._looked += len(some)
        for start in range(0, len(some), _AT_ONCE):
            found |= self._alike(some[start : start + _AT_ONCE], least)
        for group, numbers in large:  # one of a group is enough, so that one group of everything costs no more than many small ones
            for end in range(len(numbers) - _FEW, 0, -_AT_ONCE):
                if group in found:
                    break
                part = numbers[max(0, end - _AT_ONCE) : end]
                self._looked += len(part)
                found |= self._alike(part, least)
        self._mark[ordered] = 0
        return found

    def add(self, key: str, group: str, words: frozenset[str]) -> None:
        """Take a prompt in; of those with one key only the first."""
        if key in self._known:
            return
        self._known[key] = group
        if words:
            ordered = self._ordered(words)
            self._rows.append(np.array(ordered, dtype=np.int32).tobytes())
            self._groups.append(group)
            self._post(len(self._rows) - 1, ordered)

    def group(self, key: str) -> str | None:
        """Of the very same prompt."""
        return self._known.get(key)

    def _ordered(self, words: Iterable[str]) -> list[int]:
        """The numbers of words, the rarest first; a word that is new is the rarest."""
        numbers = []
        for word in words:
            number = self._numbers.setdefault(word, len(self._rank))
            if number == len(self._rank):
                self._rank.append(-number)
            numbers.append(number)
        if len(self._rank) > len(self._mark):
            self._mark = np.zeros(2 * len(self._rank), dtype=np.int32)
        numbers.sort(key=self._rank.__getitem__)
        return numbers

    def _shared_with(self, size: int) -> tuple[dict[int, int], NDArray[np.int64]]:
        """How many words a prompt of `size` words must share with one of each other size, those sizes alone with which it can; and as an array."""
        needed, similarity = {}, self.similarity
        for other in range(max(1, int(similarity * size) - 1), int(size / similarity) + 2):
            least = max(1, int(similarity / (1 + similarity) * (size + other)) - 1)
            while least / (size + other - least) < similarity:  # the very division of `jaccard`, for the very same result
                least += 1
            if least <= min(size, other):
                needed[other] = least
        table = np.zeros(max(needed) + 1, dtype=np.int64)
        table[list(needed)] = list(needed.values())
        return needed, table

    def _candidates(self, ordered: list[int], needed: dict[int, int]) -> tuple[list[int], list[tuple[str, list[int]]]]:
        """The prompts that may share enough; of a posting and a group the last few, and for the others (group, all)."""
        some, large = list[int](), list[tuple[str, list[int]]]()
        size = len(ordered)
        for place, word in enumerate(ordered[: size - min(needed.values()) + 1]):
            postings = self._postings.get(word, {})
            self._looked += len(postings)
            for code, entries in postings.items():
                other, there = code >> _PLACE, code & ((1 << _PLACE) - 1)
                least = needed.get(other)
                if least is None or place + least > size or there + least > other:  # what follows is too short, if this is the first they share
                    continue
                if isinstance(entries, list):
                    some += entries
                    continue
                self._looked += len(entries)
                for group, numbers in entries.items():
                    if isinstance(numbers, int):
                        some.append(numbers)
                        continue
                    some += numbers[-_FEW:]
                    if len(numbers) > _FEW:
                        large.append((group, numbers))
        return some, large

    def _alike(self, numbers: Sequence[int], least: NDArray[np.int64]) -> set[str]:
        """Groups of those that share enough words with the marked ones.

        Args:
            least: how many are enough, by a prompt's number of words.
        """
        rows = [self._rows[number] for number in numbers]
        sizes = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows)) // 4
        starts = np.concatenate([[0], sizes.cumsum()[:-1]])
        shared = np.add.reduceat(self._mark[np.frombuffer(b"".join(rows), dtype=np.int32)], starts)
        return {self._groups[numbers[i]] for i in (shared >= least[sizes]).nonzero()[0].tolist()}

    def _post(self, number: int, ordered: list[int]) -> None:
        size = len(ordered)
        for place, word in enumerate(ordered[: size - min(self._shared(size)[0].values()) + 1]):
            entries = self._postings.setdefault(word, {}).setdefault(size << _PLACE | place, [])
            if isinstance(entries, list):
                entries.append(number)
                if len(entries) > _FEW:
                    by_group: dict[str, int | list[int]] = {}
                    for one in entries:
                        self._post_by_group(by_group, one)
                    self._postings[word][size << _PLACE | place] = by_group
            else:
                self._post_by_group(entries, number)

    def _post_by_group(self, entries: dict[str, int | list[int]], number: int) -> None:
        there = entries.setdefault(self._groups[number], number)
        if isinstance(there, list):
            there.append(number)
        elif there != number:
            entries[self._groups[number]] = [there, number]

    def _reorder(self) -> None:
        """Give the words the order of rarity that they have now."""
        counts = np.zeros(len(self._rank), dtype=np.int64)
        for start in range(0, len(self._rows), _AT_ONCE):
            counts += np.bincount(np.frombuffer(b"".join(self._rows[start : start + _AT_ONCE]), dtype=np.int32), minlength=len(counts))
        ranks = np.empty(len(counts), dtype=np.int64)
        ranks[counts.argsort(kind="stable")] = np.arange(len(counts))
        self._rank = ranks.tolist()
        self._postings = {}
        for number, row in enumerate(self._rows):
            self._post(number, sorted(np.frombuffer(row, dtype=np.int32).tolist(), key=self._rank.__getitem__))
        self._reorder_at = 2 * self._looked + _PAID * len(self._rows)


def nearest_by_words(
    prompts: Sequence[str], known: Sequence[str], counted: Counted | None = None
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """The nearest among `known`, each compared with all, some prompts at a time: (Jaccard similarity of their words, number of the known one)."""
    words = (counted or Counted()).words
    one, other = count_matrices([words(prompt) for prompt in prompts], [words(prompt) for prompt in known])
    our_sizes, their_sizes = one.sum(1).A1, other.sum(1).A1
    for rows, shared in products(one, other):
        union = our_sizes[rows, None] + their_sizes[None] - shared
        similarity = np.where(union > 0, shared / np.maximum(union, 1), 1)
        yield similarity.max(1), similarity.argmax(1)
