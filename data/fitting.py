"""Pairs by how well prompt and image fit, as score.py has found: the better ones alone, or first."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

from torch.utils.data import Sampler

from data.batches import Place
from data.pairs import PairDataset
from data.shards import ShardError, finished_shards, read_column
from data.sources import ChosenPairs

FIT_COLUMN = "fit"
_FIRST_SHARE = 0.5  # of the pairs, at the beginning of a curriculum


def fits(pairs: PairDataset, directory: Path) -> list[float | None]:
    """The fit of each pair; None where one could not be scored.

    Raises:
        ShardError: there are no scores, or not in all shards.
    """
    scores: dict[tuple[Path, str], float | None] = {}
    for tar in finished_shards(directory):
        column = read_column(tar, FIT_COLUMN)
        if column is None:
            remedy = f"python score.py --data {directory.parent} --checkpoint DIR"
            raise ShardError(f"{tar.with_suffix('.parquet')} has no scores; make them with: {remedy}")
        scores |= {(tar, key): value for key, value in column.items()}
    return [scores.get((location.tar, location.key)) for location in pairs.locations]


class FittingPairs(ChosenPairs):
    """The pairs of a split whose fit is at least `least`; those without a score are left out. `ranking` has their numbers, the best fit first."""

    def __init__(self, pairs: PairDataset, scores: list[float | None], least: float) -> None:
        kept = [(score, index) for index, score in enumerate(scores) if score is not None and score >= least]
        if not kept:
            raise ShardError(f"no pair has a fit of {least} or more; give a lower --min-fit")
        super().__init__(pairs, [index for _, index in kept])
        self.ranking = sorted(range(len(kept)), key=lambda number: -kept[number][0])

    def fingerprint(self) -> str:
        order = ",".join(str(self.indices[number]) for number in self.ranking)
        return hashlib.sha256(f"{self.pairs.fingerprint()} {order}".encode()).hexdigest()[:16]


class CurriculumBatches(Sampler[list[Place]]):
    """Batches of places without end, from easy to noisy: pairs are drawn from the best fitting half at first, from all by step `ramp_steps` on.
    As with `ShuffledBatches` each step's batch depends on the seed and the step alone."""

    def __init__(
        self, ranking: list[int], batch_size: int, *, ramp_steps: int, seed: int, start_step: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        super().__init__()
        self.ranking = ranking
        self.batch_size = batch_size
        self.ramp_steps = ramp_steps
        self.seed = seed
        self.step = start_step
        self.rank = rank
        self.world_size = world_size

    def shown(self, step: int) -> int:
        """How many of the best fitting pairs take part at a step."""
        share = _FIRST_SHARE + (1 - _FIRST_SHARE) * min(1.0, step / max(1, self.ramp_steps))
        return max(1, round(share * len(self.ranking)))

    def __iter__(self) -> Iterator[list[Place]]:
        step = self.step
        while True:
            first = (step * self.world_size + self.rank) * self.batch_size
            shown = self.shown(step)
            yield [
                Place(self.ranking[random.Random(f"{self.seed}:{position}").randrange(shown)], position)
                for position in range(first, first + self.batch_size)
            ]
            step += 1
