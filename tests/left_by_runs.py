"""What a training run leaves, for the tests."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def weights(run_directory: Path, step: int) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run_directory / "checkpoints" / f"step-{step:06d}" / "model.safetensors")


def curve(run_directory: Path, name: str) -> list[float]:
    events = EventAccumulator(str(run_directory))
    events.Reload()
    return [event.value for event in events.Scalars(name)]
