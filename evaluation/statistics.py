"""How sure a mean is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.errors import MissingExtraError
from evaluation.metrics import Scores


@dataclass(frozen=True)
class Estimate:
    """A mean over `count` pairs with its 95 % interval."""

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap_mean(scores: Scores, *, seed: int = 0, resamples: int = 2000) -> Estimate:
    """Mean with its percentile bootstrap 95 % interval over pairs.

    Raises:
        ValueError: no scores.
    """
    if len(scores) == 0:
        raise ValueError("there are no scores to average")
    mean = float(np.mean(scores))
    if len(scores) == 1 or np.ptp(scores) == 0:
        return Estimate(mean, mean, mean, len(scores))
    try:
        from scipy.stats import bootstrap
    except ImportError as error:
        raise MissingExtraError(f"intervals need the extra 'eval' ({error}): pip install -e '.[eval]'") from error
    result = bootstrap((scores,), np.mean, n_resamples=resamples, method="percentile", rng=np.random.default_rng(seed), batch=200)
    return Estimate(mean, float(result.confidence_interval.low), float(result.confidence_interval.high), len(scores))
