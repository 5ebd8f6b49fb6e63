import numpy as np
import pytest

from evaluation.calibration import calibration


def test_the_error_by_hand() -> None:
    found = calibration([0.05, 0.15, 0.15, 0.95, 1.0], [0, 1, 0, 1, 0])
    assert [(one.count, one.right) for one in found.bins] == [(1, 0.0), (2, 0.5), (2, 0.5)]
    assert [one.confidence for one in found.bins] == pytest.approx([0.05, 0.15, 0.975])
    assert found.error == pytest.approx((0.05 + 2 * 0.35 + 2 * 0.475) / 5)


def test_who_is_as_often_right_as_confident_has_next_to_no_error() -> None:
    draw = np.random.default_rng(0)
    confidence = draw.random(20_000)
    right = (draw.random(20_000) < confidence).astype(float)
    assert calibration(confidence, right).error < 0.01
    assert calibration(confidence**2, right).error > 0.1
    assert calibration([], []).error == 0


def test_what_is_no_probability_is_refused() -> None:
    for wrong in (1.01, -0.1, float("nan")):
        with pytest.raises(ValueError, match="from 0 to 1"):
            calibration([0.5, wrong], [1, 0])
