"""Texts of images by whatever computes what the next token is: the network itself, or another runtime with its weights."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from model.config import ModelConfig
from model.decoding import Hypotheses, Hypothesis, TextRules, Tokens, beam_search, draw_chances, greedy_search, sample

_MOST_PENALTY = 100  # a power of a text's length that floating-point numbers hold
_LEAST_TEMPERATURE = 1e-3  # below, log-probabilities divided by it do not


class Writer(ABC):
    """Searches for texts and draws them."""

    config: ModelConfig

    @abstractmethod
    def encode(self, pixel_values: Tensor) -> Tensor:
        """What is known of images, (B, 3, H, W), that texts are written from."""

    @abstractmethod
    def _start(self, features: Tensor, rules: TextRules, hypotheses: int) -> AbstractContextManager[Hypotheses]:
        """The images and no text.

        Args:
            features: of `encode`.
            hypotheses: how many there will be of each image.
        """

    @property
    def _texts_leave(self) -> bool:
        """Whether finished texts leave their batch."""
        return True

    @torch.inference_mode()
    def search(self, pixel_values: Tensor, **arguments: Any) -> list[list[Hypothesis]]:
        """`search_on` of images, (B, 3, H, W), or (B, F, 3, H, W) for F images of one prompt."""
        return self.search_on(self.encode(pixel_values), **arguments)

    @torch.inference_mode()
    def sample(self, pixel_values: Tensor, **arguments: Any) -> list[list[Hypothesis]]:
        """`sample_on` of images, as `search`."""
        return self.sample_on(self.encode(pixel_values), **arguments)

    @torch.inference_mode()
    def search_on(
        self,
        features: Tensor,
        *,
        num_beams: int = 4,
        num_return_sequences: int = 1,
        length_penalty: float = 1.0,
        prefix: Sequence[int] = (),
        min_new_tokens: int = 0,
        max_new_tokens: int | None = None,
        bad_words_ids: Sequence[Sequence[int]] = (),
        forbidden: Callable[[Tokens], Sequence[int]] | None = None,
    ) -> list[list[Hypothesis]]:
        """For each image its `num_return_sequences` best texts, best first; `num_beams=1` is greedy search.

        Args:
            features: of `encode`.
            length_penalty: texts are ranked by the sum of their log-probabilities / length ** length_penalty: at 1 by their score.
            prefix: tokens that every text starts with; they are not returned.
            min_new_tokens: how many come after it at least, the end token not counted, as in Hugging Face's `generate`.
            max_new_tokens: how many come after it at most, the end token counted (default: as many as the model has positions).
            bad_words_ids: sequences of tokens that no text may hold.
            forbidden: gives, for the tokens of a text so far (the prefix included), those that may not come next.

        Raises:
            ValueError: numbers that do not fit together; names the argument.
            NotFiniteError: the network computed no numbers; names the likely cause.
        """
        rules = self._rules(prefix, min_new_tokens, max_new_tokens, bad_words_ids, forbidden)
        _check_whole(num_beams=num_beams, num_return_sequences=num_return_sequences)
        if not abs(length_penalty) <= _MOST_PENALTY:
            raise ValueError(f"length_penalty must be a number from -{_MOST_PENALTY} to {_MOST_PENALTY}, not {length_penalty}")
        if not 1 <= num_beams <= self.config.vocab_size:
            raise ValueError(f"num_beams must be 1 to the vocabulary size ({self.config.vocab_size}), not {num_beams}")
        if not 1 <= num_return_sequences <= num_beams:
            raise ValueError(f"num_return_sequences must be 1 to num_beams ({num_beams}), not {num_return_sequences}")
        with self._start(features, rules, num_beams) as state:
            about: dict[str, Any] = {"images": len(features), "rules": rules, "device": features.device, "leave": self._texts_leave}
            if num_beams == 1:
                return [[text] for text in greedy_search(state, **about)]
            counts: dict[str, Any] = {"num_beams": num_beams, "num_return_sequences": num_return_sequences}
            return beam_search(state, **about, **counts, length_penalty=length_penalty)

    @torch.inference_mode()
    def sample_on(
        self,
        features: Tensor,
        *,
        num_return_sequences: int = 1,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        prefix: Sequence[int] = (),
        min_new_tokens: int = 0,
        max_new_tokens: int | None = None,
        bad_words_ids: Sequence[Sequence[int]] = (),
        forbidden: Callable[[Tokens], Sequence[int]] | None = None,
    ) -> list[list[Hypothesis]]:
        """For each image `num_return_sequences` texts drawn from the network's distribution, best first. The label smoothing that the network has
        learned (`config.label_smoothing`) is taken off before.

        Args:
            temperature: above 1 flattens the distribution of the next token, below 1 sharpens it.
            top_k: only the likeliest k tokens are drawn from (0: all).
            top_p: only the fewest likeliest tokens that together have this probability (nucleus sampling, arXiv 1904.09751).
            generator: where the randomness comes from; one for each image makes what is drawn independent of the others.
            The others as in `search_on`.

        Raises:
            ValueError: numbers that do not fit together; names the argument.
            NotFiniteError: the network computed no numbers; names the likely cause.
        """
        rules = self._rules(prefix, min_new_tokens, max_new_tokens, bad_words_ids, forbidden)
        _check_whole(num_return_sequences=num_return_sequences, top_k=top_k)
        if num_return_sequences < 1:
            raise ValueError(f"num_return_sequences must be 1 or more, not {num_return_sequences}")
        if not _LEAST_TEMPERATURE <= temperature < math.inf:
            raise ValueError(f"temperature must be {_LEAST_TEMPERATURE} or more, not {temperature}; for the likeliest text use search")
        if top_k < 0:
            raise ValueError(f"top_k must be 0 (all tokens) or more, not {top_k}")
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, not {top_p}")
        images, device = len(features), features.device
        with self._start(features, rules, num_return_sequences) as state:
            return sample(
                state,
                images,
                rules,
                device,
                num_return_sequences=num_return_sequences,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                smoothing=self.config.label_smoothing,
                chances=draw_chances(generator, images, num_return_sequences, rules.max_new_tokens).to(_with_float64(device)),
                leave=self._texts_leave,
            )

    def _rules(
        self,
        prefix: Sequence[int],
        min_new_tokens: int,
        max_new_tokens: int | None,
        bad_words_ids: Sequence[Sequence[int]],
        forbidden: Callable[[Tokens], Sequence[int]] | None,
    ) -> TextRules:
        _check_whole(min_new_tokens=min_new_tokens, max_new_tokens=max_new_tokens)
        room = self.config.max_text_tokens - len(prefix)  # the last token of a text needs no position
        limit = room if max_new_tokens is None else max_new_tokens
        if room < 1:
            raise ValueError(
                f"the prefix has {len(prefix)} tokens, but this model knows positions for {self.config.max_text_tokens}, one of them new"
            )
        if not 1 <= limit <= room:
            raise ValueError(f"max_new_tokens must be 1 to {room} (the positions of this model after the prefix), not {limit}")
        if not 0 <= min_new_tokens <= limit:
            raise ValueError(f"min_new_tokens must be 0 to max_new_tokens ({limit}), not {min_new_tokens}")
        for name, tokens in (("prefix", prefix), *(("bad_words_ids", sequence) for sequence in bad_words_ids)):
            if any(not 0 <= token < self.config.vocab_size for token in tokens) or (name == "bad_words_ids" and not tokens):
                raise ValueError(f"{name} must hold token ids from 0 to {self.config.vocab_size - 1}, not {list(tokens)}")
        return TextRules(
            start=(self.config.bos_token_id, *prefix),
            eos=self.config.eos_token_id,
            min_new_tokens=min_new_tokens,
            max_new_tokens=limit,
            bad_words_ids=tuple(map(tuple, bad_words_ids)),
            forbidden=forbidden,
        )


def _check_whole(**numbers: int | None) -> None:
    """
    Raises:
        ValueError: one is no whole number; names it.
    """
    for name, number in numbers.items():
        if number is not None and (not isinstance(number, int) or isinstance(number, bool)):
            raise ValueError(f"{name} must be a whole number, not {number!r}")


def _with_float64(device: torch.device) -> torch.device:
    """Apple's GPUs have none."""
    return torch.device("cpu") if device.type == "mps" else device
