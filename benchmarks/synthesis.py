"""Rendering pairs: images a second of generate_data.py's loop beside the plain loop of the diffusers documentation, one prompt a call.

    python benchmarks/synthesis.py
    python benchmarks/synthesis.py --model stabilityai/stable-diffusion-2-base --batches 4 16 --compile --json synthesis.json

Both use the same pipeline, steps and guidance; ours makes a batch at once, with a noise of its own for each image, and writes PNGs into a shard.
The plain loop saves a PNG for each image.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from rounds import median_seconds, report

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data.store.writer import ShardWriter
from diffusion.families import usual_sampling
from diffusion.mini import MINI
from diffusion.mini.world import random_scenes
from diffusion.pipelines import Failure, compile_denoiser, default_device, load_pipeline, synthesize


@dataclass(frozen=True, kw_only=True)
class SynthesisConfig:
    """What to compare."""

    model: str = MINI
    images: int = 64
    """In a round."""
    batches: tuple[int, ...] = (1, 8, 32)
    rounds: int = 3
    compile: bool = False
    """Compile the denoiser for ours."""
    ablate: bool = False
    """Measure the last batch size once more with the memory formats of UNet and VAE the other way round, and once with VAE slicing so."""
    json: Path | None = None


def main(config: SynthesisConfig) -> None:
    device = default_device()
    plain = load_pipeline(config.model, device=device, dtype=torch.float32 if device.type == "cpu" else None)
    ours = load_pipeline(config.model, device=device)
    if config.compile:
        compile_denoiser(ours)
    steps, guidance = usual_sampling(ours, config.model)
    prompts = [prompt for _, prompt in itertools.islice(random_scenes(5, held_out=False), config.images)]
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)

        def one_by_one(pipeline: object) -> None:
            for i, prompt in enumerate(prompts):
                generator = torch.Generator("cpu").manual_seed(i)
                pipeline(prompt, num_inference_steps=steps, guidance_scale=guidance, generator=generator).images[0].save(place / f"{i}.png")  # type: ignore[operator]

        def batched(size: int) -> None:
            with ShardWriter(place / f"shard {time.perf_counter_ns()}", 0) as writer:
                for start in range(0, len(prompts), size):
                    part = prompts[start : start + size]
                    seeds = range(start, start + len(part))
                    for i, image in enumerate(synthesize(ours, part, seeds, steps=steps, guidance_scale=guidance)):
                        if not isinstance(image, Failure):
                            writer.add(f"{start + i:09d}", image, {"prompt": part[i]})

        functions: dict[str, Callable[[], None]] = {f"one prompt a call, {_name(plain.dtype)}": lambda: one_by_one(plain)}
        if ours.dtype != plain.dtype:
            functions[f"one prompt a call, {_name(ours.dtype)}"] = lambda: one_by_one(ours)
        kind = f"{_name(ours.dtype)}{', compiled' if config.compile else ''}"
        for size in config.batches:
            functions[f"generate_data.py, batch {size}, {kind}"] = lambda size=size: batched(size)
        if config.ablate:
            last, on_gpu = config.batches[-1], device.type != "cpu"
            contiguous, channels_last = torch.contiguous_format, torch.channels_last

            def largest(before: Callable[[], Any], after: Callable[[], Any]) -> Callable[[], None]:
                def changed() -> None:
                    before()
                    batched(last)
                    after()

                return changed

            if hasattr(ours, "unet"):
                usual, other = (channels_last, contiguous) if on_gpu else (contiguous, channels_last)
                name = f"batch {last}, UNet {'contiguous' if on_gpu else 'channels-last'}"
                functions[name] = largest(lambda: ours.unet.to(memory_format=other), lambda: ours.unet.to(memory_format=usual))
            vae = ours.vae
            functions[f"batch {last}, VAE contiguous"] = largest(
                lambda: vae.to(memory_format=contiguous), lambda: vae.to(memory_format=channels_last)
            )
            if on_gpu:
                functions[f"batch {last}, without VAE slicing"] = largest(vae.disable_slicing, vae.enable_slicing)
            else:
                functions[f"batch {last}, with VAE slicing"] = largest(vae.enable_slicing, vae.disable_slicing)
        seconds = median_seconds(functions, rounds=config.rounds, device=device)
    first = next(iter(seconds.values()))
    rows = [{"loop": name, "images/s": config.images / value, "ratio": first / value} for name, value in seconds.items()]
    report(
        f"{config.model}, {steps} steps, guidance {guidance:g}, {config.images} images, medians of {config.rounds} rounds", rows, device, config.json
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


if __name__ == "__main__":
    main(tyro.cli(SynthesisConfig, description=__doc__))
