"""From scores of the next token to whole texts: greedy search, beam search and sampling.

All see the network only through `Hypotheses`, so that tests can put a table of probabilities in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

Tokens = tuple[int, ...]
_ABOVE_SMOOTHING = 3
_LOOK_EVERY = 8  # steps, where finished texts stay
_LEAVING = 4  # one in so many
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

    `min_new_tokens` come before the end token, `max_new_tokens` with it. `bad_words_ids` holds sequences of tokens; none of them comes to stand in a
    text, its forced start included. `forbidden` gives, for the tokens of a text so far, those that may not come next.
    """

    start: Tokens
    eos: int
    max_new_tokens: int
    min_new_tokens: int = 0
    bad_words_ids: tuple[Tokens, ...] = ()
    forbidden: Callable[[Tokens], Sequence[int]] | None = None

    def allow(self, log_probs: Tensor, texts: Tensor) -> Tensor:
        """(N, V) log-probabilities after `texts`, (N, length) tokens, with minus infinity where a token may not come next."""
        too_short = texts.shape[1] < self.min_new_tokens
        if not too_short and not self.bad_words_ids and self.forbidden is None:
            return log_probs
        allowed = log_probs.clone()
        if too_short:
            allowed[:, self.eos] = float("-inf")
        written = torch.cat([texts.new_tensor(self.start).expand(len(texts), -1), texts], dim=1)
        for before, lasts in self._endings.items():
            if len(before) <= written.shape[1]:
                said = (written[:, written.shape[1] - len(before) :] == texts.new_tensor(before)).all(1)
                allowed[:, lasts] = allowed[:, lasts].masked_fill(said[:, None], float("-inf"))
        if self.forbidden is not None:
            for row, text in enumerate(written[:, 1:].tolist()):
                if self.eos not in text[len(self.start) - 1 :]:  # ended, it only waits for others
                    allowed[row, list(self.forbidden(tuple(text)))] = float("-inf")
        return allowed

    @cached_property
    def _endings(self) -> dict[Tokens, list[int]]:
        """What may not come after what."""
        endings: dict[Tokens, list[int]] = {}
        for *before, last in self.bad_words_ids:
            endings.setdefault(tuple(before), []).append(last)
        return endings


class _Texts:
    """Tokens and the network's log-probabilities of some texts, on the device; after a text's end token anything may stand."""

    def __init__(self, count: int, rules: TextRules, device: torch.device) -> None:
        self.tokens = torch.full((count, rules.max_new_tokens), rules.eos, device=device)
        self.log_probs = torch.zeros(count, rules.max_new_tokens, device=device)
        self.rules = rules

    def write(self, texts: Tensor, length: int, tokens: Tensor, log_probs: Tensor) -> None:
        """The `length`-th token, the first being 1, of the texts at these indices."""
        self.tokens[texts, length - 1] = tokens
        self.log_probs[texts, length - 1] = log_probs

    def hypotheses(self) -> list[Hypothesis]:
        found = []
        for tokens, log_probs in zip(self.tokens.tolist(), self.log_probs.tolist(), strict=True):
            length = tokens.index(self.rules.eos) + 1 if self.rules.eos in tokens else len(tokens)
            found.append(Hypothesis(tuple(tokens[:length]), tuple(log_probs[:length])))
            if float("-inf") in found[-1].log_probs:
                raise ValueError(_NOTHING_LEFT)
        return found


@torch.inference_mode()
def greedy_search(state: Hypotheses, images: int, rules: TextRules, device: torch.device, *, leave: bool = True) -> list[Hypothesis]:
    """The likeliest token at every step, for each of `images` images.

    Args:
        leave: finished texts leave the batch once they are a quarter of it, so that later steps cost less. If they stay, every step has the same
            shape, and the host waits for the device at one step in eight only.
    """
    texts, going = _Texts(images, rules, device), torch.arange(images, device=device)
    log_probs = state.step(torch.tensor([rules.start] * images, device=device))
    ended = torch.zeros(images, dtype=torch.bool, device=device)
    for length in range(1, rules.max_new_tokens + 1):
        allowed = rules.allow(log_probs, texts.tokens[going, : length - 1])
        best = allowed.max(dim=-1)
        texts.write(going, length, best.indices, best.values)
        ended = ended | (best.indices == rules.eos)
        if length == rules.max_new_tokens or _all(ended, length, leave):
            break
        following = best.indices
        if leave and _many(ended):
            on = (~ended).nonzero().squeeze(1)
            state.select(on, on)
            going, ended, following = going[on], ended[on], following[on]
        log_probs = state.step(following[:, None])
    return texts.hypotheses()


def _many(ended: Tensor) -> bool:
    """Whether as many have ended as pay for moving the others together."""
    return bool(_LEAVING * ended.sum() >= len(ended))


def _all(ended: Tensor, length: int, leave: bool) -> bool:
    return (leave or length % _LOOK_EVERY == 0) and bool(ended.all())


@torch.inference_mode()
def beam_search(
    state: Hypotheses,
    images: int,
    rules: TextRules,
    device: torch.device,
    *,
    num_beams: int,
    num_return_sequences: int,
    length_penalty: float,
    leave: bool = True,
) -> list[list[Hypothesis]]:
    """For each image the `num_return_sequences` best texts, best first, ranked by sum of log-probabilities / length ** `length_penalty`.

    The length counts the end token, and an image is done when no unfinished text, at its present score and length, would rank among its
    `num_beams` finished ones: the definitions of Hugging Face's `generate` (early_stopping=False).
    The state must hold one row per image at first; it grows to `num_beams` rows after the first step.

    Args:
        leave: images that are done leave the batch; see `greedy_search`.
    """
    going = torch.arange(images, device=device)
    finished = _Finished.none(images, num_beams, rules.max_new_tokens, device)
    kept = _Finished.none(images, num_beams, rules.max_new_tokens, device)  # of the images that have left
    done = torch.zeros(images, dtype=torch.bool, device=device)
    tokens, sums = torch.zeros(2, images, 1, 0, device=device)  # (B, beams, length): the sums of log-probabilities after each token
    tokens, total = tokens.long(), torch.zeros(images, 1, device=device)
    log_probs = state.step(torch.tensor([rules.start] * images, device=device))
    vocabulary = log_probs.shape[-1]
    for length in range(1, rules.max_new_tokens + 1):
        width, last = tokens.shape[1], length == rules.max_new_tokens
        allowed = rules.allow(log_probs, tokens.flatten(0, 1)).view(-1, width, vocabulary)
        top = (total[:, :, None] + allowed).flatten(1).topk(min(2 * num_beams, width * vocabulary), dim=1)
        beam, token = top.indices // vocabulary, top.indices % vocabulary
        tokens = torch.cat([_at(tokens, beam), token[:, :, None]], dim=2)
        sums = torch.cat([_at(sums, beam), top.values[:, :, None]], dim=2)
        ends = token == rules.eos
        # an end that is not among the best would crowd out better texts
        best = slice(0, num_beams)
        ending = (ends[:, best] | last) & ~done[:, None]
        if not leave or bool(ending.any()):
            finished = finished.with_more(tokens[:, best], sums[:, best], ending, length_penalty)
        order = ends.int().sort(dim=1, stable=True).indices[:, best]  # the likeliest that go on
        if order.shape[1] < num_beams:  # a vocabulary smaller than the beam
            order = torch.cat([order, order[:, :1].expand(-1, num_beams - order.shape[1])], dim=1)
        total = top.values.gather(1, order).masked_fill(ends.gather(1, order), float("-inf"))
        total[:, top.values.shape[1] :] = float("-inf")
        possible = total[:, 0].to(finished.ranks.dtype) / length**length_penalty
        done = done | (possible == float("-inf")) | (finished.ranks[:, -1] >= possible)
        if last or _all(done, length, leave):
            break
        rows = torch.arange(len(tokens), device=device)[:, None] * width + beam.gather(1, order)
        tokens, sums, following = _at(tokens, order), _at(sums, order), token.gather(1, order)
        staying = None
        if leave and _many(done):
            gone, staying = done.nonzero().squeeze(1), (~done).nonzero().squeeze(1)
            kept.put(going[gone], finished.of(gone))
            finished, going, done = finished.of(staying), going[staying], done[staying]
            rows, tokens, sums, total, following = (part[staying] for part in (rows, tokens, sums, total, following))
        state.select(rows.flatten(), staying)
        log_probs = state.step(following.flatten()[:, None])
    kept.put(going, finished)
    return kept.best(num_return_sequences)


def _at(values: Tensor, places: Tensor) -> Tensor:
    """(B, n, T), (B, m) -> (B, m, T), those at the places."""
    return values.gather(1, places[:, :, None].expand(-1, -1, values.shape[2]))


@dataclass
class _Finished:
    """The best finished texts of each image, best first: ranks (B, K), minus infinity where there is none, lengths (B, K), and tokens and sums of
    log-probabilities after each, (B, K, most tokens)."""

    ranks: Tensor
    lengths: Tensor
    tokens: Tensor
    sums: Tensor

    @classmethod
    def none(cls, images: int, count: int, most: int, device: torch.device) -> _Finished:
        exact = torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no float64
        ranks = torch.full((images, count), float("-inf"), dtype=exact, device=device)
        tokens = torch.zeros(images, count, most, dtype=torch.long, device=device)
        return cls(ranks, torch.zeros_like(ranks, dtype=torch.long), tokens, torch.zeros(images, count, most, device=device))

    def with_more(self, tokens: Tensor, sums: Tensor, ends: Tensor, length_penalty: float) -> _Finished:
        """With the texts, (B, n, length), that end here; among equals those that were there before come first."""
        length, count, most = tokens.shape[2], self.ranks.shape[1], self.tokens.shape[2]
        ranks = (sums[:, :, -1].to(self.ranks.dtype) / length**length_penalty).masked_fill(~ends, float("-inf"))
        ranks = torch.cat([self.ranks, ranks], dim=1)
        order = ranks.sort(dim=1, descending=True, stable=True).indices[:, :count]
        lengths = torch.cat([self.lengths, torch.full_like(ends, length, dtype=torch.long)], dim=1)
        tokens, sums = (F.pad(part, (0, most - length)) for part in (tokens, sums))
        tokens, sums = torch.cat([self.tokens, tokens], dim=1), torch.cat([self.sums, sums], dim=1)
        return _Finished(ranks.gather(1, order), lengths.gather(1, order), _at(tokens, order), _at(sums, order))

    def of(self, images: Tensor) -> _Finished:
        return _Finished(self.ranks[images], self.lengths[images], self.tokens[images], self.sums[images])

    def put(self, images: Tensor, texts: _Finished) -> None:
        for ours, theirs in ((self.ranks, texts.ranks), (self.lengths, texts.lengths), (self.tokens, texts.tokens), (self.sums, texts.sums)):
            ours[images] = theirs

    def best(self, count: int) -> list[list[Hypothesis]]:
        found = []
        for texts in zip(self.ranks.tolist(), self.lengths.tolist(), self.tokens.tolist(), self.sums.tolist(), strict=True):
            one = [
                Hypothesis(tuple(tokens[:length]), tuple(after - before for before, after in zip((0.0, *sums), sums[:length], strict=False)))
                for rank, length, tokens, sums in list(zip(*texts, strict=True))[:count]
                if rank > float("-inf")
            ]
            if not one:
                raise ValueError(_NOTHING_LEFT)
            found.append(one)
        return found


@torch.inference_mode()
def sample(
    state: Hypotheses,
    images: int,
    rules: TextRules,
    device: torch.device,
    *,
    num_return_sequences: int,
    temperature: float,
    top_k: int,
    top_p: float,
    smoothing: float,
    chances: Tensor,
    leave: bool = True,
) -> list[list[Hypothesis]]:
    """`num_return_sequences` texts for each image, drawn token by token from the network's distribution, best first.

    `smoothing` is the label smoothing that the network was trained with, which is taken off; `temperature` flattens (above 1) or sharpens the
    distribution, `top_k` keeps the likeliest k tokens (0: all), `top_p` the fewest likeliest tokens that together have that probability (nucleus
    sampling, arXiv 1904.09751); in this order. `chances` (images * num_return_sequences, max_new_tokens), float64 from 0 up to 1, decide what is
    drawn.
    The state must hold one row per image at first; it grows to `num_return_sequences` rows after the first step.

    Args:
        leave: finished texts leave the batch; see `greedy_search`.
    """
    texts, going = _Texts(images * num_return_sequences, rules, device), torch.arange(images * num_return_sequences, device=device)
    log_probs = state.step(torch.tensor([rules.start] * images, device=device)).repeat_interleave(num_return_sequences, 0)
    ended = torch.zeros(len(going), dtype=torch.bool, device=device)
    impossible = torch.zeros((), dtype=torch.bool, device=device)
    continued, own = going, going // num_return_sequences  # the place in `going` that each row of `state` continues, and the row of each place
    for length in range(1, rules.max_new_tokens + 1):
        allowed = rules.allow(log_probs, texts.tokens[going, : length - 1])
        impossible = impossible | ((allowed.amax(-1) == float("-inf")) & ~ended).any()
        chance = chances[going.to(chances.device), length - 1]
        drawn = draw(restrict(without_smoothing(allowed, smoothing) / temperature, top_k, top_p), chance).squeeze(1)
        texts.write(going, length, drawn, log_probs.gather(1, drawn[:, None]).squeeze(1))
        ended = ended | (drawn == rules.eos)
        if length == rules.max_new_tokens or _all(ended, length, leave):
            break
        images_before = torch.unique_consecutive(going // num_return_sequences) if leave else None
        shrinks = images_before is not None and bool(ended.any())
        if shrinks:
            going, own, drawn, ended = going[~ended], own[~ended], drawn[~ended], ended[~ended]
        if shrinks or length == 1:
            continued, places = _evenly(going // num_return_sequences) if leave else (going, going)
            state.select(own[continued], _staying(images_before, going // num_return_sequences) if images_before is not None else None)
            own = places
        log_probs = state.step(drawn[continued, None])[own]
    if bool(impossible):
        raise ValueError(_NOTHING_LEFT)
    found = texts.hypotheses()
    return [sorted(found[i : i + num_return_sequences], key=lambda text: -text.score) for i in range(0, len(found), num_return_sequences)]


def _evenly(images: Tensor) -> tuple[Tensor, Tensor]:
    """The same number of rows for each image, as the state wants them, from the image of each text, in order: the text that each row continues, where
    an image has fewer than another once more its first, and the row of each text."""
    _, image, counts = torch.unique_consecutive(images, return_inverse=True, return_counts=True)
    first, width = counts.cumsum(0) - counts, int(counts.max())
    column = torch.arange(width, device=images.device)
    continued = first[:, None] + torch.where(column < counts[:, None], column, 0)
    return continued.flatten(), image * width + torch.arange(len(images), device=images.device) - first[image]


def _staying(before: Tensor, images: Tensor) -> Tensor | None:
    """The places in `before` of the images that stay; None if all do."""
    after = torch.unique_consecutive(images)
    return torch.searchsorted(before, after) if len(after) < len(before) else None


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
    found = found.clamp(max=log_probs.shape[-1] - 1)  # where every token is impossible
    return found.to(log_probs.device)


def draw_chances(generator: torch.Generator | Sequence[torch.Generator] | None, images: int, samples: int, steps: int) -> Tensor:
    """(images * samples, steps) random numbers from 0 up to 1; a generator for each image draws its own."""
    if generator is None or isinstance(generator, torch.Generator):
        device = "cpu" if generator is None else generator.device
        return torch.rand(images * samples, steps, dtype=torch.float64, device=device, generator=generator)
    if len(generator) != images:
        raise ValueError(f"generator must be one, or one for each of the {images} images, not {len(generator)}")
    return torch.cat([torch.rand(samples, steps, dtype=torch.float64, device=own.device, generator=own).cpu() for own in generator])
