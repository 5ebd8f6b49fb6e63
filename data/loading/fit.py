"""Pairs by how well prompt and image fit, as score.py has found: the better ones alone, or first, or more often."""

from __future__ import annotations

import hashlib
import random
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from data.errors import MissingExtraError, ShardError
from data.loading.order import Place
from data.sources.chosen import ChosenPairs, PairSource
from data.store.columns import FIT_COLUMNS, column_origin, read_column
from data.store.directory import finished_shards
from data.store.pairs import PairDataset

_FIRST_SHARE = 0.5  # of the pairs, at the beginning of a curriculum
_FEWEST = 20  # scores that two hills can be told from


@dataclass(frozen=True)
class Hills:
    """Scores as two hills, of pairs that do not fit and of pairs that do: a mixture of two normal distributions, as DivideMix takes one of losses
    (arXiv 2002.07394, section 3.1)."""

    mixture: Any
    means: tuple[float, float]

    def chance(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """How likely each belongs to the upper hill, 0 to 1; below the lower summit as there, since the wider hill would win again far out."""
        upper = int(np.argmax(self.mixture.means_[:, 0]))
        return self.mixture.predict_proba(np.clip(scores, *self.means)[:, None])[:, upper]

    @property
    def threshold(self) -> float:
        """Where both hills are as likely."""
        grid = np.linspace(*self.means, 1000)
        return float(grid[np.searchsorted(self.chance(grid), 0.5)])


def two_hills(scores: Sequence[float]) -> Hills | None:
    """None where one hill explains the scores as well (by the Bayesian information criterion).

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.mixture import GaussianMixture
    except ImportError as error:
        raise MissingExtraError(f"telling good pairs from bad ones needs the extra 'pairs' ({error}): pip install -e '.[pairs]'") from error
    column = np.asarray(scores, dtype=np.float64)[:, None]
    if len(column) < _FEWEST or np.ptp(column) == 0:
        return None
    # stopped early, as scikit-learn does by itself (and DivideMix earlier still): hills are not quite normal, and what fits them best would
    # narrow the lower one to the worst pairs
    one, two = (GaussianMixture(number, random_state=0).fit(column) for number in (1, 2))
    if one.bic(column) <= two.bic(column):
        return None
    low, high = sorted(map(float, two.means_[:, 0]))
    return Hills(two, (low, high))


def read_scores(pairs: PairDataset, directory: Path, column: str) -> list[float | None]:
    """A column of score.py for each pair; None where one could not be scored.

    Raises:
        ShardError: there are no scores, not in all shards, or of different models.
    """
    scores: dict[tuple[Path, str], float | None] = {}
    origins: dict[str, Path] = {}
    by = "--clip MODEL" if column.startswith(FIT_COLUMNS["clip"]) else "--checkpoint DIR"
    for tar in finished_shards(directory):
        values, origin = read_column(tar, column), column_origin(tar, column)
        if values is None or origin is None:
            raise ShardError(f"{tar.with_suffix('.parquet')} has no scores; make them with: python score.py --data {directory.parent} {by}")
        origins.setdefault(origin, tar)
        scores |= {(tar, key): value for key, value in values.items()}
    if len(origins) > 1:
        raise ShardError(
            f"{' and '.join(tar.name for tar in list(origins.values())[:2])} in {directory} were scored by different models, so that their scores "
            f"cannot be compared; score all by one: python score.py --data {directory.parent} {by}"
        )
    return [scores.get((location.tar, location.key)) for location in pairs.locations]


class FittingPairs(ChosenPairs):
    """The pairs of a split whose fit is at least `least`; those without a score are left out. `ranking` has their numbers, the best fit first;
    `chances` how likely each fits."""

    def __init__(self, pairs: PairSource, scores: Sequence[float | None], chances: Sequence[float | None], least: float) -> None:
        kept = [(score, index) for index, score in enumerate(scores) if score is not None and score >= least]
        if not kept:
            raise ShardError(f"no pair has a fit of {least} or more; give a lower --min-fit")
        super().__init__(pairs, [index for _, index in kept])
        self.ranking = sorted(range(len(kept)), key=lambda number: -kept[number][0])
        self.chances = [chances[index] or 0.0 for index in self.indices]

    def fingerprint(self) -> str:
        order = ",".join(f"{self.indices[number]}:{self.chances[number]:.4f}" for number in self.ranking)
        return hashlib.sha256(f"{self.pairs.fingerprint()} {order}".encode()).hexdigest()[:16]


class DrawnBatches(Sampler[list[Place]], ABC):
    """Batches of places without end, each place's pair drawn anew. As with `ShuffledBatches` a step's batch depends on the seed and the step alone,
    and several processes share what one would see."""

    def __init__(self, batch_size: int, *, seed: int, start_step: int = 0, rank: int = 0, world_size: int = 1) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.seed = seed
        self.step = start_step
        self.rank = rank
        self.world_size = world_size

    @abstractmethod
    def draw(self, step: int, generator: random.Random) -> int:
        """The number of a pair."""

    def __iter__(self) -> Iterator[list[Place]]:
        step = self.step
        while True:
            first = (step * self.world_size + self.rank) * self.batch_size
            positions = range(first, first + self.batch_size)
            yield [Place(self.draw(step, random.Random(f"{self.seed}:{position}")), position) for position in positions]
            step += 1


class CurriculumBatches(DrawnBatches):
    """From easy to noisy: pairs are drawn from the best fitting half at first, from all by step `ramp_steps` on."""

    def __init__(self, ranking: Sequence[int], batch_size: int, *, ramp_steps: int, **order: int) -> None:
        super().__init__(batch_size, **order)
        self.ranking = ranking
        self.ramp_steps = ramp_steps

    def shown(self, step: int) -> int:
        """How many of the best fitting pairs take part at a step."""
        share = _FIRST_SHARE + (1 - _FIRST_SHARE) * min(1.0, step / max(1, self.ramp_steps))
        return max(1, round(share * len(self.ranking)))

    def draw(self, step: int, generator: random.Random) -> int:
        return self.ranking[generator.randrange(self.shown(step))]


class WeighedBatches(DrawnBatches):
    """Pairs are drawn as often as they are likely to fit."""

    def __init__(self, chances: Sequence[float], batch_size: int, **order: int) -> None:
        super().__init__(batch_size, **order)
        self.ends = list(accumulate(chances))
        if self.ends[-1] <= 0:
            raise ShardError("no pair is likely to fit; leave --weigh out")

    def draw(self, step: int, generator: random.Random) -> int:
        return min(bisect_right(self.ends, generator.random() * self.ends[-1]), len(self.ends) - 1)
