"""What a pipeline usually takes: steps, guidance, precision."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from core.device import compute_precision, multiplies_in

# models distilled to few steps, most of them without classifier-free guidance, by the names that their makers gave them on the Hub
_DISTILLED = {"schnell": (4, 0.0), "lightning": (4, 0.0), "hyper": (8, 0.0), "turbo": (4, 0.0), "lcm": (8, 1.0), "distill": (8, 0.0)}
_LCM, _FEW, _GUIDED_FEW = (8, 1.0), (4, 0.0), (2, 1.0)
# diffusers says 50 for these; with a multistep solver more than 25 or 30 change little
_USUAL = {"StableDiffusionPipeline": (25, 7.5), "StableDiffusionXLPipeline": (30, 5.0)}
_FALLBACK = (30, 5.0)


def usual_sampling(pipeline: Any, name: str) -> tuple[int, float]:
    """(steps, guidance scale): of a distilled model as its own config shows it, or its name on the Hub, else as its class says. Where a directory
    lies says nothing of what is in it."""
    if (found := _distilled(pipeline)) is not None:
        return found
    owner, _, repository = name.partition("/")
    if owner and repository and "/" not in repository and not Path(name).exists():  # an id on the Hub
        words = repository.lower()
        if (named := next((sampling for word, sampling in _DISTILLED.items() if word in words), None)) is not None:
            return named
    kind = type(pipeline).__name__
    if kind in _USUAL:
        return _USUAL[kind]
    parameters = inspect.signature(type(pipeline).__call__).parameters
    steps, guidance = (_default(parameters, name) for name in ("num_inference_steps", "guidance_scale"))
    if guidance is None:
        guidance = _default(parameters, "true_cfg_scale")
    return (int(steps) if steps is not None else _FALLBACK[0], float(guidance) if guidance is not None else _FALLBACK[1])


def _distilled(pipeline: Any) -> tuple[int, float] | None:
    """By traits that only distilled models have: LCM's scheduler; a guidance embedding, of LCM's or, with DDIM's steps counted from the last, of
    those distilled progressively, as the embedded one; Flux without one; Euler's steps counted from the last, as SD-Turbo and SDXL-Lightning
    take them (models of v-prediction count so for another reason)."""
    scheduler, denoiser = pipeline.scheduler, getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
    settings, shape = getattr(scheduler, "config", {}), getattr(denoiser, "config", {})
    kind = type(scheduler).__name__
    trailing = settings.get("timestep_spacing") == "trailing"
    if kind == "LCMScheduler" or shape.get("time_cond_proj_dim") is not None:
        return _GUIDED_FEW if kind == "DDIMScheduler" and trailing else _LCM
    if type(pipeline).__name__.startswith("Flux") and shape.get("guidance_embeds") is False:
        return _FEW
    return _FEW if trailing and settings.get("prediction_type") == "epsilon" and kind.startswith("Euler") else None


def usual_dtype(parts: Mapping[str, Any], device: torch.device) -> torch.dtype:
    """The precision a family is usually run in.

    On GPUs float16 for UNets; bfloat16 for diffusion transformers (Flux, Sana, PixArt and their T5), whose activations go beyond float16's range,
    where the GPU has it. On CPUs bfloat16 where they multiply in it, else float32.

    Args:
        parts: a pipeline's model_index.json.
    """
    if device.type == "cpu":
        return compute_precision(device).dtype
    if "unet" not in parts and device.type == "cuda" and multiplies_in(torch.bfloat16, device):
        return torch.bfloat16
    return torch.float16


def _default(parameters: Any, name: str) -> float | None:
    value = parameters[name].default if name in parameters else None
    return value if isinstance(value, int | float) else None
