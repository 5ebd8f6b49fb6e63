"""From scores of the next token to whole texts: greedy and beam search.

Both see the network only through `Hypotheses`, so that tests can put a table of probabilities in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Hypothesis:
    """A text: its tokens after the begin token, end token included if it was reached; `score` is their mean log-probability (nats)."""

    tokens: tuple[int, ...]
    score: float


class Hypotheses(Protocol):
    """A batch of unfinished texts, n for each of the images still at work, neighbours belonging together."""

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token, (N,), to each and return the log-probabilities of the next, (N, V)."""
        ...

    def select(self, rows: Tensor, images: Tensor | None) -> None:
        """Keep these rows in this order; `images` are the indices of the images that stay, None if all do."""
        ...


def greedy_search(state: Hypotheses, images: int, *, bos: int, eos: int, max_new_tokens: int, device: torch.device) -> list[Hypothesis]:
    """The likeliest token at every step, for each of `images` images; finished rows leave the batch."""
    tokens: list[list[int]] = [[] for _ in range(images)]
    scores = [0.0] * images
    alive = list(range(images))
    current = torch.full((images,), bos, dtype=torch.long, device=device)
    for _ in range(max_new_tokens):
        best = state.step(current).max(dim=-1)
        for image, score, token in zip(alive, best.values.tolist(), best.indices.tolist(), strict=True):
            tokens[image].append(token)
            scores[image] += score
        going_on = (best.indices != eos).nonzero().squeeze(1)
        if len(going_on) == 0:
            break
        if len(going_on) < len(alive):
            state.select(going_on, going_on)
            alive = [alive[i] for i in going_on.tolist()]
        current = best.indices[going_on]
    return [Hypothesis(tuple(text), score / max(1, len(text))) for text, score in zip(tokens, scores, strict=True)]


def beam_search(
    state: Hypotheses,
    images: int,
    *,
    num_beams: int,
    num_return: int,
    bos: int,
    eos: int,
    max_new_tokens: int,
    length_penalty: float,
    device: torch.device,
) -> list[list[Hypothesis]]:
    """For each image the `num_return` best texts, best first, ranked by sum of log-probabilities / length ** `length_penalty`.

    An image is done when no unfinished text, at its present score and length, would rank among its `num_beams` finished ones.
    The state must hold one row per image at first; it grows to `num_beams` rows after the first step.
    """
    searches = [_ImageSearch(num_beams, length_penalty) for _ in range(images)]
    alive = list(range(images))
    log_probs = state.step(torch.full((images,), bos, dtype=torch.long, device=device))
    vocabulary = log_probs.shape[-1]
    width = 1  # rows per image
    sums = torch.zeros(images, 1, device=device)
    for length in range(1, max_new_tokens + 1):
        totals = (sums[:, :, None] + log_probs.view(len(alive), width, vocabulary)).flatten(1)
        top = totals.topk(min(2 * num_beams, totals.shape[1]), dim=1)
        keep_rows, keep_tokens, keep_sums, keep_images = [], [], [], []
        for i, (image, values, places) in enumerate(zip(alive, top.values.tolist(), top.indices.tolist(), strict=True)):
            candidates = [(value, place // vocabulary, place % vocabulary) for value, place in zip(values, places, strict=True)]
            going_on = searches[image].take(candidates, eos, length, last=length == max_new_tokens)
            if going_on:
                keep_images.append(i)
                keep_rows += [i * width + beam for _, beam, _ in going_on]
                keep_tokens += [token for _, _, token in going_on]
                keep_sums.append([value for value, _, _ in going_on])
        if not keep_images or length == max_new_tokens:
            break
        all_stay = len(keep_images) == len(alive)
        state.select(torch.tensor(keep_rows, device=device), None if all_stay else torch.tensor(keep_images, device=device))
        alive = [alive[i] for i in keep_images]
        width = num_beams
        sums = torch.tensor(keep_sums, device=device)
        log_probs = state.step(torch.tensor(keep_tokens, device=device))
    return [search.best(num_return) for search in searches]


class _ImageSearch:
    """The beams of one image and its finished texts."""

    def __init__(self, num_beams: int, length_penalty: float) -> None:
        self.num_beams = num_beams
        self.length_penalty = length_penalty
        self.beams: list[tuple[int, ...]] = [()]
        self.finished: list[tuple[float, float, tuple[int, ...]]] = []  # (rank, sum, tokens), best first

    def take(self, candidates: Sequence[tuple[float, int, int]], eos: int, length: int, *, last: bool) -> list[tuple[float, int, int]]:
        """Sort (sum, beam, token) candidates, best first, into finished and unfinished; return the unfinished, none if done."""
        going_on: list[tuple[float, int, int]] = []
        for place, (total, beam, token) in enumerate(candidates):
            if token == eos:
                if place < self.num_beams:  # an end that is not among the best would crowd out better texts
                    self._finish(total, (*self.beams[beam], token), length)
            elif len(going_on) < self.num_beams:
                going_on.append((total, beam, token))
        unfinished = [(total, (*self.beams[beam], token)) for total, beam, token in going_on]
        if last:
            for total, tokens in unfinished:
                self._finish(total, tokens, length)
            return []
        while len(going_on) < self.num_beams and going_on:  # fewer candidates than beams: a vocabulary smaller than the beam
            going_on.append((float("-inf"), *going_on[0][1:]))
            unfinished.append((float("-inf"), unfinished[0][1]))
        self.beams = [tokens for _, tokens in unfinished]
        done = len(self.finished) >= self.num_beams and self.finished[-1][0] >= self._rank(going_on[0][0], length)
        return [] if done else going_on

    def _rank(self, total: float, length: int) -> float:
        return total / length**self.length_penalty

    def _finish(self, total: float, tokens: tuple[int, ...], length: int) -> None:
        if total == float("-inf"):
            return
        self.finished.append((self._rank(total, length), total, tokens))
        self.finished.sort(key=lambda text: -text[0])
        del self.finished[self.num_beams :]

    def best(self, count: int) -> list[Hypothesis]:
        return [Hypothesis(tokens, total / len(tokens)) for _, total, tokens in self.finished[:count]]
