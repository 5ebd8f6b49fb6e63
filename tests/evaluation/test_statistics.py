import numpy as np
import pytest

from evaluation.statistics import bootstrap_mean


def test_interval_agrees_with_the_normal_one() -> None:
    scores = np.random.default_rng(0).normal(0.7, 0.2, 2000)
    found = bootstrap_mean(scores)
    half = 1.96 * scores.std() / np.sqrt(len(scores))
    assert found.mean == pytest.approx(scores.mean())
    assert found.low == pytest.approx(scores.mean() - half, abs=0.15 * half)
    assert found.high == pytest.approx(scores.mean() + half, abs=0.15 * half)


def test_it_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(200):
        found = bootstrap_mean((rng.random(80) < 0.3).astype(float), seed=seed, resamples=400)
        covered += found.low <= 0.3 <= found.high
    assert 180 <= covered <= 199


def test_constant_scores_have_no_spread() -> None:
    assert bootstrap_mean(np.ones(5)).low == 1.0
    assert bootstrap_mean(np.array([0.4])).high == 0.4
    with pytest.raises(ValueError, match="no scores"):
        bootstrap_mean(np.array([]))
