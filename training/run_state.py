"""The state of a run on disk, to go on from: `checkpoints/step-000500/` with weights, optimizer and schedule.
Random numbers need no state: every step draws from a seed of its own.

A checkpoint is written beside and renamed, so that what has its name is whole.
"""

from __future__ import annotations

import errno
import os
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

WEIGHTS_FILE, LOOP_FILE = "model.safetensors", "loop.pt"


class RunStateError(RuntimeError):
    """A run that cannot be saved or resumed; says what to do."""


@dataclass
class Progress:
    """Where a run is: `step` updates are done; `best_loss` is the lowest validation loss so far."""

    step: int = 0
    best_loss: float = float("inf")


def save_state(run: Path, progress: Progress, module: nn.Module, optimizer: torch.optim.Optimizer, schedule: LRScheduler, *, keep: int) -> Path:
    """Write a checkpoint and delete all but the last `keep`.

    Raises:
        RunStateError: the disk is full; earlier checkpoints are untouched.
    """
    final = run / "checkpoints" / f"step-{progress.step:06d}"
    temporary = final.with_name(f"{final.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}
        safetensors.torch.save_file(weights, temporary / WEIGHTS_FILE)
        loop = {
            "step": progress.step,
            "best_loss": progress.best_loss,
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
        }
        torch.save(loop, temporary / LOOP_FILE)
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temporary, final)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors wrap the system's error in their own
        shutil.rmtree(temporary, ignore_errors=True)
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error) or _is_full(run):
            raise RunStateError(
                f"the disk is full: step {progress.step} was not saved, earlier checkpoints in {final.parent} are whole. "
                "Free some space and run the same command with --resume"
            ) from error
        raise
    for old in checkpoints(run)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def _is_full(path: Path) -> bool:
    return shutil.disk_usage(path).free < 1 << 20


def checkpoints(run: Path) -> list[Path]:
    """All whole checkpoints, oldest first."""
    return sorted(path for path in (run / "checkpoints").glob("step-*") if not path.name.endswith(".tmp"))


def load_state(run: Path, module: nn.Module, optimizer: torch.optim.Optimizer, schedule: LRScheduler) -> Progress:
    """Go back to the last checkpoint that can be read; a broken one is passed over with a warning.

    Raises:
        RunStateError: there is none.
    """
    for directory in reversed(checkpoints(run)):
        try:
            weights = safetensors.torch.load_file(directory / WEIGHTS_FILE)
            loop: dict[str, Any] = torch.load(directory / LOOP_FILE, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged zip or pickle raises anything
            warnings.warn(f"{directory} is damaged ({error}); trying the one before it", stacklevel=2)
            continue
        module.load_state_dict(weights)
        optimizer.load_state_dict(loop["optimizer"])
        schedule.load_state_dict(loop["schedule"])
        return Progress(loop["step"], loop["best_loss"])
    raise RunStateError(f"{run} holds no checkpoint to resume from; leave out --resume to begin anew")
