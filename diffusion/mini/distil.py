"""Distil the bundled Stable Diffusion to two passes of its UNet and a smaller decoder: store the trajectories of a teacher, then train the student.

    python -m diffusion.mini.distil --teacher runs/mini-four --teacher-steps 4      one process
    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 -m diffusion.mini.distil --compile     two: faster on 2 cores

The teacher is the pipeline of diffusion.mini.train, which samples in twelve guided steps, 24 passes, or a student of more steps. The new student
learns the velocity that takes one step over several of the teacher's, guidance included, and a decoder of half the products learns the
teacher's images. It may be stopped at any time; the same command goes on where it stopped. Neither renders nor a font are needed.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True, kw_only=True)
class DistilConfig:
    """How to distil the bundled Stable Diffusion."""

    teacher: Path = Path("runs/mini-teacher")
    """The pipeline of diffusion.mini.train, or a student of more steps. assets/mini-diffusion/README.md says how to have both."""
    teacher_steps: int = 12
    """Steps in which the teacher samples: a multiple of the student's two."""
    run_dir: Path = Path("runs/mini-distil")
    """Directory of trajectories, training state, sample sheets and TensorBoard logs."""
    out: Path = Path("assets/mini-diffusion")
    """Where the finished pipeline goes."""
    start_from: Path | None = None
    """Go on from this student's weights, for example runs/mini-student, instead of from the teacher's."""
    trajectories: int = 20_000
    """Images that the teacher generates for the student to learn from."""
    samples: int = 400_000
    """Steps of trajectories that the student sees."""
    decoder_samples: int = 80_000
    """Latents that the smaller decoder sees."""
    batch_size: int = 64
    """Over all processes."""
    learning_rate: float = 4e-4
    decay: float = 0.7
    """The last part of the run, in which the learning rate falls linearly to nothing."""
    save_minutes: float = 8.0
    """Time between two saves of the state, each with a sheet of samples."""
    compile: bool = False
    """Compile the UNet (torch.compile): a minute's wait, then faster on a CPU. Needs a C++ compiler."""
    seed: int = 0


if __name__ == "__main__":  # --help and a wrong option do not wait for the imports below, which take seconds
    CONFIG = tyro.cli(DistilConfig, description=__doc__)

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderTiny, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import nn
from tqdm import tqdm

from core.device import compute_precision
from diffusion.contact_sheet import contact_sheet
from diffusion.mini.begun import check_begun
from diffusion.mini.card import MODEL_CARD
from diffusion.mini.fit import FitConfig, InterruptedTrainingError, fit, start_accelerator
from diffusion.mini.networks import (
    STUDENT_STEPS,
    build_pipeline,
    build_student_scheduler,
    is_student,
    student_autoencoder_of,
    student_of,
)
from diffusion.mini.train import check_out, export_pipeline, image_loss, replace_pipeline
from diffusion.mini.trajectories import make_trajectories, open_trajectories
from diffusion.mini.world import random_scenes
from diffusion.pipelines import PipelineError, fingerprint

_OWN_SHARE, _NOISE_SHARE = 0.44, 0.44  # of a batch; see student_loss


def main(config: DistilConfig) -> None:
    check_out(config.out)
    if not (config.teacher / "model_index.json").is_file():
        raise ValueError(
            f"--teacher {config.teacher} is no pipeline to distil: assets/mini-diffusion/README.md says how to have the shipped model's teachers"
        )
    if config.teacher_steps <= STUDENT_STEPS or config.teacher_steps % STUDENT_STEPS:
        raise ValueError(f"--teacher-steps {config.teacher_steps} is no multiple of the student's {STUDENT_STEPS} steps")
    if config.start_from is not None and not is_student(config.start_from):
        raise ValueError(f"--start-from {config.start_from} holds no student; without the option the weights to begin with are the teacher's")
    accelerator = start_accelerator()
    teacher = StableDiffusionPipeline.from_pretrained(config.teacher, dtype=torch.float32, use_safetensors=True)
    teacher.set_progress_bar_config(disable=True)
    torch.manual_seed(config.seed)
    student = student_of(teacher.unet)
    if config.start_from is not None:
        begun = UNet2DConditionModel.from_pretrained(config.start_from / "unet", dtype=torch.float32, use_safetensors=True)
        try:
            student.load_state_dict(begun.state_dict())
        except RuntimeError as error:
            raise ValueError(f"--start-from {config.start_from} is of another shape than --teacher {config.teacher}") from error
    start_from = fingerprint(config.start_from) if config.start_from is not None else None
    now = {"start_from": start_from, "teacher": fingerprint(config.teacher), "seed": config.seed, "batch_size": config.batch_size}
    now["teacher_steps"] = config.teacher_steps
    config.run_dir.mkdir(parents=True, exist_ok=True)
    with accelerator.main_process_first():
        check_begun(config.run_dir, now)
    directory = config.run_dir / "trajectories"
    make_trajectories(directory, config.trajectories, teacher, steps=config.teacher_steps, seed=config.seed, accelerator=accelerator)
    states, tokens = open_trajectories(directory, config.trajectories)
    scheduler = build_student_scheduler()
    angles = angles_of(scheduler.alphas_cumprod).to(accelerator.device)
    reader = teacher.text_encoder.to(accelerator.device).requires_grad_(False)
    prompts = [prompt for _, prompt in itertools.islice(random_scenes(config.seed + 1, held_out=True), 32)]
    vae = _student_autoencoder(config, accelerator, teacher.vae, lambda rng, n: states[rng.integers(0, len(states), n)][:, -1])

    def draw_batch(rng: np.random.Generator, n: int) -> tuple[torch.Tensor, ...]:
        rows = rng.integers(0, min(len(states), config.trajectories), n)
        return torch.from_numpy(states[rows]).float(), torch.from_numpy(tokens[rows]).long()

    def loss_of(module: nn.Module, states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return student_loss(module, angles, states, reader(tokens).last_hidden_state)

    def export(module: nn.Module, step: int) -> None:
        whole = build_pipeline(vae, module, teacher.text_encoder, teacher.tokenizer, scheduler)
        export_pipeline(whole, config.run_dir / "pipeline", card=MODEL_CARD)
        dtype = compute_precision(accelerator.device).dtype
        pipeline = StableDiffusionPipeline.from_pretrained(config.run_dir / "pipeline", dtype=dtype).to(accelerator.device)
        pipeline.set_progress_bar_config(disable=True)
        images = pipeline(prompts, num_inference_steps=STUDENT_STEPS, generator=torch.Generator().manual_seed(0)).images
        (config.run_dir / "samples").mkdir(exist_ok=True)
        contact_sheet(images, prompts, columns=8, cell=128).save(config.run_dir / "samples" / f"{step * config.batch_size:09d}.png")

    student.train()
    student.set_attn_processor(AttnProcessor())  # the backward pass of SDPA is slow on a CPU
    if config.compile:
        student.compile(dynamic=False)  # in place: the weights keep their names
    fit_config = FitConfig(
        name="student",
        warmup_steps=50,
        samples=config.samples,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        decay=config.decay,
        ema_decay=0.998,
        save_minutes=config.save_minutes,
        seed=config.seed,
    )
    fit(student, draw_batch, loss_of, fit_config, accelerator=accelerator, directory=config.run_dir, on_save=export)
    if accelerator.is_main_process:
        replace_pipeline(config.out, config.run_dir / "pipeline")
        print(f"It is in {config.out}. Beside its teacher: python benchmarks/distilled.py --students {config.out} --teacher {config.teacher}")


def _student_autoencoder(
    config: DistilConfig, accelerator: Accelerator, teacher: AutoencoderTiny, draw_latents: Callable[[np.random.Generator, int], np.ndarray]
) -> AutoencoderTiny:
    """The teacher's encoder, and a smaller decoder that learns the teacher's images of the latents it ended with."""
    vae = student_autoencoder_of(teacher)
    finished = config.run_dir / "vae"
    if finished.exists():
        return AutoencoderTiny.from_pretrained(finished)
    decoder, target = vae.decoder, teacher.decoder.to(accelerator.device, memory_format=torch.channels_last).eval()
    decoder.to(memory_format=torch.channels_last).train()

    def draw_batch(rng: np.random.Generator, n: int) -> tuple[torch.Tensor]:
        latents = torch.from_numpy(draw_latents(rng, n)).float() / teacher.config.scaling_factor
        return (latents.contiguous(memory_format=torch.channels_last),)

    def loss_of(module: nn.Module, latents: torch.Tensor) -> torch.Tensor:
        latents = latents + 0.03 * torch.randn_like(latents)  # as far as the student's may be from the teacher's
        with torch.no_grad():
            images = target(latents).float()
        return image_loss(module(latents).float(), images)

    def report(module: nn.Module, step: int) -> None:
        (latents,) = draw_batch(np.random.default_rng(0), 256)
        with torch.no_grad():
            psnr = 10 * torch.log10(4 / (decoder(latents) - target(latents)).square().mean((1, 2, 3))).mean()
        tqdm.write(f"decoder after {step} steps: {psnr:.2f} dB from the teacher's images")

    fit_config = FitConfig(
        name="decoder",
        samples=config.decoder_samples,
        batch_size=config.batch_size,
        learning_rate=1e-3,
        warmup_steps=50,
        decay=0.7,
        ema_decay=0.998,
        save_minutes=config.save_minutes / 4,
        seed=config.seed,
    )
    fit(decoder, draw_batch, loss_of, fit_config, accelerator=accelerator, directory=config.run_dir, on_save=report)
    if accelerator.is_main_process:
        vae.to(memory_format=torch.contiguous_format).save_pretrained(finished.with_suffix(".tmp"))
        os.replace(finished.with_suffix(".tmp"), finished)
    accelerator.wait_for_everyone()
    return vae


def angles_of(signal_share: torch.Tensor) -> torch.Tensor:
    """(timesteps,) share of the signal in the variance -> (timesteps + 1,) angles, pi / 2 for noise alone: entry n where n timesteps are left."""
    return torch.cat([torch.ones(1), signal_share.float()]).sqrt().arccos()


def student_loss(unet: nn.Module, angles: torch.Tensor, states: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Squared error of the velocity that ends where the teacher was after its share of the steps.

    A step of DDIM turns: x_s = cos(d) x_t - sin(d) v with d = angle(t) - angle(s), where angle(t) = arccos(sqrt(a_t)) (Salimans and Ho, arXiv
    2202.00512, appendix D). So from any x_t the v that reaches the teacher's x_s is known. Under half of a batch starts where the student
    itself has got to from the teacher's noise, so that it learns to mend what it did (as DAgger, arXiv 1011.0686), as much from noise, and the
    rest from anywhere on the teacher's trajectory, so that more steps sample well too.

    Args:
        angles: (timesteps + 1,) of `angles_of`.
        states: (B, teacher's steps + 1, C, h, w) of `trajectory`.
        hidden: (B, T, D), the prompts as the text encoder reads them.
    """
    n, span, stride = len(states), (len(angles) - 1) // STUDENT_STEPS, (states.shape[1] - 1) // STUDENT_STEPS
    own, noise = int(n * _OWN_SHARE), int(n * _NOISE_SHARE)
    rows = torch.arange(n, device=states.device)
    segment = torch.where(rows < own, 1 + rows % (STUDENT_STEPS - 1), 0)
    segment[own + noise :] = torch.randint(0, STUDENT_STEPS, (n - own - noise,), device=states.device)
    goal = (STUDENT_STEPS - 1 - segment) * span
    left = goal + span
    start = states[:, 0].clone()
    start[:own] = own_states(unet, angles, states[:own, 0], hidden[:own], segment[:own])
    between = slice(own + noise, n)
    left[between] = goal[between] + torch.randint(1, span + 1, (n - own - noise,), device=states.device)
    start[between] = on_the_way(angles, states[between], left[between])
    turn = (angles[left] - angles[goal]).view(-1, 1, 1, 1)
    velocity = (turn.cos() * start - states[rows, (segment + 1) * stride]) / turn.sin()
    return (_velocity(unet, start, left, hidden) - velocity).square().mean()


def on_the_way(angles: torch.Tensor, states: torch.Tensor, left: torch.Tensor) -> torch.Tensor:
    """The states with so many timesteps left: between two of the teacher's the arc that one step of DDIM takes.

    Args:
        angles: (timesteps + 1,).
        states: (B, teacher's steps + 1, C, h, w).
        left: (B,), 1 or more.

    Returns:
        (B, C, h, w).
    """
    known = torch.linspace(len(angles) - 1, 0, states.shape[1], device=left.device, dtype=torch.float64).round().long()
    after = (known[None] >= left[:, None]).sum(1)  # the first of the teacher's states with fewer left
    rows = torch.arange(len(left), device=left.device)
    first, second, here = angles[known[after - 1]], angles[known[after]], angles[left]
    one, other = ((part.sin() / (first - second).sin()).view(-1, 1, 1, 1) for part in (here - second, first - here))
    return one * states[rows, after - 1] + other * states[rows, after]


@torch.no_grad()
def own_states(unet: nn.Module, angles: torch.Tensor, noise: torch.Tensor, hidden: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """Where the student gets to from `noise`, in `steps` (B,) of its steps, fewer than all of them."""
    span = (len(angles) - 1) // STUDENT_STEPS
    states = noise.clone()
    for step in range(STUDENT_STEPS - 1):
        going = steps > step
        left = torch.full_like(steps[going], (STUDENT_STEPS - step) * span)
        turn = (angles[left] - angles[left - span]).view(-1, 1, 1, 1)
        states[going] = turn.cos() * states[going] - turn.sin() * _velocity(unet, states[going], left, hidden[going])
    return states


def _velocity(unet: nn.Module, states: torch.Tensor, left: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    return unet(states, left - 1, encoder_hidden_states=hidden).sample.float()


if __name__ == "__main__":
    try:
        main(CONFIG)
    except (InterruptedTrainingError, OSError, PipelineError, ValueError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("\nstopped; what was painted stays, and the same command goes on")
