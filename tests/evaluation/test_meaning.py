import math

import numpy as np
import pytest

from evaluation.meaning import SentenceSimilarity, modifier_jaccard, parts, subject_similarity


class Letters:
    """A sentence model whose vectors can be worked out by hand: the share of each letter a to c. `asked` are the texts that it was given."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, texts: list[str]) -> np.ndarray:
        self.asked += texts
        counts = np.array([[text.count(letter) for letter in "abc"] for text in texts], dtype=float)
        return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)


def test_similarity_is_the_cosine_and_the_best_over_references() -> None:
    similarity = SentenceSimilarity(Letters())
    assert similarity([["ab"], ["c"], ["ab"]], ["ab", "ab", "a"]).tolist() == pytest.approx([1.0, 0.0, math.sqrt(0.5)])
    assert similarity([["c", "ab", "b"]], ["a"]).tolist() == pytest.approx([math.sqrt(0.5)])
    assert similarity([["ab"]], ["  "]).tolist() == [0.0]


def test_references_are_embedded_once_for_all_captioners() -> None:
    letters = Letters()
    similarity = SentenceSimilarity(letters)
    for predictions in (["a", "b"], ["ab", "b"], ["abc", "c"]):
        similarity([["abc", "bc"], ["a"]], predictions)
    assert [letters.asked.count(prompt) for prompt in ("abc", "bc", "a")] == [1, 1, 1]


def test_the_packaged_sentence_model_orders_prompts_as_people_do() -> None:
    scores = SentenceSimilarity()(
        [["a watercolor painting of a fox"]] * 3, ["a watercolor painting of a fox", "a fox, watercolor", "a blueprint of a pizza"]
    )
    assert scores[0] == pytest.approx(1.0, abs=1e-5)
    assert scores[1] > 0.8 > 0.6 > scores[2]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a cat, 8k, Oil  painting", ("a cat", {"8k", "oil painting"})),
        ("((a cat:1.2)), [8k], <lora:x:0.8>", ("a cat", {"8k"})),
        ("a cat", ("a cat", set())),
        ("a cat,, ,", ("a cat", set())),
        ("", ("", set())),
    ],
)
def test_parts_of_prompts(prompt: str, expected: tuple[str, set[str]]) -> None:
    assert parts(prompt) == expected


def test_subjects_are_compared_without_modifiers_and_weights() -> None:
    similarity = SentenceSimilarity(Letters())
    assert subject_similarity(similarity, [["(a:1.3), bbb"], ["a"]], ["a, ccc", "b, aaa"]).tolist() == pytest.approx([1.0, 0.0])


def test_a_prediction_of_spaces_has_no_meaning_whatever_the_encoder_makes_of_it() -> None:
    similarity = SentenceSimilarity(lambda texts: np.ones((len(texts), 1), dtype=np.float32))
    assert similarity([["a"]] * 3, ["b", " \n", ""]).tolist() == [1, 0, 0]


def test_modifiers_are_compared_where_a_reference_has_any() -> None:
    found = modifier_jaccard([["x, a, b"], ["x"], ["x", "x, a"], ["x, a"]], ["y, b, (c:1.1)", "y, a", "y, a, b", "y"])
    assert found[[0, 2, 3]].tolist() == pytest.approx([1 / 3, 1 / 2, 0])
    assert np.isnan(found[1])
