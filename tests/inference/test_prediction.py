"""Predictions from tokens' log-probabilities, in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest

from inference.prediction import UNFAMILIAR, Candidate, Prediction, build_prediction
from model.confidence import Confidence

LOGS = [[math.log(each) for each in some] for some in ([0.9, 0.8, 0.5], [0.7, 0.4], [])]


def build(confidence: Confidence) -> Prediction:
    return build_prediction(["a cat", "a dog", ""], LOGS, ["a", " cat", ""], confidence, 0.25)


def test_without_a_scale_a_prompt_is_as_sure_as_its_tokens_together() -> None:
    found = build(Confidence(label_smoothing=0.0, vocab_size=10))
    assert (found.prompt, found.familiarity) == ("a cat", 0.25)
    assert found.score == pytest.approx(np.log([0.9, 0.8, 0.5]).mean())
    assert found.confidence == pytest.approx(0.9 * 0.8 * 0.5)
    assert found.log_prob == pytest.approx(np.log(0.9 * 0.8 * 0.5))
    assert found.alternatives == [
        Candidate("a dog", pytest.approx(np.log([0.7, 0.4]).mean()), pytest.approx(0.28), pytest.approx(np.log(0.28))),
        Candidate("", 0.0, 1.0, 0.0),
    ]
    assert [token.text for token in found.tokens] == ["a", " cat", ""]
    assert found.log_probs == LOGS[0]
    assert [token.confidence for token in found.tokens] == pytest.approx([0.9, 0.8, 0.5])


def test_label_smoothing_is_undone_for_confidences_and_not_for_scores() -> None:
    found = build(Confidence(label_smoothing=0.2, vocab_size=10))
    undone = [(each - 0.02) / 0.8 for each in (0.9, 0.8, 0.5)]
    assert undone[0] > 1  # which is no probability
    assert [token.confidence for token in found.tokens] == pytest.approx([1.0, *undone[1:]])
    assert found.confidence == pytest.approx(undone[1] * undone[2])
    assert found.log_prob == pytest.approx(np.log(undone[1] * undone[2]))
    assert found.score == pytest.approx(np.log([0.9, 0.8, 0.5]).mean())
    assert found.log_probs == LOGS[0]


def test_a_scale_is_of_texts_and_not_of_tokens() -> None:
    found = build(Confidence(label_smoothing=0.0, vocab_size=10, scale=(0.5, 2.0, 0.3)))
    odds = 0.5 * math.log(0.5) + 2.0 * math.log(0.9 * 0.8) + 0.3
    assert found.confidence == pytest.approx(1 / (1 + math.exp(-odds)))
    assert found.log_prob == pytest.approx(math.log(0.9 * 0.8 * 0.5))
    assert found.alternatives[0].confidence == pytest.approx(1 / (1 + math.exp(-(0.5 * math.log(0.4) + 2.0 * math.log(0.7) + 0.3))))
    assert [token.confidence for token in found.tokens] == pytest.approx([0.9, 0.8, 0.5])


@pytest.mark.parametrize(("familiarity", "familiar"), [(None, True), (1.0, True), (UNFAMILIAR, True), (UNFAMILIAR * 0.999, False), (0.0, False)])
def test_unfamiliar_is_what_few_known_pictures_are_as_strange_as(familiarity: float | None, familiar: bool) -> None:
    assert Prediction("a cat", -1.0, 0.5, familiarity).is_familiar is familiar


def test_pieces_that_are_another_text_s_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        build_prediction(["a cat"], [[-1.0, -2.0]], ["a cat"], Confidence(label_smoothing=0.0, vocab_size=10), None)
