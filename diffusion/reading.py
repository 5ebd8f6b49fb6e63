"""How much of a prompt a pipeline's text encoders read."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

_MOST = 100_000  # tokens; what tokenizers give as their limit where they know none is larger


class PromptReader:
    """Counts and cuts prompts as the text encoder of a pipeline that reads furthest does.

    `limit` is how many tokens it reads, those that mark beginning and end included: 77 for Stable Diffusion's CLIP, 256 for Stable Diffusion 3's T5,
    512 for Flux'. Where a pipeline has no tokenizer that says, nothing is counted.
    """

    def __init__(self, pipeline: Any) -> None:
        self.limit, self._tokenizer = 0, None
        for name in ("tokenizer", "tokenizer_2", "tokenizer_3"):
            tokenizer = getattr(pipeline, name, None)
            encoder = getattr(pipeline, name.replace("tokenizer", "text_encoder"), None)
            limit = _limit(pipeline, tokenizer, encoder)
            if limit > self.limit:
                self.limit, self._tokenizer = limit, tokenizer

    def count(self, prompts: Sequence[str]) -> list[int | None]:
        """The tokens of each prompt, however many; None where they cannot be counted."""
        if self._tokenizer is None:
            return [None] * len(prompts)
        return [len(ids) for start in range(0, len(prompts), 1000) for ids in self._ids(prompts[start : start + 1000])]

    def cut(self, prompt: str) -> str:
        """The longest beginning, in whole words, that is read whole; a part of a word where the first is longer."""
        places = [match.end() for match in re.finditer(r"\S+", prompt)]
        if not places or not self._fits(prompt[: places[0]]):
            places = list(range(1, len(prompt) + 1))
        low, high = 0, len(places)  # so many of them fit
        while low < high:
            middle = (low + high + 1) // 2
            if self._fits(prompt[: places[middle - 1]]):
                low = middle
            else:
                high = middle - 1
        return prompt[: places[low - 1]].rstrip(" ,") if low else ""

    def _fits(self, text: str) -> bool:
        return len(self._ids([text])[0]) <= self.limit

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        assert self._tokenizer is not None
        return self._tokenizer(list(texts), truncation=False, padding=False, verbose=False).input_ids


def _limit(pipeline: Any, tokenizer: Any, encoder: Any) -> int:
    """Tokens that are read; 0 where it is not known."""
    longest = getattr(tokenizer, "model_max_length", 0) or 0
    if tokenizer is None or encoder is None:
        return 0
    kind = type(encoder).__name__
    if not kind.startswith("CLIP"):  # T5 and others read what the pipeline asks them to
        parameters = inspect.signature(type(pipeline).__call__).parameters
        asked = getattr(parameters.get("max_sequence_length"), "default", None)
        longest = min(longest, asked) if isinstance(asked, int) and longest else asked if isinstance(asked, int) else longest
    positions = getattr(getattr(encoder, "config", None), "max_position_embeddings", 0)
    if isinstance(positions, int) and positions > 0 and kind.startswith("CLIP"):
        longest = min(longest, positions)
    return int(longest) if 0 < longest < _MOST else 0
