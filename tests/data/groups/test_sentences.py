from collections.abc import Sequence

import numpy as np
import pytest

from data.embeddings import SentenceEncoder
from data.groups import sentences
from data.groups.sentences import SentenceIndex, comparing, nearest_by_sentences
from data.groups.words import Counted


def directions(texts: Sequence[str]) -> np.ndarray:
    """A vector of length 1 for each text, in few dimensions so that many are near."""
    vectors = np.stack([np.random.default_rng(int(text)).normal(size=4) for text in texts]).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_sentences_are_compared_with_all_before_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentences, "_COMPARED", 4000)  # several blocks
    index, texts = SentenceIndex(0.8, directions), [str(i) for i in range(500)]
    vectors = directions(texts)
    for start in range(0, len(texts), 64):
        some = texts[start : start + 64]
        comparison = index.compare([*some, some[0]])
        for place, text in enumerate(some, start):
            expected = {f"group of {other}" for other in range(place) if other % 3 and vectors[place] @ vectors[other] >= index.similarity}
            assert comparison.near(text) == expected
            if place % 3:  # the others are left out
                comparison.add(text, f"group of {place}")
        comparison.close()
    assert index.group("7") == "group of 7"
    assert index.group("6") is None
    assert index.compare(["7"]).near("7") == {"group of 7"}


def test_the_nearest_sentence_is_that_of_all_pairs() -> None:
    some, known = [str(i) for i in range(300)], [str(i) for i in range(1000, 1500)]
    best, where = (np.concatenate(parts) for parts in zip(*nearest_by_sentences(some, known, directions), strict=True))
    every = directions(some) @ directions(known).T
    assert np.allclose(best, every.max(1))
    assert (where == every.argmax(1)).all()


def test_what_the_model_cannot_read_is_near_to_nothing() -> None:
    encode = comparing(SentenceEncoder(), Counted(["masterpiece"]))
    prompts = ["แมวนอนบนโซฟา", "ปราสาทบนภูเขาในหมอก", "😀🐱", "🏰", "a cat sleeping on a sofa", "a cat sleeping on a sofa, masterpiece"]
    vectors = encode(prompts)
    expected = np.zeros((6, 6))
    expected[4:, 4:] = 1
    assert np.allclose(vectors @ vectors.T, expected, atol=1e-5)
    index = SentenceIndex(0.9, encode)
    comparison = index.compare(prompts)
    for number, prompt in enumerate(prompts):
        assert comparison.near(prompt) == ({"4"} if number == 5 else set())
        comparison.add(prompt, str(number))
