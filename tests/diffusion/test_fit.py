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


def test_what_is_saved_and_given_back_is_the_mean_of_the_weights(tmp_path: Path) -> None:
    """Against the same loop written out, with diffusers' warmup: the mean keeps 1 - (1 + step) ** -power of itself, at most the decay."""
    torch.manual_seed(0)
    module, raw, saved = nn.Linear(4, 1), [], []
    config = FitConfig(name="toy", samples=80, batch_size=8, learning_rate=0.05, decay=0.5, ema_decay=0.9, save_minutes=60, seed=1, warmup_steps=1)
    mean = {name: value.detach().clone() for name, value in module.state_dict().items()}

    def watched(rng: np.random.Generator, n: int) -> tuple[torch.Tensor]:
        raw.append({name: value.detach().clone() for name, value in module.state_dict().items()})
        return draw_batch(rng, n)

    def keep(averaged: nn.Module, step: int) -> None:
        saved.append({name: value.detach().clone() for name, value in averaged.state_dict().items()})

    trained = fit(module, watched, loss_of, config, accelerator=Accelerator(cpu=True), directory=tmp_path, on_save=keep)
    last = torch.load(tmp_path / "toy.state", weights_only=True)["module"]
    for step, weights in enumerate([*raw[1:], last], 1):
        kept = 0.0 if step <= 1 else min(1 - (1 + step - 1) ** -0.75, 0.9)
        for name in mean:
            mean[name] = kept * mean[name] + (1 - kept) * weights[name]
    for name, value in mean.items():
        assert torch.allclose(trained.state_dict()[name], value, atol=1e-6), name
        assert torch.equal(saved[-1][name], trained.state_dict()[name])
        assert not torch.allclose(last[name], value, atol=1e-4)
