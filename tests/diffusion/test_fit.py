"""The loop that trains the embedded model: an interrupted run equals one that was never interrupted."""

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from diffusion.mini.fit import FitConfig, InterruptedTrainingError, fit


def draw_batch(rng: np.random.Generator, n: int) -> tuple[torch.Tensor]:
    return (torch.from_numpy(rng.standard_normal((n, 4), dtype=np.float32)),)


def loss_of(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return (module(x + 0.01 * torch.randn_like(x)) - x.sum(1, keepdim=True)).square().mean()


def run(directory: Path, interrupt_at: int | None = None) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    config = FitConfig(name="toy", samples=320, batch_size=8, learning_rate=0.02, decay=0.5, ema_decay=0.9, save_minutes=60, seed=1, warmup_steps=5)
    steps = 0

    def counted(rng: np.random.Generator, n: int) -> tuple[torch.Tensor]:
        nonlocal steps
        steps += 1
        if steps == interrupt_at:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGINT)
        return draw_batch(rng, n)

    trained = fit(module, counted, loss_of, config, accelerator=Accelerator(cpu=True), directory=directory)
    return {name: value.clone() for name, value in trained.state_dict().items()}


def test_interrupted_and_resumed_reaches_the_same_weights(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(InterruptedTrainingError, match="run the same command"):
        run(tmp_path / "parts", interrupt_at=13)
    resumed = run(tmp_path / "parts")
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
    assert run(tmp_path / "whole").keys() == whole.keys()  # a finished run is not trained again
