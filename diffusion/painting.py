"""What paints prompts: any pipeline of diffusers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import torch
from PIL import Image

from diffusion.families import usual_sampling
from diffusion.pipelines import SAFETY_CHECKER, Failure, PipelineError, load_pipeline, synthesize

Render = Callable[[Sequence[str], Sequence[int]], list[Image.Image]]  # prompts and seeds -> pictures

_BLACK = (64, 64)  # pixels of a picture that a safety checker blackened


def painting_with(model: str, device: torch.device) -> tuple[Render, str]:
    """What paints prompts with a diffusion model, and its name. A picture that its safety checker blackens is black; one that fails for another
    reason is a PipelineError."""
    pipeline = load_pipeline(model, device=device)
    steps, guidance_scale = usual_sampling(pipeline, model)

    def render(prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        made = synthesize(pipeline, prompts, seeds, steps=steps, guidance_scale=guidance_scale)
        failures = [one for one in made if isinstance(one, Failure)]
        black = [one for one in failures if one.kind == SAFETY_CHECKER]  # which are pictures all the same
        lost = [one for one in failures if one.kind != SAFETY_CHECKER]
        if lost:
            raise PipelineError(f"{len(lost)} of {len(prompts)} pictures could not be painted: {lost[0].message}")
        if black:
            print(f"{len(black)} of {len(prompts)} pictures are black: {black[0].message}", file=sys.stderr)
        return [Image.new("RGB", _BLACK) if isinstance(one, Failure) else one for one in made]

    return render, f"{model} in {steps} steps"
