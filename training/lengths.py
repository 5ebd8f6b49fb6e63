"""How long the prompts of a run are in tokens, and how many of them the network reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LONGEST = 512  # tokens that a network reads unless told otherwise; a batch is as wide as its longest prompt
_ALMOST_ALL = 0.999
_STEP = 8


@dataclass(frozen=True)
class PromptLengths:
    """Tokens of each prompt, the end counted."""

    tokens: NDArray[np.int64]

    @classmethod
    def of(cls, prompts: Iterable[str], tokenize: Callable[[str], list[int]]) -> PromptLengths:
        return cls(np.array([len(tokenize(prompt)) + 1 for prompt in prompts] or [1]))

    @property
    def wanted(self) -> int:
        """Positions for the longest prompt; where it has more than 512 tokens, for 999 of 1,000 prompts, and 512 at most. A multiple of 8."""
        longest = int(self.tokens.max())
        enough = longest if longest <= LONGEST else min(LONGEST, int(np.quantile(self.tokens, _ALMOST_ALL, method="lower")))
        return -(-enough // _STEP) * _STEP

    def cut(self, positions: int) -> float:
        """The share of prompts that are longer than a network with so many positions reads."""
        return float((self.tokens > positions).mean())

    def describe(self, positions: int, remedy: str) -> str:
        """In words, for a network with so many positions; `remedy` is the option that changes them, if one does."""
        median, most = np.quantile(self.tokens, (0.5, 0.99), method="inverted_cdf")
        said = f"prompts in tokens: median {median:.0f}, 99 % at most {most:.0f}, longest {self.tokens.max()}; the network reads {positions}"
        cut = self.cut(positions)
        if not cut:
            return f"{said}, so that none is cut"
        share = f"{cut:.1%}" if cut >= 0.001 else f"{(self.tokens > positions).sum()} of {len(self.tokens)}"
        return f"{said}: {share} of the prompts are cut, and their ends never learnt{remedy and f' ({remedy})'}"
