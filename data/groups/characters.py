"""Prompts by their spelling, which grouping does not look at: so the audit has a measure of its own, that sees what words and sentences do not."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from data.groups.bags import count_matrices, products

GRAM = 4  # characters


def grams_of(prompt: str) -> list[str]:
    """Every four neighbouring characters of a prompt, whatever its case, spaces and Unicode form, with a space before and behind."""
    text = f" {' '.join(unicodedata.normalize('NFKC', prompt).casefold().split())} "
    return [text[i : i + GRAM] for i in range(max(1, len(text) - GRAM + 1))]


def nearest_by_characters(prompts: Sequence[str], known: Sequence[str]) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """The nearest among `known`, each compared with all, some prompts at a time: (cosine of how often they have which four characters, number)."""
    one, other = count_matrices([grams_of(prompt) for prompt in prompts], [grams_of(prompt) for prompt in known])
    ours, theirs = (np.sqrt(matrix.multiply(matrix).sum(1).A1) for matrix in (one, other))
    for rows, shared in products(one, other):
        similarity = shared / (ours[rows, None] * theirs[None])
        yield similarity.max(1), similarity.argmax(1)
