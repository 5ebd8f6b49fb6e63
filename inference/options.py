"""How prompts are written: what `predict` takes beside the pictures, under the names that transformers has for it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """
    Attributes:
        num_return_sequences: prompts of each picture: one, and alternatives, best first.
        num_beams: hypotheses kept at each step of the search; 1 is greedy search.
        length_penalty: of a search: texts are ranked by the sum of their tokens' log-probabilities / length ** length_penalty: above 1 favours longer
            prompts, below 1 shorter ones, at 1 the ranking is that of `Prediction.score`.
        do_sample: draw prompts from the network's distribution instead of searching for the likeliest; num_beams and length_penalty are not used.
        temperature: with do_sample: above 1 more varied, below 1 closer to the likeliest.
        top_k: with do_sample: draw each token from the likeliest k (0: all).
        top_p: with do_sample: draw each token from the fewest likeliest that together have this probability.
        seed: with do_sample: decides what is drawn for a picture, in whatever batch and order it comes; None draws anew each time.
        prefix: how every prompt must start, for example "a watercolor of". It is read as whole words: one that ends inside a word ("a waterc") is not
            completed to it.
        min_new_tokens: how many tokens come after it at least, the end not counted.
        max_new_tokens: how many tokens come after it at most, the end counted; None: as many as the network has positions for.
        bad_words: words and phrases that are not written, in capitals or not, nor words that begin with them ("camera" bans "Cameras").
    """

    num_return_sequences: int = 1
    num_beams: int = 4
    length_penalty: float = 1.0
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    prefix: str = ""
    min_new_tokens: int = 0
    max_new_tokens: int | None = None
    bad_words: Sequence[str] = ()

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: a number out of range, or one that would not be used; names it.
        """
        for name, least in (("num_return_sequences", 1), ("num_beams", 1), ("top_k", 0), ("min_new_tokens", 0)):
            _check_whole(name, getattr(self, name), least)
        if self.max_new_tokens is not None:
            _check_whole("max_new_tokens", self.max_new_tokens, 1)
        if self.seed is not None:
            _check_whole("seed", self.seed, -math.inf)
        if not self.do_sample:
            if unused := [name for name in ("temperature", "top_k", "top_p", "seed") if getattr(self, name) != _default(name)]:
                raise ValueError(f"{', '.join(unused)}: how to draw prompts; add do_sample=True, or leave it out to search for the likeliest")
            if self.num_return_sequences > self.num_beams:
                raise ValueError(f"num_return_sequences must be 1 to num_beams ({self.num_beams}), not {self.num_return_sequences}")
        if isinstance(self.bad_words, str):
            raise ValueError(f"bad_words must be a list of words, such as [{self.bad_words!r}], not one text")
        object.__setattr__(self, "bad_words", tuple(self.bad_words))

    @property
    def lengths(self) -> dict[str, Any]:
        return {"min_new_tokens": self.min_new_tokens, "max_new_tokens": self.max_new_tokens}

    @property
    def searching(self) -> dict[str, Any]:
        """What a search is told."""
        return {"num_beams": self.num_beams, "num_return_sequences": self.num_return_sequences, "length_penalty": self.length_penalty}

    @property
    def drawing(self) -> dict[str, Any]:
        """What sampling is told."""
        return {"num_return_sequences": self.num_return_sequences, "temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p}


def _default(name: str) -> object:
    return next(field.default for field in dataclasses.fields(Decoding) if field.name == name)


def _check_whole(name: str, value: object, least: float) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        bound = f", {least} or more" if math.isfinite(least) else ""
        raise ValueError(f"{name} must be a whole number{bound}, not {value!r}")
