"""Make a data set: render prompts with a diffusion model and keep images and prompts as shards of pairs.

Examples:
    python generate_data.py                                             7,000 pairs of the embedded world
    python generate_data.py --out datasets/large --num-images 20000
    python generate_data.py --prompts prompts.txt --out datasets/mine --model stabilityai/stable-diffusion-2-base
    accelerate launch generate_data.py --out datasets/large --num-images 20000      several GPUs, each with shards of its own

It can be stopped at any time; the same command goes on with the shards that are missing.
"""

from __future__ import annotations

import hashlib
import itertools
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from accelerate import PartialState
from tqdm import tqdm

from data.plan import PlannedPair, PlannedShard, plan_shards
from data.prompts import PromptError, PromptRecord, read_prompt_file
from data.shards import DATASET_FILE, ShardError, ShardWriter, read_json, write_json
from data.splits import SPLIT_RULE, SPLITS
from diffusion.mini.world import random_scenes
from diffusion.pipelines import MINI, PipelineError, compile_denoiser, default_device, default_dtype, load_pipeline, synthesize

DEFAULT_IMAGES = 7000
MINI_STEPS, MINI_GUIDANCE = 12, 4.0  # the embedded model: 20 steps gave pictures that look the same
USUAL_STEPS, USUAL_GUIDANCE = 25, 7.5


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """What to render, with what, and where to put it."""

    out: Path = Path("datasets/mini")
    """The data set directory; a finished one is left as it is."""
    num_images: int | None = None
    """How many images (default: one for each line of --prompts, or 7,000 of the embedded world). More images than prompts go through
    the prompts again with other seeds."""
    prompts: Path | None = None
    """A text file with one prompt a line; without it the embedded world's grammar invents them."""
    model: str = MINI
    """"mini" (the embedded diffusion model), a diffusers pipeline directory, or a Hub id."""
    steps: int | None = None
    """Denoising steps of the pipeline's own scheduler (default: 12 for the embedded model, 25 for others)."""
    guidance: float | None = None
    """Classifier-free guidance scale (default: 4 for the embedded model, 7.5 for others)."""
    batch_size: int = 32
    """Images made at once. It does not change them."""
    shard_size: int = 500
    """Pairs in a shard. An interruption costs at most the shard being made."""
    seed: int = 0
    """Decides the seeds of all images and the embedded world's prompts."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    compile: bool = False
    """Compile the denoiser with torch.compile: a wait at the beginning, faster images after it. Needs a C++ compiler on a CPU."""

    @property
    def denoising_steps(self) -> int:
        return self.steps if self.steps is not None else MINI_STEPS if self.model == MINI else USUAL_STEPS

    @property
    def guidance_scale(self) -> float:
        return self.guidance if self.guidance is not None else MINI_GUIDANCE if self.model == MINI else USUAL_GUIDANCE


def main(config: GenerateConfig) -> None:
    if config.batch_size < 1 or config.denoising_steps < 1:
        raise ValueError("--batch-size and --steps must be 1 or more")
    records = _records(config)
    num_images = config.num_images or (DEFAULT_IMAGES if config.prompts is None else len(records))
    shards = plan_shards(records, num_images=num_images, seed=config.seed, shard_size=config.shard_size)
    missing = [shard for shard in shards if not ShardWriter(config.out / shard.split, shard.number).is_done]
    _check_directory(config, num_images)
    device = default_device()
    processes = PartialState(cpu=device.type == "cpu", timeout=timedelta(days=1))  # the first to be done waits for the last
    if missing:
        dtype = default_dtype(device) if config.dtype == "auto" else getattr(torch, config.dtype)
        pipeline = load_pipeline(config.model, device=device, dtype=dtype)
        if config.compile:
            compile_denoiser(pipeline)
        processes.wait_for_everyone()  # nobody looks for dataset.json any more
        if processes.is_main_process:
            write_json(config.out / DATASET_FILE, _describe(config, num_images, shards, pipeline))
        own = missing[processes.process_index :: processes.num_processes]
        failures = _render(config, pipeline, own, done=sum(len(shard.pairs) for shard in shards) - sum(len(shard.pairs) for shard in missing))
        if failures:
            print(f"{failures} images could not be made; the parquet files say which and why.", file=sys.stderr)
    processes.wait_for_everyone()
    if not processes.is_main_process:
        return
    counts = Counter({shard.split: 0 for shard in shards})
    for shard in shards:
        counts[shard.split] += len(shard.pairs)
    print(f"{config.out}: {num_images} pairs (" + ", ".join(f"{split} {counts[split]}" for split in SPLITS) + ")")
    print(f"Next: python train.py --data {config.out}")


def _records(config: GenerateConfig) -> Sequence[PromptRecord]:
    if config.prompts is not None:
        return read_prompt_file(config.prompts)
    scenes = itertools.islice(random_scenes(config.seed, held_out=False), config.num_images or DEFAULT_IMAGES)
    return [PromptRecord(prompt=prompt, group=scene.key, slots=scene.slots()) for scene, prompt in scenes]


def _settings(config: GenerateConfig, num_images: int) -> dict[str, Any]:
    """What decides the pairs; a directory is only continued with the same."""
    source = MINI if config.prompts is None else f"{config.prompts.name} sha256:{hashlib.sha256(config.prompts.read_bytes()).hexdigest()[:16]}"
    return {
        "model": config.model,
        "prompts": source,
        "num_images": num_images,
        "steps": config.denoising_steps,
        "guidance_scale": config.guidance_scale,
        "seed": config.seed,
        "shard_size": config.shard_size,
    }


def _check_directory(config: GenerateConfig, num_images: int) -> None:
    if config.out.is_file():
        raise ShardError(f"--out {config.out} is a file; name a directory")
    known = config.out / DATASET_FILE
    if not known.exists():
        if config.out.is_dir() and any(config.out.iterdir()):
            raise ShardError(f"--out {config.out} holds other things and no {DATASET_FILE}; name a new or empty directory")
        return
    before, now = read_json(known).get("settings", {}), _settings(config, num_images)
    differing = [f"{name}: {before.get(name)!r} there, {now[name]!r} now" for name in now if before.get(name) != now[name]]
    if differing:
        raise ShardError(f"{config.out} was begun with other settings ({'; '.join(differing)}). Name another --out, or the same settings to go on")


def _describe(config: GenerateConfig, num_images: int, shards: Sequence[PlannedShard], pipeline: Any) -> dict[str, Any]:
    counts = {split: sum(len(shard.pairs) for shard in shards if shard.split == split) for split in SPLITS}
    return {
        "generator": type(pipeline).__name__,
        "scheduler": type(pipeline.scheduler).__name__,
        "settings": _settings(config, num_images),
        "counts": counts,
        "split_rule": SPLIT_RULE,
        "arguments": sys.argv[1:],
    }


def _render(config: GenerateConfig, pipeline: Any, shards: Sequence[PlannedShard], *, done: int) -> int:
    """Make these shards, after `done` images that were there before; returns how many images failed."""
    failures = 0
    with tqdm(total=done + sum(len(shard.pairs) for shard in shards), initial=done, unit="image", desc="rendering") as progress:
        for shard in shards:
            with ShardWriter(config.out / shard.split, shard.number) as writer:
                for start in range(0, len(shard.pairs), config.batch_size):
                    batch = shard.pairs[start : start + config.batch_size]
                    prompts, seeds = [pair.record.prompt for pair in batch], [pair.seed for pair in batch]
                    images = synthesize(pipeline, prompts, seeds, steps=config.denoising_steps, guidance_scale=config.guidance_scale)
                    for pair, image in zip(batch, images, strict=True):
                        if image is None:
                            failures += 1
                            writer.add_failure(pair.key, _metadata(config, pair, pipeline, (0, 0)), "the pipeline gave values that are not finite")
                        else:
                            writer.add(pair.key, image, _metadata(config, pair, pipeline, image.size))
                    progress.update(len(batch))
    return failures


def _metadata(config: GenerateConfig, pair: PlannedPair, pipeline: Any, size: tuple[int, int]) -> dict[str, Any]:
    return {
        "prompt": pair.record.prompt,
        "negative_prompt": "",
        "seed": pair.seed,
        "steps": config.denoising_steps,
        "guidance_scale": config.guidance_scale,
        "sampler": type(pipeline.scheduler).__name__,
        "width": size[0],
        "height": size[1],
        "model": config.model,
        "revision": None,
        "prompt_group": pair.record.group,
        "slots": dict(pair.record.slots),
    }


if __name__ == "__main__":
    try:
        main(tyro.cli(GenerateConfig, description=__doc__))
    except (OSError, PipelineError, PromptError, ShardError, ValueError) as error:
        sys.exit(f"generate_data.py: {error}")
    except KeyboardInterrupt:
        sys.exit("\ngenerate_data.py: stopped. The finished shards are kept; run the same command to go on.")
