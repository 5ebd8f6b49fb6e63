"""What happens between two lines of the log: loss, speed, waiting, skipped pairs, summed over all processes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from data.loading.examples import Batch
from training.run_state import Progress


class Meter:
    """Fed in every update; read by all processes together."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self._all_updates, self._all_seconds = 0, 0.0
        self._begin()

    def _begin(self) -> None:
        self._since = time.perf_counter()
        self._waited = 0.0
        self._updates = self._tokens = self._images = 0
        self._loss: Tensor | float = 0.0
        self._skipped: Counter[str] = Counter()

    def wait_begins(self) -> None:
        self._waiting_since = time.perf_counter()

    def wait_ends(self, update: Sequence[Batch]) -> None:
        self._waited += time.perf_counter() - self._waiting_since
        self._updates += 1
        for batch in update:
            self._tokens += batch.num_tokens
            self._images += batch.num_pairs  # one of several captions shows its picture once more
            self._skipped += batch.skipped

    def add_loss(self, loss: Tensor) -> None:
        """A part of the update's loss; nothing waits for the device here."""
        self._loss = self._loss + loss.detach()

    def pause(self, seconds: float) -> None:
        """Do not count this as training: an evaluation, a save."""
        self._since += seconds

    def seconds_left(self, updates: int) -> float:
        """How long so many more updates will take, by all that were read."""
        return updates * self._all_seconds / max(1, self._all_updates)

    def read(self, progress: Progress) -> dict[str, float]:
        """The means since the last reading, for the log; what was seen and skipped is added to `progress`."""
        mine = [(float(self._loss), self._tokens, self._images, dict(self._skipped))]
        loss = tokens = images = 0.0
        for part in gather_object(mine):  # as objects: counts are exact so, and not every device has 64-bit numbers
            loss, tokens, images = loss + part[0], tokens + part[1], images + part[2]
            progress.skipped = dict(Counter(progress.skipped) + Counter(part[3]))
        elapsed = time.perf_counter() - self._since
        progress.seen += int(images)
        self._all_updates, self._all_seconds = self._all_updates + self._updates, self._all_seconds + elapsed
        values = {
            "train/loss": loss / max(1, self._updates) / self.accelerator.num_processes,
            "speed/images_per_second": images / elapsed,
            "speed/updates_per_second": self._updates / elapsed,
            "speed/tokens_per_second": tokens / elapsed,
            "speed/data_wait": self._waited / elapsed,
            "memory/GB": _memory(self.accelerator.device) / 1e9,
        } | {f"skipped/{kind}": float(count) for kind, count in progress.skipped.items()}
        self._begin()
        return values


def _memory(device: torch.device) -> float:
    """Bytes: the most that were taken of the GPU so far, or what this process holds now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return psutil.Process().memory_info().rss
