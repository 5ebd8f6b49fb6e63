"""From the log-probabilities of a text's tokens to the probability that the text is right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_LEAST = 1e-6  # a token is never held less likely
_PRIOR = 1.0  # how many texts' worth of evidence the plain weights have
_NEWTON_STEPS, _FLAT = 100, 1e-9

Scale = tuple[float, float, float]
CERTAINTY = "reprompt_confidence"  # in the config.json of networks of transformers


@dataclass(frozen=True, kw_only=True)
class Confidence:
    """How sure a network may be of what it wrote.

    Attributes:
        label_smoothing: that it was trained with, spread over `vocab_size` tokens.
        scale: what `fit_scale` found; None: its probabilities are taken as they are.
    """

    label_smoothing: float
    vocab_size: int
    scale: Scale | None = None

    def without_smoothing(self, log_probs: Sequence[float]) -> list[float]:
        """The log-probabilities of tokens as they would be of a network that learned from the labels themselves: label smoothing (arXiv 1512.00567,
        section 7) makes q = (1 - smoothing) p + smoothing / V of p, here solved for it. At least one in a million."""
        if self.label_smoothing == 0:
            return list(log_probs)
        spread = self.label_smoothing / self.vocab_size
        return [math.log(min(1.0, max((math.exp(each) - spread) / (1 - self.label_smoothing), _LEAST))) for each in log_probs]

    def of_text(self, log_probs: Sequence[float]) -> float:
        """The probability that a whole text is right, word for word, from what `without_smoothing` gave of its tokens."""
        if self.scale is None:
            return self.of_piece(log_probs)
        return float(1 / (1 + np.exp(-np.dot(self.scale, _evidence(log_probs)).clip(-700, 700))))

    def of_piece(self, log_probs: Sequence[float]) -> float:
        """The probability that some of a text's tokens are right where all before them are."""
        return math.exp(min(sum(log_probs), 0.0))  # rounding may lead above; what is no number stays none


def _evidence(log_probs: Sequence[float]) -> tuple[float, float, float]:
    least = min(log_probs, default=0.0)
    return least, sum(log_probs) - least, 1.0


def fit_scale(log_probs: Sequence[Sequence[float]], right: Sequence[bool]) -> Scale:
    """Temperatures for texts: weights of the log-probability of the least sure token and of the sum of all others, and a constant, whose sum is the
    log-odds that a text is right (Platt scaling; Guo et al., arXiv 1706.04599, section 4, of which temperature scaling is the case of one weight for
    all).

    The least sure token has a weight of its own because a picture often leaves one choice open, between phrasings that mean the same: how likely the
    network holds the one it took says little of whether it is right.

    Args:
        log_probs: of the tokens of N texts, as `Confidence.without_smoothing` gives them.
        right: of each text whether it was.
    """
    evidence, labels = np.array([_evidence(each) for each in log_probs]), np.array(right, dtype=np.float64)
    free = [0, 1, 2]
    while True:
        weights = _logistic(evidence[:, free], labels, np.array([1.0, 1.0, 0.0])[free])
        if not (against := [place for place, weight in zip(free, weights, strict=True) if place < 2 and weight < 0]):
            found = dict(zip(free, weights.tolist(), strict=True))
            return found.get(0, 0.0), found.get(1, 0.0), found[2]
        free.remove(against[0])  # where what is likelier would count as less sure


def _logistic(evidence: np.ndarray, labels: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Weights of a logistic regression by Newton's method, drawn to a prior: finite also where all texts are right, or none is. A step that leads too
    far, as where the prior is sure of what is wrong, is halved until it leads down (Boyd and Vandenberghe, "Convex optimization", section 9.5)."""

    def loss(weights: np.ndarray) -> float:
        odds = evidence @ weights
        return float(np.logaddexp(0, odds).sum() - labels @ odds + _PRIOR / 2 * ((weights - prior) ** 2).sum())

    weights = prior.copy()
    for _ in range(_NEWTON_STEPS):
        sure = 1 / (1 + np.exp(-(evidence @ weights).clip(-700, 700)))
        slope = evidence.T @ (sure - labels) + _PRIOR * (weights - prior)
        curvature = (evidence * (sure * (1 - sure))[:, None]).T @ evidence + _PRIOR * np.eye(len(prior))
        step, share = np.linalg.solve(curvature, slope), 1.0
        down = float(slope @ step)
        if down < _FLAT:
            break
        while loss(weights - share * step) > loss(weights) - share / 4 * down and share > _LEAST:
            share /= 2
        weights = weights - share * step
    return weights
