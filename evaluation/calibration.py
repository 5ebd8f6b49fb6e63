"""Whether a confidence of 0.8 is right eight times in ten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Bin:
    """Predictions of like confidence: the mean confidence, the share that is right, and how many they are."""

    confidence: float
    right: float
    count: int


@dataclass(frozen=True)
class Calibration:
    """`error` is the expected calibration error: the mean gap between confidence and share of right predictions, over bins, weighed by their counts
    (Guo et al., arXiv 1706.04599, section 2)."""

    error: float
    bins: tuple[Bin, ...]


def calibration(confidences: Sequence[float], right: Sequence[float] | NDArray[np.float64], *, bins: int = 10) -> Calibration:
    """
    Args:
        confidences: 0 to 1, of N predictions.
        right: of each 1 or 0.
        bins: of equal width.

    Raises:
        ValueError: a confidence that is no probability.
    """
    confidence, correct = np.asarray(confidences, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError("a confidence must be a number from 0 to 1")
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    found = [
        Bin(float(confidence[place == number].mean()), float(correct[place == number].mean()), int((place == number).sum()))
        for number in range(bins)
        if (place == number).any()
    ]
    total = sum(one.count for one in found)
    return Calibration(sum(one.count * abs(one.confidence - one.right) for one in found) / total if total else 0.0, tuple(found))
