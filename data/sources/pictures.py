"""Pictures that several pairs share, each with a caption of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from data.sources.chosen import PairSource


def picture_numbers(pairs: PairSource) -> list[int]:
    """For each pair the number of the first one that shows the same picture."""
    first: dict[str, int] = {}
    return [first.setdefault(pairs.picture(number), number) for number in range(len(pairs))]


def joined_groups(groups: Mapping[int, str], pictures: Sequence[int]) -> dict[int, str]:
    """The groups of prompts, by the numbers of their pairs, where those that share a picture become one: else a picture could be learnt under one
    of its captions and tested under another."""
    names: dict[str, str] = {}  # of a group: another one that it has become, or itself

    def name(group: str) -> str:
        while names.setdefault(group, group) != group:
            group = names[group]
        return group

    of_picture: dict[int, str] = {}
    for number, group in groups.items():
        one, other = name(of_picture.setdefault(pictures[number], group)), name(group)
        low, high = sorted((one, other))
        names[high] = low  # whatever comes first
    return {number: name(group) for number, group in groups.items()}
