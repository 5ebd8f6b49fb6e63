"""The ways on which the teacher paints, kept on disk: what its four-step student learns from (`diffusion.mini.distil`).

A chunk is `states-00000.npy` (N, 13, 6, 16, 16 half), the latents before, between and after the twelve steps, and `tokens-00000.npy` (N, 32 int32),
the prompts as the text encoder reads them. A chunk depends on the teacher, the seed and its number alone, and is renamed when it is whole.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import StableDiffusionPipeline
from tqdm import tqdm

from diffusion.mini.networks import TEACHER_GUIDANCE, TEACHER_STEPS
from diffusion.mini.renders import Chunks, save_array
from diffusion.mini.world import random_scenes

CHUNK = 200
_BATCH = 50


def make_trajectories(directory: Path, count: int, teacher: StableDiffusionPipeline, *, seed: int, accelerator: Accelerator) -> None:
    """Fill `directory` with at least `count` trajectories of scenes that are not held out; chunks that are there stay. Processes share the work."""
    directory.mkdir(parents=True, exist_ok=True)
    numbers = range(-(-count // CHUNK))
    mine = [number for number in numbers[accelerator.process_index :: accelerator.num_processes] if not _states(directory, number).exists()]
    for part in (teacher.unet, teacher.text_encoder):
        part.to(accelerator.device)
    for number in tqdm(mine, "teacher", unit="chunk", disable=not accelerator.is_main_process):
        rng = np.random.default_rng((seed, number))
        prompts = [prompt for _, prompt in itertools.islice(random_scenes(int(rng.integers(2**48)), held_out=False), CHUNK)]
        shape = (CHUNK, teacher.unet.config.in_channels, *[teacher.unet.config.sample_size] * 2)
        noise = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
        tokens = torch.tensor(teacher.tokenizer(prompts, padding="max_length", truncation=True).input_ids)
        parts = []
        for start in range(0, CHUNK, _BATCH):
            rows = slice(start, start + _BATCH)
            with accelerator.autocast():
                parts.append(trajectory(teacher, noise[rows].to(accelerator.device), tokens[rows].to(accelerator.device)).half().cpu())
        save_array(_tokens(directory, number), tokens.int().numpy())
        save_array(_states(directory, number), torch.cat(parts).numpy())  # last: its presence says that the chunk is whole
    accelerator.wait_for_everyone()


@torch.no_grad()
def trajectory(teacher: StableDiffusionPipeline, noise: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Paint as `teacher(prompts, num_inference_steps=12, guidance_scale=4.0)` does, and keep every state.

    The pipeline itself would round its latents to the precision that the UNet computes in, at every step.

    Args:
        noise: (B, C, h, w).
        tokens: (B, T) of the prompts.

    Returns:
        (B, 13, C, h, w): the noise, and what each step made of it.
    """
    no_prompt = torch.tensor(teacher.tokenizer("", padding="max_length").input_ids, device=tokens.device).expand_as(tokens)
    hidden = teacher.text_encoder(torch.cat([no_prompt, tokens])).last_hidden_state
    scheduler = type(teacher.scheduler).from_config(teacher.scheduler.config)  # it counts its steps
    scheduler.set_timesteps(TEACHER_STEPS, device=noise.device)
    states = [noise * scheduler.init_noise_sigma]
    for timestep in scheduler.timesteps:
        both = teacher.unet(states[-1].repeat(2, 1, 1, 1), timestep, encoder_hidden_states=hidden).sample.float()
        unguided, guided = both.chunk(2)
        states.append(scheduler.step(unguided + TEACHER_GUIDANCE * (guided - unguided), timestep, states[-1]).prev_sample)
    return torch.stack(states, dim=1)


def open_trajectories(directory: Path, count: int) -> tuple[Chunks, Chunks]:
    """The states and the tokens of the first `count` trajectories (rounded up to whole chunks)."""
    numbers = range(-(-count // CHUNK))
    return Chunks([_states(directory, number) for number in numbers]), Chunks([_tokens(directory, number) for number in numbers])


def _states(directory: Path, number: int) -> Path:
    return directory / f"states-{number:05d}.npy"


def _tokens(directory: Path, number: int) -> Path:
    return directory / f"tokens-{number:05d}.npy"
