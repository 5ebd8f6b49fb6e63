"""Loading and running text-to-image pipelines of diffusers: the embedded one, a directory, or a Hub id."""

from __future__ import annotations

import hashlib
import inspect
import json
import shutil
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError

from diffusion.families import usual_dtype
from diffusion.mini import MINI, MINI_DIRECTORY

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

INDEX_FILE = "model_index.json"

# short names that people know, beside the class names of diffusers
SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-a": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "lcm": "LCMScheduler",
    "pndm": "PNDMScheduler",
    "unipc": "UniPCMultistepScheduler",
}


class PipelineError(RuntimeError):
    """A pipeline that cannot be loaded or used; says what to do."""


SAFETY_CHECKER = "safety checker"


@dataclass(frozen=True)
class Failure:
    """An image that could not be made. `kind` is the reason in few words, for counting."""

    kind: str
    message: str


def load_pipeline(model: str, *, device: torch.device, dtype: torch.dtype | None = None) -> DiffusionPipeline:
    """Load the embedded pipeline (`"mini"`), a pipeline directory or a Hub id such as `stabilityai/stable-diffusion-2-base`.

    Only safetensors weights are loaded. Without a `dtype` it is what the family is usually run in (`diffusion.families.usual_dtype`).

    Raises:
        PipelineError: diffusers is not installed, no such model, or no network to fetch it.
    """
    try:
        from diffusers import AutoPipelineForText2Image
        from diffusers.utils import logging
        from huggingface_hub import hf_hub_download
        from transformers.utils import logging as transformers_logging
    except ImportError as error:
        raise PipelineError(f"making images needs the extra 'generate' ({error}): pip install -e '.[generate]'") from error
    for library in (logging, transformers_logging):  # their bars and notices on loading say nothing a user could act on
        library.disable_progress_bar()
        library.set_verbosity_error()
    source = str(MINI_DIRECTORY) if model == MINI else model
    if Path(source).exists() and not (Path(source) / INDEX_FILE).is_file():
        raise PipelineError(f"{source} is not a diffusers pipeline: it has no {INDEX_FILE}")
    try:
        index = Path(source) / INDEX_FILE if Path(source).is_dir() else Path(hf_hub_download(source, INDEX_FILE))
        parts = json.loads(index.read_text(encoding="utf-8"))
        dtype = dtype or usual_dtype(parts, device)
        pipeline = AutoPipelineForText2Image.from_pretrained(source, dtype=dtype, use_safetensors=True, **_left_out(parts))
    except (OSError, ValueError) as error:
        raise PipelineError(
            f"the model {model!r} could not be loaded: {_first_line(error)}\n"
            "Give a directory that holds model_index.json, or a Hub id while there is a network "
            "(downloads are kept, so a second run works without one). Weights must be safetensors."
        ) from error
    pipeline = pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    unet: Any = getattr(pipeline, "unet", None)
    vae: Any = getattr(pipeline, "vae", None)
    if unet is not None and device.type != "cpu":  # on a CPU the embedded UNet is 5 to 8 % slower so in bfloat16
        unet.to(memory_format=torch.channels_last)
    if unet is not None and vae is not None:
        vae.to(memory_format=torch.channels_last)
    if device.type != "cpu" and hasattr(vae, "enable_slicing"):  # decoding a batch at once would take more memory than all its steps
        vae.enable_slicing()
    return pipeline


@cache
def model_revision(model: str) -> str | None:
    """The commit of a model of the Hub as it was downloaded; what the embedded one's weights are known by; None for a directory."""
    if model == MINI:
        return fingerprint(MINI_DIRECTORY)
    if Path(model).exists():
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model, INDEX_FILE)
    return Path(found).parent.name if isinstance(found, str) else None


def fingerprint(directory: Path) -> str:
    """By which the weights of a pipeline are known again.

    Raises:
        PipelineError: there are none.
    """
    digest = hashlib.sha256()
    if not (paths := sorted(directory.glob("*/*.safetensors"))):
        raise PipelineError(f"{directory} holds no weights (.safetensors)")
    for path in paths:
        digest.update(path.read_bytes())
    return f"sha256:{digest.hexdigest()[:16]}"


def _left_out(parts: Mapping[str, Any]) -> dict[str, None]:
    """Parts that a pipeline was saved without, such as Stable Diffusion 3's third text encoder, which diffusers wants to be told of."""
    return {name: None for name, kind in parts.items() if kind == [None, None]}


def use_scheduler(pipeline: DiffusionPipeline, name: str) -> None:
    """Sample with another of diffusers' schedulers, by its class or its short name (`SCHEDULERS`), with the settings of the one before.

    Raises:
        PipelineError: no such scheduler, or one that does not fit the pipeline.
    """
    import diffusers

    kind = getattr(diffusers, SCHEDULERS.get(name, name), None)
    if kind is None or not hasattr(kind, "from_config") or "Scheduler" not in SCHEDULERS.get(name, name):
        raise PipelineError(f"no scheduler {name!r}; take one of {', '.join(SCHEDULERS)}, or a class of diffusers such as EulerDiscreteScheduler")
    if kind.__name__ == "DPMSolverSDEScheduler":
        raise PipelineError(f"{kind.__name__} draws its noise from no seed of ours, so that an image could not be made again; take dpm++ or euler-a")
    before = type(pipeline.scheduler).__name__
    if "FlowMatch" in before and "FlowMatch" not in kind.__name__:
        raise PipelineError(f"{type(pipeline).__name__} samples a flow ({before}); {kind.__name__} does not. Leave --scheduler out")
    try:
        pipeline.scheduler = kind.from_config(pipeline.scheduler.config)
    except (ImportError, ValueError, TypeError) as error:
        raise PipelineError(f"the scheduler {name!r} cannot be used here: {_first_line(error)}") from error


def add_lora(pipeline: DiffusionPipeline, lora: str, weight: float) -> None:
    """Add a LoRA, a file, a directory or a Hub id, at a weight (1: as it was trained).

    Raises:
        PipelineError: it cannot be loaded, or does not fit the pipeline.
    """
    if not hasattr(pipeline, "load_lora_weights"):
        raise PipelineError(f"{type(pipeline).__name__} takes no LoRA")
    path = Path(lora)
    place = {"weight_name": path.name} if path.is_file() else {}
    try:
        pipeline.load_lora_weights(str(path.parent) if path.is_file() else lora, adapter_name="lora", use_safetensors=True, **place)
        pipeline.set_adapters(["lora"], [weight])
    except ImportError as error:
        raise PipelineError(f"a LoRA needs the extra 'generate' ({_first_line(error)}): pip install -e '.[generate]'") from error
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise PipelineError(f"the LoRA {lora!r} could not be loaded: {_first_line(error)}") from error


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


@dataclass
class MemoryLimit:
    """How many images are made at once: as many as are asked for, until the memory does not suffice for so many."""

    images: int = sys.maxsize


def synthesize(
    pipeline: DiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int,
    guidance_scale: float,
    negative_prompt: str = "",
    size: tuple[int, int] | None = None,
    limit: MemoryLimit | None = None,
) -> list[Image.Image | Failure]:
    """One image for each prompt and seed, all in one batch; a `Failure` where the pipeline gave no picture.

    Each image draws its noise from a CPU generator of its own, so that it does not depend on the batch it is made in
    (beyond floating-point noise) nor on the device. A batch for which the memory does not suffice is divided.

    Args:
        size: width and height in pixels; None is the pipeline's own.
        limit: is lowered where the memory does not suffice, so that the next call need not fail again.

    Raises:
        PipelineError: the pipeline cannot do what is asked.
    """
    limit = limit or MemoryLimit()
    if len(prompts) > limit.images:
        options: dict[str, Any] = {"steps": steps, "guidance_scale": guidance_scale, "negative_prompt": negative_prompt, "size": size}
        parts = [slice(start, start + limit.images) for start in range(0, len(prompts), limit.images)]
        return [image for part in parts for image in synthesize(pipeline, prompts[part], seeds[part], limit=limit, **options)]
    parameters = inspect.signature(type(pipeline).__call__).parameters
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    guidance = "true_cfg_scale" if "true_cfg_scale" in parameters and parameters["guidance_scale"].default is None else "guidance_scale"
    arguments: dict[str, Any] = {"num_inference_steps": steps, guidance: guidance_scale, "generator": generators}
    if negative_prompt:
        if getattr(getattr(pipeline, "unet", None), "config", {}).get("time_cond_proj_dim") is not None:  # diffusers would say nothing
            raise PipelineError("this model paints without a second pass, so that a negative prompt changes nothing; leave --negative-prompt out")
        if "negative_prompt" not in parameters:
            raise PipelineError(f"{type(pipeline).__name__} takes no negative prompt; leave --negative-prompt out")
        arguments["negative_prompt"] = [negative_prompt] * len(prompts)
    if size is not None:
        arguments |= {"width": size[0], "height": size[1]}
    try:
        with torch.inference_mode():
            output = pipeline(prompt=list(prompts), output_type="np", **arguments)
    except (MemoryError, RuntimeError) as error:
        if not _is_memory_error(error):
            raise PipelineError(f"{type(pipeline).__name__} failed: {_first_line(error)}") from error
        message = _first_line(error)
    except (TypeError, ValueError) as error:
        raise PipelineError(f"{type(pipeline).__name__} cannot do this: {_first_line(error)}") from error
    else:
        unsafe = getattr(output, "nsfw_content_detected", None) or [False] * len(prompts)
        return [_picture(array, bool(flagged)) for array, flagged in zip(output.images, unsafe, strict=True)]
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(prompts) == 1:
        return [Failure("out of memory", message)]
    limit.images = len(prompts) // 2
    return synthesize(pipeline, prompts, seeds, steps=steps, guidance_scale=guidance_scale, negative_prompt=negative_prompt, size=size, limit=limit)


def _picture(array: np.ndarray, flagged: bool) -> Image.Image | Failure:
    if flagged:
        return Failure(SAFETY_CHECKER, "the pipeline's safety checker blackened the image")
    if not np.isfinite(array).all():
        return Failure("not finite", "the pipeline gave values that are not finite")
    return Image.fromarray((array * 255).round().astype(np.uint8))


def _is_memory_error(error: Exception) -> bool:
    text = str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "out of memory" in text or "can't allocate memory" in text


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
