"""Confidence against closed forms, scipy and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from model.confidence import Confidence, Scale, fit_scale


def texts(count: int, *, scale: float = 0.3, seed: int = 0) -> list[list[float]]:
    """Log-probabilities of texts of 1 to 20 tokens."""
    rng = np.random.default_rng(seed)
    return [(-scale * rng.exponential(size=int(rng.integers(1, 21)))).tolist() for _ in range(count)]


def evidence(log_probs: list[list[float]]) -> np.ndarray:
    return np.array([[min(each), sum(each) - min(each), 1.0] for each in log_probs])


def drawn(log_probs: list[list[float]], weights: Scale, seed: int = 1) -> list[bool]:
    """Whether texts are right whose log-odds are known."""
    odds = evidence(log_probs) @ np.array(weights)
    return (np.random.default_rng(seed).random(len(odds)) < 1 / (1 + np.exp(-odds))).tolist()


def loss(weights: np.ndarray, log_probs: list[list[float]], right: list[bool]) -> float:
    """What logistic regression makes as small as it can, with the evidence of one text for the plain weights."""
    odds = evidence(log_probs) @ weights
    return float(np.sum(np.logaddexp(0, odds) - np.array(right) * odds) + 0.5 * np.sum((weights - np.array([1.0, 1.0, 0.0])) ** 2))


@pytest.mark.parametrize("smoothing", [0.05, 0.1, 0.3])
def test_label_smoothing_is_undone(smoothing: float) -> None:
    """A network that has learned smoothed labels shows q = (1 - s) p + s / V, as torch's loss has its least there."""
    p = torch.tensor([0.6, 0.25, 0.1, 0.05], dtype=torch.float64)
    logits = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = sum(share * F.cross_entropy(logits[None], torch.tensor([token]), label_smoothing=smoothing) for token, share in enumerate(p.tolist()))
        value.backward()
        return value

    optimizer.step(closure)
    found = Confidence(label_smoothing=smoothing, vocab_size=4).without_smoothing(logits.detach().log_softmax(0).tolist())
    assert np.exp(found) == pytest.approx(p.numpy(), abs=1e-6)


def test_nothing_is_likelier_than_surely_or_less_likely_than_one_in_a_million() -> None:
    undone = Confidence(label_smoothing=0.1, vocab_size=100).without_smoothing
    assert undone([0.0, math.log(0.001), math.log(1e-9), -1e6]) == pytest.approx([0.0, *[math.log(1e-6)] * 3])
    assert undone([]) == []
    plain = [0.0, -3.0, -50.0]
    assert Confidence(label_smoothing=0.0, vocab_size=100).without_smoothing(plain) == plain


@given(st.lists(st.floats(-30, 0), max_size=9), st.floats(0, 0.9), st.integers(2, 60_000))
def test_undoing_keeps_the_order(log_probs: list[float], smoothing: float, vocabulary: int) -> None:
    undone = Confidence(label_smoothing=smoothing, vocab_size=vocabulary).without_smoothing(log_probs)
    assert all(one <= 0 for one in undone)
    order = np.argsort(log_probs, kind="stable")
    assert (np.diff(np.array(undone)[order]) >= -1e-12).all()


def test_without_a_scale_a_text_is_as_likely_as_its_tokens_together() -> None:
    plain = Confidence(label_smoothing=0.0, vocab_size=9)
    assert plain.of_text(np.log([0.5, 0.8, 0.9]).tolist()) == pytest.approx(0.36)
    assert plain.of_text([]) == 1.0
    assert plain.of_piece(np.log([0.5, 0.8]).tolist()) == pytest.approx(0.4)
    assert plain.of_piece([1e-9]) == 1.0
    assert np.isnan(plain.of_piece([-0.5, float("nan")]))  # and not certain


def test_a_scale_weighs_the_least_sure_token_and_the_others() -> None:
    scaled = Confidence(label_smoothing=0.0, vocab_size=9, scale=(0.5, 2.0, 1.5))
    odds = 0.5 * math.log(0.2) + 2.0 * (math.log(0.9) + math.log(0.8)) + 1.5
    assert scaled.of_text(np.log([0.9, 0.2, 0.8]).tolist()) == pytest.approx(1 / (1 + math.exp(-odds)))
    assert scaled.of_text([]) == pytest.approx(1 / (1 + math.exp(-1.5)))
    assert scaled.of_text([-5000.0, -5000.0]) == pytest.approx(0.0)  # and no overflow
    assert scaled.of_piece(np.log([0.5, 0.8]).tolist()) == pytest.approx(0.4)  # of pieces nobody has fitted one


@pytest.mark.parametrize("weights", [(1.0, 1.0, 0.0), (0.4, 1.3, 0.8), (1.5, 0.2, 2.0)])
def test_known_weights_are_found_again(weights: Scale) -> None:
    """As closely as Fisher's information allows."""
    log_probs = texts(20_000, scale=0.1) + texts(20_000, scale=0.5, seed=1)
    given = evidence(log_probs)
    sure = 1 / (1 + np.exp(-given @ np.array(weights)))
    errors = np.linalg.inv((given * (sure * (1 - sure))[:, None]).T @ given).diagonal() ** 0.5
    assert errors.max() < 0.2
    assert (np.abs(np.array(fit_scale(log_probs, drawn(log_probs, weights))) - weights) < 3.5 * errors).all()


def test_it_is_logistic_regression() -> None:
    log_probs = texts(5000)
    right = drawn(log_probs, (0.7, 0.4, 1.0))
    theirs = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(evidence(log_probs)[:, :2], right)
    assert fit_scale(log_probs, right) == pytest.approx([*theirs.coef_[0], theirs.intercept_[0]], abs=0.02)


@pytest.mark.parametrize("count", [1, 10, 90])
@pytest.mark.parametrize("scale", [0.01, 0.3, 3.0, 14.0])
@pytest.mark.parametrize("kind", ["drawn", "all", "none", "half", "long are right"])
def test_it_is_the_least_of_its_loss_wherever_it_begins(count: int, scale: float, kind: str) -> None:
    """Also for networks that know nothing, whose texts the plain weights hold impossible."""
    log_probs = texts(count, scale=scale, seed=count)
    right = {
        "drawn": drawn(log_probs, (0.5, 0.1, 1.0)),
        "all": [True] * count,
        "none": [False] * count,
        "half": [place % 2 == 0 for place in range(count)],
        "long are right": [len(each) > 10 for each in log_probs],
    }[kind]
    found = fit_scale(log_probs, right)
    assert all(map(math.isfinite, found))
    assert min(found[:2]) >= 0
    free = [place for place in range(3) if place == 2 or found[place] > 0]

    def of_free(some: np.ndarray) -> float:
        every = np.zeros(3)
        every[free] = some
        return loss(every, log_probs, right)

    ours = of_free(np.array(found)[free])
    begin = np.array([1.0, 1.0, 0.0])[free]
    theirs = min(minimize(of_free, start, method="Nelder-Mead", options={"maxiter": 4000}).fun for start in (begin, 0 * begin))
    assert ours <= theirs + 1e-4 * max(1, theirs)


def test_where_all_or_none_are_right_a_text_is_nearly_sure_or_nearly_not() -> None:
    log_probs = texts(500)
    for right, low, high in ((True, 0.9, 1.0), (False, 0.0, 0.1)):
        confidence = Confidence(label_smoothing=0.0, vocab_size=9, scale=fit_scale(log_probs, [right] * 500))
        assert low < np.mean([confidence.of_text(each) for each in log_probs]) < high
        assert all(0 < confidence.of_text(each) < 1 for each in log_probs)


@pytest.mark.parametrize("weights", [(-1.0, 0.5, 0.0), (2.0, -0.1, 1.0), (-1.0, -1.0, 0.0)])
def test_what_is_likelier_never_counts_as_less_sure(weights: Scale) -> None:
    log_probs = texts(3000)
    found = fit_scale(log_probs, drawn(log_probs, weights))
    assert [found[place] == 0 for place in range(2)] == [weight < 0 for weight in weights[:2]]
    confidence = Confidence(label_smoothing=0.0, vocab_size=9, scale=found)
    for each in log_probs[:200]:
        likelier = [0.9 * log_prob for log_prob in each]
        assert confidence.of_text(likelier) >= confidence.of_text(each)


def test_a_fitted_scale_is_right_as_often_as_it_says() -> None:
    log_probs = texts(6000)
    right = np.array(drawn(log_probs, (0.3, 0.5, 1.0)))
    confidence = Confidence(label_smoothing=0.0, vocab_size=9, scale=fit_scale(log_probs[:3000], right[:3000].tolist()))
    said = np.array([confidence.of_text(each) for each in log_probs[3000:]])
    order = np.argsort(said)
    for part in np.array_split(order, 5):
        assert said[part].mean() == pytest.approx(right[3000:][part].mean(), abs=0.06)
