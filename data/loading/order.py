"""The order in which a run sees its pairs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.utils.data import Sampler


@dataclass(frozen=True, slots=True)
class Place:
    """Which pair (`index`) stands where in the order of the whole run (`position`)."""

    index: int
    position: int


class ShuffledBatches(Sampler[list[Place]]):
    """Batches of places without end: each epoch a new shuffle, decided by (seed, epoch) alone, so that step s has the same batch
    whether a run was interrupted or not.

    With several processes each takes its share of every batch of `batch_size * world_size`, so that two processes see what one with
    twice the batch size sees.
    """

    def __init__(self, count: int, batch_size: int, *, seed: int, start_step: int = 0, rank: int = 0, world_size: int = 1) -> None:
        super().__init__()
        if count < 1:
            raise ValueError("there are no pairs to draw batches from")
        self.count = count
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
                    order = torch.randperm(self.count, generator=torch.Generator().manual_seed(self.seed * 1_000_003 + epoch))
                batch.append(Place(int(order[position % self.count]), position))
            yield batch
            step += 1
