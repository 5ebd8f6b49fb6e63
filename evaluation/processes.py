"""One process or several that share a comparison's work."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

_Thing = TypeVar("_Thing")


@dataclass(frozen=True)
class Processes:
    """This one's number, and how many there are."""

    index: int = 0
    count: int = 1

    @classmethod
    def here(cls) -> Processes:
        """As `accelerate launch` or torchrun has started this one."""
        import torch
        from accelerate import PartialState

        state = PartialState(cpu=not torch.accelerator.is_available(), timeout=timedelta(days=1))
        return cls(state.process_index, state.num_processes)

    def gather(self, thing: _Thing) -> list[_Thing]:
        """What every process has, in order. All must call this."""
        if self.count == 1:
            return [thing]
        from torch import distributed

        every: list[Any] = [None] * self.count
        distributed.all_gather_object(every, thing)
        return every
