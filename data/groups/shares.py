"""How pairs are spread over their groups. Nearness goes from one prompt to the next, so that many small steps, or a tail that all prompts have, can
make one group of nearly everything: then one split gets it, and the others next to nothing."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from data.groups.words import Counted

_LARGEST = 5  # groups that are named
_MOST = 0.5  # of the data; with more in one group something is wrong
_TOO_FEW = 10  # pairs, of which most may well be near


@dataclass(frozen=True, kw_only=True)
class Shares:
    """How many pairs there are, in how many groups, and in the largest ones. `common` are the words that most prompts have."""

    pairs: int
    groups: int
    largest: tuple[int, ...]
    common: tuple[str, ...]

    @property
    def text(self) -> str:
        """A line to print."""
        if not self.pairs:
            return "no groups"
        largest = ", ".join(f"{100 * count / self.pairs:.1f} %" for count in self.largest)
        return f"{self.groups:,} groups; the largest hold {largest} of {self.pairs:,} pairs"

    @property
    def warning(self) -> str | None:
        """Where one group holds most of the data: that, and what to do."""
        if self.pairs < _TOO_FEW or self.largest[0] <= _MOST * self.pairs:
            return None
        found = f"one group holds {100 * self.largest[0] / self.pairs:.0f} % of all pairs, and a group is in one split: the others get what is left."
        by_others = "--sentence-similarity, where sentences are compared, or lower --picture-distance, where pictures are"
        if not self.common:
            return f"{found} Raise --prompt-similarity, or {by_others}"
        return (
            f"{found} Most prompts have {len(self.common)} words in common. Compare them without these, in another --out: "
            f"--ignore-words {shlex.join(self.common)}\nor raise --prompt-similarity, or {by_others}"
        )


def shares(pairs: Iterable[tuple[str, str]], ignored: Iterable[str] = ()) -> Shares:
    """
    Args:
        pairs: (prompt, group).
        ignored: words that did not count when prompts were compared.
    """
    counted = Counted(ignored)
    groups, words = Counter[str](), Counter[str]()
    for prompt, group in pairs:
        groups[group] += 1
        words.update(counted.words(prompt))
    total = groups.total()
    return Shares(
        pairs=total,
        groups=len(groups),
        largest=tuple(count for _, count in groups.most_common(_LARGEST)),
        common=tuple(word for word, count in words.most_common() if count > _MOST * total),
    )
