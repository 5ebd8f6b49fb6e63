"""From scores of the next token to whole texts: greedy search, beam search and sampling.

All see the network only through `Hypotheses`, so that tests can put a table of probabilities in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Tokens = tuple[int, ...]
_ABOVE_SMOOTHING = 3
_NOTHING_LEFT = "the banned texts leave no token to go on with; ban less"


class NotFiniteError(ValueError):
    """The network computed something that is no number; says what is likely the cause."""


@dataclass(frozen=True)
class Hypothesis:
    """A text: its tokens after the forced start, end token included if it was reached, and the log-probability (nats) of each.

    The log-probabilities are the network's own, whatever temperature or constraint the tokens were chosen under.
    """

    tokens: Tokens
    log_probs: tuple[float, ...]

    @property
    def score(self) -> float:
        """The mean of the log-probabilities."""
        return sum(self.log_probs) / max(1, len(self.log_probs))


class Hypotheses(Protocol):
    """A batch of unfinished texts, n for each of the images still at work, neighbours belonging together."""

    def step(self, tokens: Tensor) -> Tensor:
        """Append tokens, (N, T), to each and return the log-probabilities of the next, (N, V)."""
        ...

    def select(self, rows: Tensor, images: Tensor | None) -> None:
        """Keep these rows in this order; `images` are the indices of the images that stay, None if all do."""
        ...


@dataclass(frozen=True, kw_only=True)
class TextRules:
    """What a text may be: how it starts (`start`, the begin token first), how long it becomes after that, and what it may not say.

    `min_new_tokens` come before the end token, `max_new_tokens` with it. `banned` holds sequences of tokens; none of them comes to stand in a
    text, its forced start included. `forbidden` gives, for the tokens of a text so far, those that may not come next.
    """

    start: Tokens
    eos: int
    max_new_tokens: int
    min_new_tokens: int = 0
    banned: tuple[Tokens, ...] = ()
    forbidden: Callable[[Tokens], Sequence[int]] | None = None

    def allow(self, log_probs: Tensor, texts: Sequence[Tokens]) -> Tensor:
        """(N, V) log-probabilities after `texts`, (N,), all of the same length, with minus infinity where a token may not come next."""
        too_short = len(texts[0]) < self.min_new_tokens
        if not too_short and not self.banned and self.forbidden is None:
            return log_probs
        allowed = log_probs.clone()
        if too_short:
            allowed[:, self.eos] = float("-inf")
        for row, text in enumerate(texts):
            written = self.start + text
            for *before, last in self.banned:
                if len(before) <= len(written) and written[len(written) - len(before) :] == tuple(before):
                    allowed[row, last] = float("-inf")
            if self.forbidden is not None:
                allowed[row, list(self.forbidden(written[1:]))] = float("-inf")
        return allowed


@torch.inference_mode()
def greedy_search(state: Hypotheses, images: int, rules: TextRules, device: torch.device) -> list[Hypothesis]:
    """The likeliest token at every step, for each of `images` images; finished rows leave the batch."""
    texts: list[list[tuple[int, float]]] = [[] for _ in range(images)]
    alive = list(range(images))
    log_probs = state.step(torch.tensor([rules.start] * images, device=device))
    for length in range(1, rules.max_new_tokens + 1):
        best = rules.allow(log_probs, [tuple(token for token, _ in texts[image]) for image in alive]).max(dim=-1)
        for image, score, token in zip(alive, best.values.tolist(), best.indices.tolist(), strict=True):
            if score == float("-inf"):
                raise ValueError(_NOTHING_LEFT)
            texts[image].append((token, score))
        going_on = (best.indices != rules.eos).nonzero().squeeze(1)
        if len(going_on) == 0 or length == rules.max_new_tokens:
            break
        if len(going_on) < len(alive):
            state.select(going_on, going_on)
            alive = [alive[i] for i in going_on.tolist()]
        log_probs = state.step(best.indices[going_on, None])
    return [_hypothesis(text) for text in texts]


@torch.inference_mode()
def beam_search(
    state: Hypotheses,
    images: int,
    rules: TextRules,
    device: torch.device,
    *,
    num_beams: int,
    num_return: int,
    length_penalty: float,
) -> list[list[Hypothesis]]:
    """For each image the `num_return` best texts, best first, ranked by sum of log-probabilities / length ** `length_penalty`.

    The length counts the end token, and an image is done when no unfinished text, at its present score and length, would rank among its
    `num_beams` finished ones: the definitions of Hugging Face's `generate` (early_stopping=False).
    The state must hold one row per image at first; it grows to `num_beams` rows after the first step.
    """
    searches = [_ImageSearch(num_beams, length_penalty) for _ in range(images)]
    alive = list(range(images))
    log_probs = state.step(torch.tensor([rules.start] * images, device=device))
    vocabulary = log_probs.shape[-1]
    width = 1  # rows per image
    sums = torch.zeros(images, 1, device=device)
    for length in range(1, rules.max_new_tokens + 1):
        allowed = rules.allow(log_probs, [tokens for image in alive for tokens in searches[image].beams])
        totals = (sums[:, :, None] + allowed.view(len(alive), width, vocabulary)).flatten(1)
        top = totals.topk(min(2 * num_beams, totals.shape[1]), dim=1)
        keep_rows, keep_tokens, keep_sums, keep_images = [], [], [], []
        for i, (image, values, places) in enumerate(zip(alive, top.values.tolist(), top.indices.tolist(), strict=True)):
            candidates = [(value, place // vocabulary, place % vocabulary) for value, place in zip(values, places, strict=True)]
            going_on = searches[image].take(candidates, rules.eos, length, last=length == rules.max_new_tokens)
            if going_on:
                keep_images.append(i)
                keep_rows += [i * width + beam for _, beam, _ in going_on]
                keep_tokens += [token for _, _, token in going_on]
                keep_sums.append([value for value, _, _ in going_on])
        if not keep_images:
            break
        all_stay = len(keep_images) == len(alive)
        state.select(torch.tensor(keep_rows, device=device), None if all_stay else torch.tensor(keep_images, device=device))
        alive = [alive[i] for i in keep_images]
        width = num_beams
        sums = torch.tensor(keep_sums, device=device)
        log_probs = state.step(torch.tensor(keep_tokens, device=device)[:, None])
    return [search.best(num_return) for search in searches]


class _ImageSearch:
    """The beams of one image and its finished texts. A beam is its tokens and the sum of log-probabilities after each."""

    def __init__(self, num_beams: int, length_penalty: float) -> None:
        self.num_beams = num_beams
        self.length_penalty = length_penalty
        self.beams: list[Tokens] = [()]
        self.sums: list[tuple[float, ...]] = [()]
        self.finished: list[tuple[float, Tokens, tuple[float, ...]]] = []  # (rank, tokens, sums), best first

    def take(self, candidates: Sequence[tuple[float, int, int]], eos: int, length: int, *, last: bool) -> list[tuple[float, int, int]]:
        """Sort (sum, beam, token) candidates, best first, into finished and unfinished; return the unfinished, none if done."""
        going_on: list[tuple[float, int, int]] = []
        for place, (total, beam, token) in enumerate(candidates):
            if token == eos or last:
                if place < self.num_beams:  # an end that is not among the best would crowd out better texts
                    self._finish(total, beam, token, length)
            elif len(going_on) < self.num_beams:
                going_on.append((total, beam, token))
        if last or not going_on:
            return []
        while len(going_on) < self.num_beams:  # fewer candidates than beams: a vocabulary smaller than the beam
            going_on.append((float("-inf"), *going_on[0][1:]))
        self.beams, self.sums = (
            [(*self.beams[beam], token) for _, beam, token in going_on],
            [(*self.sums[beam], total) for total, beam, _ in going_on],
        )
        best_possible = going_on[0][0] / length**self.length_penalty
        done = best_possible == float("-inf") or (len(self.finished) >= self.num_beams and self.finished[-1][0] >= best_possible)
        return [] if done else going_on

    def _finish(self, total: float, beam: int, token: int, length: int) -> None:
        if total == float("-inf"):
            return
        self.finished.append((total / length**self.length_penalty, (*self.beams[beam], token), (*self.sums[beam], total)))
        self.finished.sort(key=lambda text: -text[0])
        del self.finished[self.num_beams :]

    def best(self, count: int) -> list[Hypothesis]:
        if not self.finished:
            raise ValueError(_NOTHING_LEFT)
        return [
            Hypothesis(tokens, tuple(after - before for before, after in zip((0.0, *sums), sums, strict=False)))
            for _, tokens, sums in self.finished[:count]
        ]


@torch.inference_mode()
def sample(
    state: Hypotheses,
    images: int,
    rules: TextRules,
    device: torch.device,
    *,
    num_samples: int,
    temperature: float,
    top_k: int,
    top_p: float,
    smoothing: float,
    chances: Tensor,
) -> list[list[Hypothesis]]:
    """`num_samples` texts for each image, drawn token by token from the network's distribution, best first.

    `smoothing` is the label smoothing that the network was trained with, which is taken off; `temperature` flattens (above 1) or sharpens the
    distribution, `top_k` keeps the likeliest k tokens (0: all), `top_p` the fewest likeliest tokens that together have that probability (nucleus
    sampling, arXiv 1904.09751); in this order. `chances` (images * num_samples, max_new_tokens), float64 from 0 up to 1, decide what is drawn.
    The state must hold one row per image at first; it grows to `num_samples` rows after the first step, and finished texts leave it.
    """
    texts: list[list[tuple[int, float]]] = [[] for _ in range(images * num_samples)]
    log_probs = state.step(torch.tensor([rules.start] * images, device=device)).repeat_interleave(num_samples, 0)
    rows = list(range(images * num_samples))  # the text that each row of `log_probs` continues
    alive = images  # images in `state`
    position = [row // num_samples for row in rows]  # the row of `state` behind each row of `log_probs`
    for length in range(1, rules.max_new_tokens + 1):
        allowed = rules.allow(log_probs, [tuple(token for token, _ in texts[row]) for row in rows])
        if bool((allowed.amax(-1) == float("-inf")).any()):
            raise ValueError(_NOTHING_LEFT)
        drawn = draw(restrict(without_smoothing(allowed, smoothing) / temperature, top_k, top_p), chances[rows, length - 1])
        own = log_probs.gather(1, drawn).squeeze(1).tolist()
        going_on: dict[int, list[int]] = {}  # image -> places in `rows`
        for place, (row, token, score) in enumerate(zip(rows, drawn.squeeze(1).tolist(), own, strict=True)):
            texts[row].append((token, score))
            if token != rules.eos:
                going_on.setdefault(row // num_samples, []).append(place)
        if not going_on or length == rules.max_new_tokens:
            break
        # every image needs the same number of rows: the one with most unfinished texts decides, others repeat one of theirs
        images_before = sorted({row // num_samples for row in rows})
        width = max(map(len, going_on.values()))
        padded = [places + places[:1] * (width - len(places)) for places in going_on.values()]
        kept_images = [images_before.index(image) for image in going_on] if len(going_on) < alive else None
        alive = len(going_on)
        places = [place for group in padded for place in group]
        state.select(
            torch.tensor([position[place] for place in places], device=device),
            None if kept_images is None else torch.tensor(kept_images, device=device),
        )
        log_probs = state.step(drawn[places])
        real = [i * width + j for i, group in enumerate(going_on.values()) for j in range(len(group))]
        log_probs, position = log_probs[real], real
        rows = [rows[place] for group in going_on.values() for place in group]
    found = [_hypothesis(text) for text in texts]
    return [sorted(found[i : i + num_samples], key=lambda text: -text.score) for i in range(0, len(found), num_samples)]


def without_smoothing(log_probs: Tensor, smoothing: float) -> Tensor:
    """(N, V) log-probabilities of a network that learned from labels of which `smoothing` was spread over all tokens (arXiv 1512.00567, section 7)
    -> those of the labels themselves, not normalised: p - smoothing / V, and minus infinity where p is less than three times what was spread, since
    networks hit it about so well.

    Else each step would draw, this often, a token that never comes there.
    """
    if smoothing == 0:
        return log_probs
    spread, probabilities = smoothing / log_probs.shape[-1], log_probs.exp()
    left = (probabilities - spread) * (probabilities > _ABOVE_SMOOTHING * spread)
    return torch.where(left.amax(-1, keepdim=True) > 0, left.log(), log_probs)  # all that is allowed may be among what was spread


def restrict(log_probs: Tensor, top_k: int, top_p: float) -> Tensor:
    """(N, V) with minus infinity for the tokens that `top_k` and `top_p` leave out."""
    if 0 < top_k < log_probs.shape[-1]:
        log_probs = log_probs.masked_fill(log_probs < log_probs.topk(top_k).values[:, -1:], float("-inf"))
    if top_p < 1:
        ordered, order = log_probs.sort(descending=True, dim=-1)
        probabilities = ordered.softmax(-1)
        outside = probabilities.cumsum(-1) - probabilities >= top_p  # the token that reaches top_p stays
        log_probs = log_probs.masked_fill(torch.zeros_like(outside).scatter(1, order, outside), float("-inf"))
    return log_probs


def draw(log_probs: Tensor, chances: Tensor) -> Tensor:
    """(N, V) log-probabilities, not necessarily normalised, and (N,) chances from 0 up to 1 -> (N, 1), a token of each row: where its cumulative sum
    of probabilities passes the chance. One random number a row is much quicker than `torch.multinomial`, which draws one for each token."""
    sums = log_probs.to(chances.device).double().softmax(-1).cumsum(-1)
    found = torch.searchsorted(sums, (1 - chances[:, None]) * sums[:, -1:])  # above 0: never an impossible token
    return found.to(log_probs.device)


def _hypothesis(text: Sequence[tuple[int, float]]) -> Hypothesis:
    return Hypothesis(tuple(token for token, _ in text), tuple(score for _, score in text))
