"""The state of a run on disk, to go on from: `checkpoints/step-000500/` with weights, optimizer, schedule and running mean.
Random numbers and the order of the data need no state: every step draws from a seed of its own.

A checkpoint is written beside and renamed, so that what has its name is whole.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_state_dict,
)
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from training.run_directory import RunStateError, checkpoint_path, checkpoints
from training.running_mean import RunningMean

WEIGHTS_FILE, LOOP_FILE, AVERAGE_FILE = "model.safetensors", "loop.pt", "average.safetensors"
_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


class FullDiskError(RunStateError):
    """No space for a checkpoint; earlier ones are whole."""


@dataclass
class Progress:
    """Where a run is: `step` updates are done; `best_loss` is the lowest validation loss so far, of the weights after `best_step`.
    `lost_updates` were not made because a gradient was not finite, `lost_in_a_row` of them the last ones; `skipped` counts unreadable pairs
    by kind, `seen` the others."""

    step: int = 0
    best_loss: float = float("inf")
    best_step: int = 0
    lost_updates: int = 0
    lost_in_a_row: int = 0
    seen: int = 0
    skipped: dict[str, int] = field(default_factory=dict)


class Stateful(Protocol):
    """Whatever else has a state, such as the scaler of float16 gradients."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


@dataclass
class RunState:
    """All that a run needs to go on. `module` may be sharded or replicated over processes; checkpoints hold whole tensors, so that a run may
    go on with another number of them."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: LRScheduler
    progress: Progress = field(default_factory=Progress)
    average: RunningMean | None = None
    others: dict[str, Stateful] = field(default_factory=dict)

    def save(self, run: Path, *, keep: int, write: bool = True) -> None:
        """Write a checkpoint and delete all but the last `keep` and the best. Every process calls this, one of them with `write`.

        Raises:
            FullDiskError: earlier checkpoints are untouched.
        """
        weights = get_model_state_dict(self.module, options=_WHOLE)
        average = None if self.average is None else self.average.state_dict()
        optimizer = get_optimizer_state_dict(self.module, self.optimizer, options=_WHOLE)
        others = {name: other.state_dict() for name, other in self.others.items()}
        if not write:
            return
        loop = {
            "progress": asdict(self.progress),
            "optimizer": optimizer,
            "schedule": self.schedule.state_dict(),
            "others": others,
        }
        files: dict[str, Callable[[Path], None]] = {
            WEIGHTS_FILE: lambda path: safetensors.torch.save_file(_separate(weights), path),
            LOOP_FILE: lambda path: torch.save(loop, path),
        }
        if average is not None:
            files[AVERAGE_FILE] = lambda path: safetensors.torch.save_file(_separate(average), path)
        _write(checkpoint_path(run, self.progress.step), files)
        for old in checkpoints(run)[:-keep]:
            if old != checkpoint_path(run, self.progress.best_step):
                shutil.rmtree(old, ignore_errors=True)

    def load(self, run: Path) -> None:
        """Go back to the last checkpoint that can be read; a broken one is passed over with a warning.

        Raises:
            RunStateError: there is none, or it has no running mean and this run wants one.
        """
        for directory in reversed(checkpoints(run)):
            try:
                weights: dict[str, Any] = safetensors.torch.load_file(directory / WEIGHTS_FILE)
                loop: dict[str, Any] = torch.load(directory / LOOP_FILE, map_location="cpu", weights_only=True)
                average: dict[str, Any] | None = safetensors.torch.load_file(directory / AVERAGE_FILE) if self.average is not None else None
            except Exception as error:  # a damaged zip or pickle raises anything
                warnings.warn(f"{directory} is damaged ({error}); trying the one before it", stacklevel=2)
                continue
            whole = StateDictOptions(full_state_dict=True)
            set_state_dict(self.module, self.optimizer, model_state_dict=weights, optim_state_dict=loop["optimizer"], options=whole)
            self.schedule.load_state_dict(loop["schedule"])
            for name, other in self.others.items():
                other.load_state_dict(loop["others"][name])
            if self.average is not None and average is not None:
                self.average.load_state_dict(average)
            self.progress = Progress(**loop["progress"])
            return
        raise RunStateError(f"{run} holds no checkpoint to resume from; leave out --resume to begin anew")


def _separate(weights: dict[str, Any]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous().clone() for name, tensor in weights.items()}


def _write(final: Path, files: dict[str, Callable[[Path], None]]) -> None:
    """Write files into a directory beside, then give it its name."""
    for left_behind in final.parent.glob("*.tmp"):  # by a process that was killed; nobody else writes here
        shutil.rmtree(left_behind, ignore_errors=True)
    temporary = final.with_name(f"{final.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        for name, write in files.items():
            write(temporary / name)
            with open(temporary / name, "rb+") as file:  # Windows flushes only what may be written
                os.fsync(file.fileno())  # a machine may vanish as well as a process
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temporary, final)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors wrap the system's error in their own
        full = _for_want_of_space(error, final.parent)
        shutil.rmtree(temporary, ignore_errors=True)
        if full:
            raise FullDiskError(f"the disk is full: {final.name} was not saved, earlier checkpoints in {final.parent} are whole") from error
        raise


@contextmanager
def full_disk_is_survived(bar: tqdm, *, unless: bool) -> Iterator[None]:
    """Say that something could not be written and let training go on, `unless` it is over.

    Raises:
        FullDiskError: it is over.
    """
    try:
        yield
    except (OSError, RunStateError, SafetensorError) as error:
        if not isinstance(error, FullDiskError) and not _for_want_of_space(error, Path()):
            raise
        if unless:
            raise FullDiskError(f"{error}. Free some space and run the same command with --resume") from error
        bar.write(f"{error}. Training goes on, and tries again when the next checkpoint is due", file=sys.stderr)


def _for_want_of_space(error: Exception, path: Path) -> bool:
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error) or _is_full(path)


def _is_full(path: Path) -> bool:
    return shutil.disk_usage(path).free < 1 << 20
