import sys
from pathlib import Path

import numpy as np
import pytest

from data.embeddings import SentenceEncoder, SentenceModelError, sentence_model_at_hand
from data.extras import MissingExtraError


def test_the_packaged_model_knows_what_says_the_same() -> None:
    vectors = SentenceEncoder()(["a photo of a car", "a photograph of an automobile", "a watercolor of a fox"])
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    similarity = vectors @ vectors.T
    assert similarity[0, 1] > 0.8 > 0.5 > similarity[0, 2]


def test_errors_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("someone/not-a-model", str(tmp_path)):
        with pytest.raises(SentenceModelError, match="could not be loaded"):
            SentenceEncoder(name)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install -e '\.\[eval\]'"):
        SentenceEncoder()


def test_the_model_at_hand_is_none_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sentence_model_at_hand() is not None
    monkeypatch.setattr("data.embeddings.find_spec", lambda name: None)
    assert sentence_model_at_hand() is None
