"""Loading and running text-to-image pipelines of diffusers: the embedded one, a directory, or a Hub id."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

MINI = "mini"
MINI_DIRECTORY = Path(__file__).resolve().parents[1] / "assets" / "mini-diffusion"


class PipelineError(RuntimeError):
    """A pipeline that cannot be loaded; says what to do."""


def load_pipeline(model: str, *, device: torch.device, dtype: torch.dtype) -> DiffusionPipeline:
    """Load the embedded pipeline (`"mini"`), a pipeline directory or a Hub id such as `stabilityai/stable-diffusion-2-base`.

    Only safetensors weights are loaded.

    Raises:
        PipelineError: diffusers is not installed, no such model, or no network to fetch it.
    """
    try:
        from diffusers import AutoPipelineForText2Image
        from diffusers.utils import logging
        from transformers.utils import logging as transformers_logging
    except ImportError as error:
        raise PipelineError(f"making images needs the extra 'generate' ({error}): pip install -e '.[generate]'") from error
    for library in (logging, transformers_logging):  # their bars and notices on loading say nothing a user could act on
        library.disable_progress_bar()
        library.set_verbosity_error()
    source = str(MINI_DIRECTORY) if model == MINI else model
    if Path(source).exists() and not (Path(source) / "model_index.json").is_file():
        raise PipelineError(f"{source} is not a diffusers pipeline: it has no model_index.json")
    try:
        pipeline = AutoPipelineForText2Image.from_pretrained(source, dtype=dtype, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise PipelineError(
            f"the model {model!r} could not be loaded: {_first_line(error)}\n"
            "Give a directory that holds model_index.json, or a Hub id while there is a network "
            "(downloads are kept, so a second run works without one). Weights must be safetensors."
        ) from error
    pipeline = pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    if device.type == "cpu" and hasattr(pipeline, "unet"):
        pipeline.unet.to(memory_format=torch.channels_last)
        pipeline.vae.to(memory_format=torch.channels_last)
    return pipeline


def compile_denoiser(pipeline: DiffusionPipeline) -> None:
    """Compile the part that runs at every step, a UNet or a transformer, with torch.compile.

    Raises:
        PipelineError: neither is there, or no C++ compiler on a CPU.
    """
    if pipeline.device.type == "cpu" and not (shutil.which("g++") or shutil.which("clang++") or shutil.which("cl")):
        raise PipelineError(
            "--compile needs a C++ compiler on a CPU, such as g++ (Debian and Ubuntu: apt install g++); leave it out to go on without"
        )
    denoiser = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
    if denoiser is None:
        raise PipelineError(f"{type(pipeline).__name__} has neither a UNet nor a transformer to compile; leave --compile out")
    warnings.filterwarnings("ignore", message="Dynamo detected a call to a `functools.lru_cache`")  # of diffusers, and harmless
    denoiser.compile(dynamic=False)  # a shard has two sizes of batch at most: one kernel each is faster than one for all


def default_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def default_dtype(device: torch.device) -> torch.dtype:
    """Half precision where the hardware multiplies in it: float16 on GPUs, bfloat16 on CPUs that have it, else float32."""
    if device.type != "cpu":
        return torch.float16
    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


def synthesize(
    pipeline: DiffusionPipeline, prompts: Sequence[str], seeds: Sequence[int], *, steps: int, guidance_scale: float
) -> list[Image.Image | None]:
    """One image for each prompt and seed, all in one batch; None where the pipeline gave no finite image.

    Each image draws its noise from a CPU generator of its own, so that it does not depend on the batch it is made in
    (beyond floating-point noise) nor on the device.
    """
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    arguments: dict[str, Any] = {"num_inference_steps": steps, "guidance_scale": guidance_scale, "generator": generators}
    with torch.inference_mode():
        arrays = pipeline(prompt=list(prompts), output_type="np", **arguments).images
    return [Image.fromarray((array * 255).round().astype(np.uint8)) if np.isfinite(array).all() else None for array in arrays]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
