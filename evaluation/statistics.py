"""How sure a number is, where some of the images belong together: several of one prompt are one piece of evidence, not several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import MissingExtraError

LEVEL = 0.95
RESAMPLES = 2000
_BLOCK = 1 << 24  # draws held at a time

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number over `count` images in `units` independent groups, with its 95 % interval."""

    mean: float
    low: float
    high: float
    count: int
    units: int

    def __str__(self) -> str:
        between = f"[{self.low:.3f}, {self.high:.3f}]" if math.isfinite(self.high - self.low) else "(one group: no interval)"
        return f"{self.mean:.3f} {between}"

    @property
    def established(self) -> bool:
        """Of a difference: that it is none of chance's making."""
        return self.low > 0 or self.high < 0


class Units:
    """Images by the groups that are independent of each other."""

    def __init__(self, groups: Sequence[str]) -> None:
        numbers: dict[str, int] = {}
        self.of_image = np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.int64)
        self.count = len(numbers)

    def totals(self, values: Array) -> Array:
        """(N, K) -> (units, K): sums over the images of each, NaN counting as nothing."""
        whole = np.zeros((self.count, values.shape[1]))
        np.add.at(whole, self.of_image, np.nan_to_num(values))
        return whole

    def resampled(self, totals: Array, *, resamples: int = RESAMPLES, seed: int = 0) -> Array:
        """(units, K) -> (resamples, K): the sums over as many units as there are, drawn with replacement; the same draws for every column."""
        draw = np.random.default_rng(seed)
        out = np.empty((resamples, totals.shape[1]))
        rows = max(1, _BLOCK // self.count)
        for first in range(0, resamples, rows):
            number = min(rows, resamples - first)
            drawn = draw.integers(0, self.count, (number, self.count)) + np.arange(number)[:, None] * self.count
            times = np.bincount(drawn.ravel(), minlength=number * self.count).reshape(number, self.count)
            out[first : first + number] = times.astype(np.float64) @ totals
        return out


def interval(values: Array, units: int) -> tuple[float, float]:
    """The percentile interval of resampled numbers, widened for few units: a bootstrap's spread is too small by sqrt((n - 1) / n), and takes normal
    quantiles for Student's (Hesterberg, "What teachers should know about the bootstrap", arXiv 1411.5279, section 5.3)."""
    values = values[np.isfinite(values)]
    if units < 2 or not len(values):
        return -math.inf, math.inf
    stats = _scipy_stats()
    tail = float(stats.norm.cdf(math.sqrt(units / (units - 1)) * stats.t.ppf((1 - LEVEL) / 2, units - 1)))
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def share_interval(scores: Array, units: Units) -> tuple[float, float]:
    """Wilson's interval of a share, of zeros and ones (and NaN, which do not count), for as many independent images as those in groups are worth:
    the variance over groups says how many, never more than twice those there are (Korn and Graubard, 1998, take the same number for Clopper and
    Pearson's). At no and all of n, where it says nothing, a group is worth one image."""
    asked = ~np.isnan(scores)
    sums = units.totals(np.stack([scores, asked.astype(np.float64)], 1))
    sums = sums[sums[:, 1] > 0]
    groups, count = len(sums), float(sums[:, 1].sum())
    if groups < 2:
        return 0.0, 1.0
    share = float(sums[:, 0].sum() / count)
    variance = groups / (groups - 1) * float(((sums[:, 0] - share * sums[:, 1]) ** 2).sum()) / count**2
    alone = share * (1 - share)  # the variance of one image
    worth = alone / max(variance, alone / (2 * count)) if alone > 0 else float(groups)
    quantile = -float(_scipy_stats().t.ppf((1 - LEVEL) / 2, groups - 1))
    square = quantile**2 / worth
    centre = (share + square / 2) / (1 + square)
    half = math.sqrt(square * share * (1 - share) + square**2 / 4) / (1 + square)
    return max(0.0, centre - half), min(1.0, centre + half)


def share_difference_interval(scores: Array, units: Units) -> tuple[float, float]:
    """The interval of a difference of two shares, from what one has more on each image, -1, 0 or 1 (and NaN, which do not count): Student's over
    groups after a group was added on which the one is right alone, and another on which the other is, each as large as the difference in a group that
    has one (Bonett and Price, 2012: "Adjusted Wald confidence interval for a difference of binomial proportions based on paired data"). A bootstrap
    takes four against none for proof, whose sign test says 0.125, and two of two for certain."""
    asked = ~np.isnan(scores)
    sums = units.totals(np.stack([scores, asked.astype(np.float64)], 1))
    sums = sums[sums[:, 1] > 0]
    groups = len(sums)
    if groups < 2:
        return -math.inf, math.inf
    differing = sums[sums[:, 0] != 0, 0]
    size = math.sqrt(float((differing**2).mean())) if len(differing) else float(sums[:, 1].mean())
    sums = np.concatenate([sums, [[size, size], [-size, size]]])
    count = float(sums[:, 1].sum())
    centre = float(sums[:, 0].sum() / count)
    variance = len(sums) / (len(sums) - 1) * float(((sums[:, 0] - centre * sums[:, 1]) ** 2).sum()) / count**2
    half = -float(_scipy_stats().t.ppf((1 - LEVEL) / 2, groups - 1)) * math.sqrt(variance)
    return max(-1.0, centre - half), min(1.0, centre + half)


def mean_estimates(
    scores: dict[str, Array], units: Units, *, shares: frozenset[str] = frozenset(), differences: bool = False, seed: int = 0
) -> dict[str, Estimate]:
    """Means with their intervals: of `shares` Wilson's, of the others the bootstrap's over units.

    Args:
        scores: by name, (N,), NaN where an image does not count.
        differences: the scores are those of one captioner less another's, and `shares` have the interval of Bonett and Price.

    Raises:
        ValueError: a score that is infinite, or nothing that counts.
    """
    if not scores:
        return {}
    names = list(scores)
    values = np.stack([scores[name] for name in names], 1)
    if np.isinf(values).any():
        raise ValueError(f"a score of {names[int(np.isinf(values).any(0).argmax())]} is infinite")
    asked = ~np.isnan(values)
    sums, counts = units.totals(values), units.totals(asked.astype(np.float64))
    if not counts.sum(0).all():
        raise ValueError(f"there are no scores of {names[int(counts.sum(0).argmin())]} to average")
    drawn = units.resampled(np.concatenate([sums, counts], 1), seed=seed)
    found = {}
    for number, name in enumerate(names):
        with np.errstate(invalid="ignore", divide="ignore"):
            means = drawn[:, number] / drawn[:, len(names) + number]
        in_units = int((counts[:, number] > 0).sum())
        of_share = share_difference_interval if differences else share_interval
        low, high = of_share(values[:, number], units) if name in shares else interval(means, in_units)
        total = int(counts[:, number].sum())
        found[name] = Estimate(float(sums[:, number].sum() / total), low, high, total, in_units)
    return found


def _scipy_stats() -> Any:
    try:
        from scipy import stats
    except ImportError as error:
        raise MissingExtraError(f"intervals need the extra 'eval' ({error}): pip install -e '.[eval]'") from error
    return stats
