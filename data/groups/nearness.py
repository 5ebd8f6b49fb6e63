"""From where on pairs are one group: the choice that a command line makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from data.embeddings import sentence_model_at_hand

AUTO, NONE = "auto", "none"
PICTURE_DISTANCE = 12  # of 256 bits: the same picture compressed or resized differs by fewer, another by more


@dataclass(frozen=True, kw_only=True)
class Nearness:
    """From where on two prompts are one group, which stays in one split."""

    prompt_similarity: float = 0.8
    """From which share of common words on (shared by both / in either) two prompts are one group, which stays in one split."""
    sentence_model: str = AUTO
    """Compares what prompts say: a directory of sentence-transformers, a Hub id, "none", or "auto": all-MiniLM-L6-v2 where the extra 'eval' has
    installed it."""
    sentence_similarity: float = 0.9
    """From which cosine similarity of their sentence embeddings on two prompts are one group; 0.7 to 0.9 are usual."""
    ignore_words: tuple[str, ...] = ()
    """Words and phrases that do not count when prompts are compared, such as masterpiece "best quality" of a tail that most of them share. They stay
    in the prompts."""

    def settled(self, before: Mapping[str, Any] | None) -> Nearness:
        """With "auto" replaced: by the model that a data set was begun with, or else the one that is installed.

        Args:
            before: the settings of a data set that was begun.
        """
        for value, name in ((self.prompt_similarity, "--prompt-similarity"), (self.sentence_similarity, "--sentence-similarity")):
            if not 0 < value <= 1:
                raise ValueError(f"{name} is a number above 0 and up to 1, not {value}")
        if self.sentence_model != AUTO:
            return self
        return replace(self, sentence_model=(before.get("sentence_model") if before is not None else sentence_model_at_hand()) or NONE)

    def settings(self) -> dict[str, Any]:
        """What dataset.json says of it."""
        said = asdict(self) | {"ignore_words": list(self.ignore_words) or None}  # none, as in data sets from before there was this choice
        return said | ({"sentence_model": None, "sentence_similarity": None} if self.sentence_model == NONE else {})
