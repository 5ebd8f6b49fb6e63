"""Unfinished texts as search and sampling see them, on the decoder."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from model.cache import KVCache


class NetworkHypotheses:
    """`decoding.Hypotheses` on the decoder's cache."""

    def __init__(self, cache: KVCache, first: Callable[[Tensor, KVCache], Tensor], later: Callable[[Tensor, KVCache], Tensor]) -> None:
        """
        Args:
            first: reads how the texts start.
            later: reads one token of each.
        """
        self.cache, self._first, self._later = cache, first, later
        self.sums = torch.zeros((), device=cache.keys.device)  # finite while all that was computed is
        self._begun = False

    def step(self, tokens: Tensor) -> Tensor:
        log_probs = (self._later if self._begun else self._first)(tokens, self.cache)
        self._begun = True
        self.sums = self.sums + log_probs.amax(-1).sum()
        return log_probs

    def select(self, rows: Tensor, images: Tensor | None) -> None:
        self.cache.select(rows, images)
