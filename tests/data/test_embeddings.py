import sys
from pathlib import Path

import numpy as np
import pytest

from data.embeddings import SentenceEncoder, SentenceModelError, sentence_model_at_hand
from data.errors import MissingExtraError


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder()


def test_the_packaged_model_knows_what_says_the_same(encoder: SentenceEncoder) -> None:
    vectors = encoder(["a photo of a car", "a photograph of an automobile", "a watercolor of a fox"])
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    similarity = vectors @ vectors.T
    assert similarity[0, 1] > 0.8 > 0.5 > similarity[0, 2]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("a cat sleeping on a sofa", True),
        ("by zdzisław beksiński, 8k uhd, f/1.8, x-ray, A B C", True),
        ("eine Katze schläft auf dem Sofa", True),
        ("a cat on a beach 😀", True),
        ("", True),
        ("😀🐱", False),
        ("แมวนอนบนโซฟา", False),  # one unknown token
        ("a photo of แมวนอนบนโซฟา", False),
        ("ឆ្មាដេកលើសាឡុង", False),
        ("一只猫躺在沙发上", False),
        ("सोफे पर सोती हुई बिल्ली", False),
        ("소파에서 자는 고양이", False),  # letters, but no words
        ("кошка спит на диване", False),
        ("قطة نائمة على الأريكة", False),
    ],
)
def test_the_packaged_model_knows_which_scripts_it_reads(text: str, read: bool, encoder: SentenceEncoder) -> None:
    assert encoder.reads([text]).tolist() == [read]
    assert encoder.reads(["a cat", text]).tolist() == [True, read]


def test_to_the_packaged_model_all_that_it_cannot_read_is_alike(encoder: SentenceEncoder) -> None:
    """Which is why it is asked."""
    vectors = encoder(["แมวนอนบนโซฟา", "ปราสาทบนภูเขาในหมอก"])
    assert vectors[0] @ vectors[1] > 0.99


class _Slow:
    """A tokenizer written in Python, which does not say where its pieces are."""

    unk_token_id = 0

    def __call__(self, text: str, **options: object) -> dict[str, list[int]]:
        return {"input_ids": [0 if word == "?" else 1 for word in text.split()]}


def test_of_a_tokenizer_that_says_no_places_unknown_tokens_are_counted() -> None:
    encoder = object.__new__(SentenceEncoder)
    encoder.model = type("Model", (), {"tokenizer": _Slow()})()
    assert encoder.reads(["a b c d ?", "a b c ?", "?", ""]).tolist() == [True, False, False, True]


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
