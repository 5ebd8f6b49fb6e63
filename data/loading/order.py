"""The order in which a run sees its pairs."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import Sampler

_MOST_NEIGHBOURS = 5  # pairs of one picture in a row; more would make a batch's gradient that of few pictures


@dataclass(frozen=True, slots=True)
class Place:
    """Which pair (`index`) stands where in the order of the whole run (`position`)."""

    index: int
    position: int


class ShuffledBatches(Sampler[list[Place]]):
    """Batches of places without end: each epoch a new shuffle, decided by (seed, epoch) alone, so that step s has the same batch
    whether a run was interrupted or not. Pairs of one picture are neighbours, five at most of one with more of them, in an order of their own in
    each epoch: a batch then computes each picture once.

    With several processes each takes its share of every batch of `batch_size * world_size`, so that two processes see what one with
    twice the batch size sees; only a random part of a picture, where it is shared, is drawn for each share.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        *,
        seed: int,
        start_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
        pictures: Sequence[int] | None = None,
    ) -> None:
        """
        Args:
            pictures: of each pair (`data.sources.pictures.picture_numbers`); None where each has its own.
        """
        super().__init__()
        if count < 1:
            raise ValueError("there are no pairs to draw batches from")
        self.count = count
        self.shared = _neighbours(pictures if pictures is not None else range(count))
        self.batch_size = batch_size
        self.seed = seed
        self.step = start_step
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[list[Place]]:
        whole = self.batch_size * self.world_size
        step, epoch, order = self.step, -1, torch.empty(0, dtype=torch.long)
        while True:
            first = step * whole + self.rank * self.batch_size
            batch = []
            for position in range(first, first + self.batch_size):
                if position // self.count != epoch:
                    epoch = position // self.count
                    order = self._order(epoch)
                batch.append(Place(int(order[position % self.count]), position))
            yield batch
            step += 1

    def _order(self, epoch: int) -> torch.Tensor:
        """(pairs,)"""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        if self.shared is None:
            return torch.randperm(self.count, generator=generator)
        shuffle = random.Random(f"{self.seed}:{epoch}")
        groups = [shuffle.sample(pairs, len(pairs)) for pairs in self.shared]
        some = [pairs[start : start + _MOST_NEIGHBOURS] for pairs in groups for start in range(0, len(pairs), _MOST_NEIGHBOURS)]
        return torch.tensor([pair for number in torch.randperm(len(some), generator=generator).tolist() for pair in some[number]])


def _neighbours(pictures: Sequence[int]) -> list[list[int]] | None:
    """The pairs of each picture; None where each has but one."""
    pairs: dict[int, list[int]] = {}
    for number, picture in enumerate(pictures):
        pairs.setdefault(picture, []).append(number)
    return list(pairs.values()) if len(pairs) < len(pictures) else None
