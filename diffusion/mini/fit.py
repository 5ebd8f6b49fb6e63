"""One training loop for all parts of the bundled model: accelerate, mixed precision, EMA, a progress bar, TensorBoard, exact resume."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from core.device import compute_precision

Batch = tuple[torch.Tensor, ...]


class InterruptedTrainingError(RuntimeError):
    """Ctrl-C or SIGTERM: the state is saved."""


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    name: str
    samples: int  # over all processes
    batch_size: int  # over all processes
    learning_rate: float
    decay: float  # the last part of the run, in which the rate falls linearly to nothing
    ema_decay: float
    save_minutes: float
    seed: int
    warmup_steps: int = 200


def start_accelerator() -> Accelerator:
    """One process or several, in the precision of their device."""
    cpu = not torch.accelerator.is_available()  # said outright: under torchrun on CPUs, Accelerate would not join the processes
    precision = compute_precision(torch.device("cpu") if cpu else torch.device(torch.accelerator.current_accelerator() or "cpu"))
    accelerator = Accelerator(mixed_precision="bf16" if precision.is_half else "no", cpu=cpu)
    if accelerator.is_main_process:
        print(f"computes in {precision}")
    return accelerator


def fit(
    module: nn.Module,
    draw_batch: Callable[[np.random.Generator, int], Batch],
    loss_of: Callable[..., torch.Tensor],
    config: FitConfig,
    *,
    accelerator: Accelerator,
    directory: Path,
    on_save: Callable[[nn.Module, int], None] | None = None,
) -> nn.Module:
    """Train `module` on `config.samples` samples and return it with the averaged (EMA) weights.

    `draw_batch(rng, n)` returns n samples as tensors; `loss_of(module, *batch)` a scalar. Step, process and seed alone decide a batch,
    so a run that was interrupted and started again with the same `directory` sees the batches it would have seen.
    `on_save(module, step)` is called on the main process with the averaged weights in place.

    Raises:
        InterruptedTrainingError: after Ctrl-C or SIGTERM, when the state has been saved.
    """
    state_file = directory / f"{config.name}.state"
    total = config.samples // config.batch_size
    optimizer = torch.optim.AdamW(module.parameters(), lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    ema = EMAModel(module.parameters(), decay=config.ema_decay, use_ema_warmup=True, power=0.75, foreach=True)
    step = 0
    if state_file.exists():
        state = torch.load(state_file, map_location="cpu", weights_only=True)
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        ema.load_state_dict(state["ema"])
        step = state["step"]
    wrapped, optimizer = accelerator.prepare(module, optimizer)
    ema.to(accelerator.device)
    stop = _StopOnSignal()
    writer = SummaryWriter(str(directory / "tensorboard" / config.name)) if accelerator.is_main_process else None
    progress = tqdm(
        total=total * config.batch_size,
        initial=step * config.batch_size,
        desc=config.name,
        unit="sample",
        unit_scale=True,
        disable=not accelerator.is_main_process,
    )

    def save() -> None:
        if accelerator.is_main_process:
            state = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "ema": ema.state_dict(), "step": step}
            torch.save(state, state_file.with_suffix(".tmp"))
            os.replace(state_file.with_suffix(".tmp"), state_file)
            if on_save is not None:
                ema.store(module.parameters())
                ema.copy_to(module.parameters())
                on_save(module, step)
                ema.restore(module.parameters())
        accelerator.wait_for_everyone()

    share = config.batch_size // accelerator.num_processes
    saved_at, running = time.monotonic(), None
    with stop:
        while step < total:
            rng = np.random.default_rng((config.seed, step, accelerator.process_index))
            torch.manual_seed(int(rng.integers(2**31)))
            batch = tuple(tensor.to(accelerator.device) for tensor in draw_batch(rng, share))
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * _rate(step, total, config)
            with accelerator.autocast():
                loss = loss_of(wrapped, *batch)
            accelerator.backward(loss)
            norm = accelerator.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            ema.step(module.parameters())
            step += 1
            progress.update(config.batch_size)
            if step % 50 == 0:
                value = float(loss.detach())
                running = value if running is None else 0.95 * running + 0.05 * value
                progress.set_postfix(loss=f"{running:.4f}")
                if writer is not None:
                    writer.add_scalar("loss", value, step * config.batch_size)
                    writer.add_scalar("gradient_norm", float(norm), step * config.batch_size)
                    writer.add_scalar("learning_rate", optimizer.param_groups[0]["lr"], step * config.batch_size)
            # every process must take the same decision: the main one's clock and anyone's signal
            late = accelerator.is_main_process and time.monotonic() - saved_at > config.save_minutes * 60
            wishes = accelerator.reduce(torch.tensor([float(stop.asked), float(late)], device=accelerator.device))
            if wishes[0] > 0:
                save()
                raise InterruptedTrainingError(f"{config.name}: stopped after {step * config.batch_size:,} samples; run the same command to go on")
            if wishes[1] > 0:
                save()
                saved_at = time.monotonic()
    progress.close()
    save()
    ema.copy_to(module.parameters())
    return module


def _rate(step: int, total: int, config: FitConfig) -> float:
    warm = min(1.0, (step + 1) / config.warmup_steps)
    return warm * min(1.0, (total - step) / max(1.0, total * config.decay))


class _StopOnSignal:
    """While entered, Ctrl-C and SIGTERM set `asked` instead of ending the process."""

    def __init__(self) -> None:
        self.asked = False

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        self.asked = True

    def __enter__(self) -> None:
        self.old = {}
        if threading.current_thread() is threading.main_thread():
            self.old = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *_: object) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)
