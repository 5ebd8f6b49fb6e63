"""Pictures that several pairs share, each with a caption of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from data.sources.chosen import PairSource


def picture_numbers(pairs: PairSource) -> list[int]:
    """For each pair the number of the first one that shows the same picture."""
    first: dict[str, int] = {}
    return [first.setdefault(pairs.picture(number), number) for number in range(len(pairs))]


def groups_of_pictures(groups: Mapping[int, str], pictures: Sequence[int]) -> dict[int, str]:
    """The groups of prompts, by the numbers of their pairs, where the pairs of one picture have that of the first: else it could be learnt under one
    of its captions and tested under another. Pictures are not joined by a caption that they share: ordinary ones would join them all."""
    first: dict[int, str] = {}
    return {number: first.setdefault(pictures[number], group) for number, group in groups.items()}


def torn(splits: Mapping[int, str], pictures: Sequence[int]) -> int:
    """How many pictures have pairs in several splits, by the numbers of the pairs."""
    found: dict[int, set[str]] = {}
    for number, split in splits.items():
        found.setdefault(pictures[number], set()).add(split)
    return sum(len(of_one) > 1 for of_one in found.values())
