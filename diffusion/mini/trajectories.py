"""The trajectories of a teacher, kept on disk: what its two-step student learns from (`diffusion.mini.distil`).

A chunk is `states-00000.npy` (N, steps + 1, 6, 16, 16 half), the latents before, between and after the teacher's steps, and
`tokens-00000.npy` (N, 32 int32), the prompts as the text encoder reads them. A chunk depends on the teacher, the seed and its number alone, and is
renamed when it is whole.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import StableDiffusionPipeline
from tqdm import tqdm

from diffusion.mini.networks import TEACHER_GUIDANCE
from diffusion.mini.renders import Chunks, save_array
from diffusion.mini.world import random_scenes

CHUNK = 200
_BATCH = 50


def make_trajectories(directory: Path, count: int, teacher: StableDiffusionPipeline, *, steps: int, seed: int, accelerator: Accelerator) -> None:
    """Fill `directory` with at least `count` trajectories of `steps` steps, of scenes that are not held out; chunks that are there stay. Processes
    share the work."""
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
                parts.append(trajectory(teacher, noise[rows].to(accelerator.device), tokens[rows].to(accelerator.device), steps).half().cpu())
        save_array(_tokens(directory, number), tokens.int().numpy())
        save_array(_states(directory, number), torch.cat(parts).numpy())  # last: its presence says that the chunk is whole
    accelerator.wait_for_everyone()


@torch.no_grad()
def trajectory(teacher: StableDiffusionPipeline, noise: torch.Tensor, tokens: torch.Tensor, steps: int) -> torch.Tensor:
    """Sample as `teacher(prompts, num_inference_steps=steps, guidance_scale=4.0)` does, and keep every state. A teacher that is a student itself
    is not guided.

    The pipeline itself would round its latents to the precision that the UNet computes in, at every step.

    Args:
        noise: (B, C, h, w).
        tokens: (B, T) of the prompts.

    Returns:
        (B, steps + 1, C, h, w): the noise, and what each step made of it.
    """
    guided = teacher.unet.config.time_cond_proj_dim is None
    no_prompt = torch.tensor(teacher.tokenizer("", padding="max_length").input_ids, device=tokens.device).expand_as(tokens)
    hidden = teacher.text_encoder(torch.cat([no_prompt, tokens]) if guided else tokens).last_hidden_state
    scheduler = type(teacher.scheduler).from_config(teacher.scheduler.config)  # it counts its steps
    scheduler.set_timesteps(steps, device=noise.device)
    states = [noise * scheduler.init_noise_sigma]
    for timestep in scheduler.timesteps:
        velocity = teacher.unet(states[-1].repeat(1 + guided, 1, 1, 1), timestep, encoder_hidden_states=hidden).sample.float()
        if guided:
            without, with_prompt = velocity.chunk(2)
            velocity = without + TEACHER_GUIDANCE * (with_prompt - without)
        states.append(scheduler.step(velocity, timestep, states[-1]).prev_sample)
    return torch.stack(states, dim=1)


def open_trajectories(directory: Path, count: int) -> tuple[Chunks, Chunks]:
    """The states and the tokens of the first `count` trajectories (rounded up to whole chunks)."""
    numbers = range(-(-count // CHUNK))
    return Chunks([_states(directory, number) for number in numbers]), Chunks([_tokens(directory, number) for number in numbers])


def _states(directory: Path, number: int) -> Path:
    return directory / f"states-{number:05d}.npy"


def _tokens(directory: Path, number: int) -> Path:
    return directory / f"tokens-{number:05d}.npy"
