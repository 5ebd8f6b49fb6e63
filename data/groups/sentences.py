"""Prompts by what they say: those whose sentence embeddings have nearly one direction are near."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from data.embeddings import SentenceEncoder
from data.groups.words import Counted

Encode = Callable[[Sequence[str]], NDArray[np.float32]]  # N texts -> (N, D), of length 1, or 0 where nothing can be said

_COMPARED = 1 << 25  # similarities held in memory at once
_ENCODED = 4096  # texts turned into vectors at once
_ROUNDING = 1e-4  # of embeddings: on another machine the same prompts may differ by so much


def comparing(encoder: SentenceEncoder, counted: Counted) -> Encode:
    """Prompts to vectors that can be compared: what a model cannot read becomes 0, which is near to nothing, and so is left to the words."""

    def encode(prompts: Sequence[str]) -> NDArray[np.float32]:
        texts = [counted.text(prompt) for prompt in prompts]
        return np.where(encoder.reads(texts)[:, None], encoder(texts), np.float32(0))

    return encode


class SentenceIndex:
    """Prompts by what they say: cosine similarity of their embeddings, each with all (products of matrices, on a GPU where there is one)."""

    def __init__(self, similarity: float, encode: Encode) -> None:
        self.similarity = similarity - _ROUNDING
        self.encode = encode
        self._device = _device()
        self._blocks: list[tuple[torch.Tensor, NDArray[np.int64]]] = []  # vectors (N, D), and the numbers of their groups (N,)
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []
        self._groups: dict[str, str] = {}  # of every prompt

    def compare(self, prompts: Sequence[str]) -> Comparison:
        """Some prompts with all that are in the index; they may then join it one after another."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._groups]
        vectors = torch.from_numpy(self.encode(new)).to(self._device) if new else torch.empty(0, 0)
        return Comparison(self, new, vectors, self._near(vectors) if new else [])

    def group(self, prompt: str) -> str | None:
        """Of the very same prompt."""
        return self._groups.get(prompt)

    def _near(self, vectors: torch.Tensor) -> list[set[str]]:
        """For each vector the groups of those at least `similarity` alike."""
        found: list[set[str]] = [set() for _ in vectors]
        for block, groups in self._blocks:
            rows, columns = (vectors @ block.T >= self.similarity).nonzero(as_tuple=True)
            pairs = np.unique(rows.cpu().numpy() * len(self._names) + groups[columns.cpu().numpy()])
            for row, number in zip(*divmod(pairs, len(self._names)), strict=True):
                found[row].add(self._names[number])
        return found

    def join(self, prompts: Sequence[str], vectors: torch.Tensor, groups: Sequence[str]) -> None:
        """Take in prompts that are settled."""
        if not prompts:
            return
        self._groups |= dict(zip(prompts, groups, strict=True))
        for group in groups:
            if group not in self._numbers:
                self._numbers[group] = len(self._names)
                self._names.append(group)
        numbers = np.array([self._numbers[group] for group in groups])
        last = self._blocks[-1] if self._blocks else None
        if last is not None and len(last[0]) * len(vectors) < _COMPARED // 2:  # few large products are quicker than many small ones
            self._blocks[-1] = (torch.cat([last[0], vectors]), np.concatenate([last[1], numbers]))
        else:
            self._blocks.append((vectors, numbers))


class Comparison:
    """Prompts that are about to join a `SentenceIndex`, one after another: each is near to those in the index, and to those before it here."""

    def __init__(self, index: SentenceIndex, prompts: Sequence[str], vectors: torch.Tensor, found: list[set[str]]) -> None:
        self._index, self._prompts, self._vectors, self._found = index, prompts, vectors, found
        self._rows = {prompt: row for row, prompt in enumerate(prompts)}
        self._within = (vectors @ vectors.T >= index.similarity).cpu().numpy()
        self._joined: dict[str, str] = {}

    def near(self, prompt: str) -> set[str]:
        """Groups of the prompts that say nearly the same."""
        own = self._index.group(prompt) or self._joined.get(prompt)
        if own is not None:
            return {own}
        row = self._rows[prompt]
        here = [self._joined.get(self._prompts[other]) for other in self._within[row].nonzero()[0]]
        return self._found[row] | {group for group in here if group is not None}

    def add(self, prompt: str, group: str) -> None:
        if prompt in self._rows:
            self._joined.setdefault(prompt, group)

    def close(self) -> None:
        """Hand those that were added to the index."""
        rows = [self._rows[prompt] for prompt in self._joined]
        self._index.join(list(self._joined), self._vectors[rows], list(self._joined.values()))


def nearest_by_sentences(prompts: Sequence[str], known: Sequence[str], encode: Encode) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """The same by the cosine similarity of their embeddings."""
    device = _device()
    theirs = torch.from_numpy(np.concatenate([encode(known[start : start + _ENCODED]) for start in range(0, len(known), _ENCODED)])).to(device)
    rows = max(1, min(256, _COMPARED // max(1, len(known))))
    for start in range(0, len(prompts), rows):
        best, where = (torch.from_numpy(encode(prompts[start : start + rows])).to(device) @ theirs.T).max(1)
        yield best.cpu().numpy(), where.cpu().numpy()


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
