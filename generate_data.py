"""Make a data set: render prompts with a diffusion model and keep images and prompts as shards of pairs.

Examples:
    python generate_data.py                                             7,000 pairs of the embedded world
    python generate_data.py --out datasets/large --num-images 20000
    python generate_data.py --prompts prompts.txt --out datasets/mine --model stabilityai/stable-diffusion-2-base
    python generate_data.py --prompts titles.csv --prompt-column title --model stabilityai/sdxl-turbo --out datasets/mine
    python generate_data.py --prompts prompts.txt --images-per-prompt 3 --steps 20 30 --guidance 5 7.5 9 --scheduler euler-a --out datasets/mine
    python generate_data.py --out datasets/mine --only 000000042        one image again, compared with the one in its shard
    accelerate launch generate_data.py --out datasets/large --num-images 20000      several GPUs, each with shards of its own

It can be stopped at any time; the same command goes on with the shards that are missing.
"""

from __future__ import annotations

import hashlib
import itertools
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from accelerate import PartialState
from tqdm import tqdm

from data.groups import PROMPT_SIMILARITY, Groups, MissingExtraError
from data.pairs import PairError, find_pair
from data.plan import PlannedPair, PlannedShard, plan_shards
from data.prompts import PromptError, PromptRecord, grouped, read_prompts
from data.shards import DATASET_FILE, ShardBusyError, ShardError, ShardWriter, read_json, read_stats, remove_leftovers, write_json
from data.splits import SPLIT_RULE, SPLITS
from diffusion.families import usual_sampling
from diffusion.mini.world import random_scenes
from diffusion.pipelines import (
    MINI,
    Failure,
    PipelineError,
    add_lora,
    compile_denoiser,
    default_device,
    default_dtype,
    load_pipeline,
    synthesize,
    use_scheduler,
)

DEFAULT_IMAGES = 7000


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """What to render, with what, and where to put it."""

    out: Path = Path("datasets/mini")
    """The data set directory; a finished one is left as it is."""
    num_images: int | None = None
    """How many images (default: --images-per-prompt for each prompt, or 7,000 of the embedded world). More images than prompts go through
    the prompts again with other seeds."""
    images_per_prompt: int = 1
    prompts: str | None = None
    """A text file with one prompt a line; a .csv, .tsv, .parquet or .jsonl; the id of a data set on the Hub; - for standard input. Without it the
    embedded world's grammar invents them."""
    prompt_column: str | None = None
    """The column of a table that holds the prompts (default: prompt, text or caption)."""
    model: str = MINI
    """"mini" (the embedded diffusion model), a diffusers pipeline directory, or a Hub id."""
    steps: tuple[int, ...] = ()
    """Denoising steps; of several each image draws one (default: what the model usually takes; 12 for the embedded one)."""
    guidance: tuple[float, ...] = ()
    """Guidance scale; of several each image draws one (default: what the model usually takes; 4 for the embedded one)."""
    scheduler: str | None = None
    """dpm++, euler, euler-a, ddim, unipc, lcm ..., or a class of diffusers (default: the model's own)."""
    negative_prompt: str = ""
    width: int | None = None
    """In pixels (default: the model's own size)."""
    height: int | None = None
    lora: str | None = None
    """A LoRA: a .safetensors file, a directory or a Hub id."""
    lora_weight: float = 1.0
    batch_size: int = 32
    """Images made at once. It does not change them."""
    shard_size: int = 500
    """Pairs in a shard. An interruption costs at most the shard being made."""
    seed: int = 0
    """Decides the seeds of all images and the embedded world's prompts."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    compile: bool = False
    """Compile the denoiser with torch.compile: a wait at the beginning, faster images after it. Needs a C++ compiler on a CPU."""
    retry: bool = False
    """Make the shards again in which images have failed."""
    only: str | None = None
    """The key of one pair of --out: make its image again from its metadata, keep it as KEY.png, and say how far it is from the one in the shard."""

    @property
    def size(self) -> tuple[int, int] | None:
        return (self.width, self.height) if self.width is not None and self.height is not None else None


def main(config: GenerateConfig) -> None:
    if config.only is not None:
        make_again(config, config.only)
        return
    _check(config)
    records, left_out = _records(config)
    default = DEFAULT_IMAGES if config.prompts is None else len(records) * config.images_per_prompt
    num_images = config.num_images if config.num_images is not None else default
    shards = plan_shards(
        records, num_images=num_images, seed=config.seed, shard_size=config.shard_size, steps=config.steps, guidance_scales=config.guidance
    )
    _check_directory(config, records, num_images)
    missing = [shard for shard in shards if not _is_done(config, shard)]
    device = default_device()
    processes = PartialState(cpu=device.type == "cpu", timeout=timedelta(days=1))  # the first to be done waits for the last
    if left_out and processes.is_main_process:
        print(f"{left_out} prompts are near to prompts of two splits and are left out", file=sys.stderr)
    busy = 0
    if missing:
        pipeline = _pipeline(config, device)
        processes.wait_for_everyone()  # nobody looks for dataset.json any more
        if processes.is_main_process:
            remove_leftovers(config.out)
            write_json(config.out / DATASET_FILE, _describe(config, records, num_images, shards, pipeline))
        own = missing[processes.process_index :: processes.num_processes]
        busy = _render(config, pipeline, own, done=_pairs(shards) - _pairs(missing))
    processes.wait_for_everyone()
    if processes.is_main_process:
        _report(config, shards, busy)


def make_again(config: GenerateConfig, key: str) -> None:
    """One image of a data set from nothing but its metadata."""
    pair = find_pair(config.out, key)
    was = pair.metadata
    device = default_device()
    if was.get("steps") is None or was.get("seed") is None:
        raise PairError(f"{key} was not made by generate_data.py: it has no seed or no steps")
    about = read_json(config.out / DATASET_FILE)
    dtype = getattr(torch, str(about.get("dtype", "float32")) if config.dtype == "auto" else config.dtype)
    pipeline = load_pipeline(str(was["model"]), device=device, dtype=dtype)
    if type(pipeline.scheduler).__name__ != was["sampler"]:
        use_scheduler(pipeline, str(was["sampler"]))
    if was.get("lora"):
        add_lora(pipeline, str(was["lora"]), float(was["lora_weight"]))
    (image,) = synthesize(
        pipeline,
        [pair.prompt],
        [int(was["seed"])],
        steps=int(was["steps"]),
        guidance_scale=float(was["guidance_scale"]),
        negative_prompt=str(was.get("negative_prompt") or ""),
        size=(int(was["width"]), int(was["height"])),
    )
    if isinstance(image, Failure):
        raise PipelineError(f"{key} could not be made again: {image.message}")
    path = Path(f"{key}.png")
    image.save(path)
    difference = np.abs(np.asarray(image, dtype=int) - np.asarray(pair.image, dtype=int))
    print(f"{path}: {pair.prompt}")
    print(f"differs from the image in its shard by at most {difference.max()} of 255, by {difference.mean():.3f} in the mean")


def _check(config: GenerateConfig) -> None:
    if min(config.batch_size, config.images_per_prompt, *config.steps, 1) < 1:
        raise ValueError("--batch-size, --steps and --images-per-prompt must be 1 or more")
    if (config.width is None) != (config.height is None) or min(config.width or 8, config.height or 8) < 8:
        raise ValueError("give --width and --height together, 8 pixels or more")
    if config.prompt_column is not None and config.prompts is None:
        raise ValueError("--prompt-column belongs to --prompts FILE")
    if config.images_per_prompt > 1 and config.num_images is not None:
        raise ValueError("give --images-per-prompt or --num-images, not both")


def _records(config: GenerateConfig) -> tuple[Sequence[PromptRecord], int]:
    if config.prompts is not None:
        return grouped(read_prompts(config.prompts, config.prompt_column), Groups(prompt_similarity=PROMPT_SIMILARITY))
    # what the grammar invents is grouped by its scene: other words for the same, and the same words for something else, are known apart
    wanted = config.num_images if config.num_images is not None else DEFAULT_IMAGES
    scenes = itertools.islice(random_scenes(config.seed, held_out=False), max(1, wanted // config.images_per_prompt))
    return [PromptRecord(prompt=prompt, group=scene.key, slots=scene.slots()) for scene, prompt in scenes], 0


def _pipeline(config: GenerateConfig, device: torch.device) -> Any:
    pipeline = load_pipeline(config.model, device=device, dtype=_dtype(config, device))
    if config.scheduler is not None:
        use_scheduler(pipeline, config.scheduler)
    if config.lora is not None:
        add_lora(pipeline, config.lora, config.lora_weight)
    if config.compile:
        compile_denoiser(pipeline)
    return pipeline


def _dtype(config: GenerateConfig, device: torch.device) -> torch.dtype:
    return default_dtype(device) if config.dtype == "auto" else getattr(torch, config.dtype)


def _settings(config: GenerateConfig, records: Sequence[PromptRecord], num_images: int) -> dict[str, Any]:
    """What decides the pairs; a directory is only continued with the same. What is left to the model is null."""
    digest = hashlib.sha256("\n".join(record.prompt for record in records).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return {
        "model": config.model,
        "prompts": MINI if config.prompts is None else f"{Path(config.prompts).name} sha256:{digest}",
        "num_images": num_images,
        "steps": list(config.steps) or None,
        "guidance_scale": list(config.guidance) or None,
        "scheduler": config.scheduler,
        "negative_prompt": config.negative_prompt,
        "size": list(config.size) if config.size is not None else None,
        "lora": [config.lora, config.lora_weight] if config.lora is not None else None,
        "seed": config.seed,
        "shard_size": config.shard_size,
    }


def _check_directory(config: GenerateConfig, records: Sequence[PromptRecord], num_images: int) -> None:
    if config.out.is_file():
        raise ShardError(f"--out {config.out} is a file; name a directory")
    known = config.out / DATASET_FILE
    if not known.exists():
        if config.out.is_dir() and any(config.out.iterdir()):
            raise ShardError(f"--out {config.out} holds other things and no {DATASET_FILE}; name a new or empty directory")
        return
    before, now = read_json(known).get("settings", {}), _settings(config, records, num_images)
    differing = [f"{name}: {before.get(name)!r} there, {now[name]!r} now" for name in now if before.get(name) != now[name]]
    if differing:
        raise ShardError(f"{config.out} was begun with other settings ({'; '.join(differing)}). Name another --out, or the same settings to go on")


def _describe(
    config: GenerateConfig, records: Sequence[PromptRecord], num_images: int, shards: Sequence[PlannedShard], pipeline: Any
) -> dict[str, Any]:
    counts = {split: sum(len(shard.pairs) for shard in shards if shard.split == split) for split in SPLITS}
    steps, guidance_scale = usual_sampling(pipeline, config.model)
    return {
        "generator": type(pipeline).__name__,
        "scheduler": type(pipeline.scheduler).__name__,
        "sampling": {"steps": list(config.steps) or [steps], "guidance_scale": list(config.guidance) or [guidance_scale]},
        "dtype": str(pipeline.dtype).removeprefix("torch."),
        "settings": _settings(config, records, num_images),
        "counts": counts,
        "split_rule": SPLIT_RULE,
        "near_duplicates": {"prompt_similarity": PROMPT_SIMILARITY if config.prompts is not None else None},
        "command": "python generate_data.py",
        "arguments": [argument for argument in sys.argv[1:] if argument != "--retry"],
    }


def _is_done(config: GenerateConfig, shard: PlannedShard) -> bool:
    writer = ShardWriter(config.out / shard.split, shard.number)
    return writer.is_done and not (config.retry and read_stats(writer.stem).get("failed"))


def _render(config: GenerateConfig, pipeline: Any, shards: Sequence[PlannedShard], *, done: int) -> int:
    """Make these shards, after `done` images that were there before; how many were left to another run, which is making them."""
    busy = 0
    with tqdm(total=done + _pairs(shards), initial=done, unit="image", desc="rendering") as progress:
        for shard in shards:
            if _is_done(config, shard):  # by another run, meanwhile
                progress.update(len(shard.pairs))
                continue
            try:
                with ShardWriter(config.out / shard.split, shard.number) as writer:
                    for batch, steps, guidance_scale in _batches(config, pipeline, shard):
                        prompts, seeds = [pair.record.prompt for pair in batch], [pair.seed for pair in batch]
                        images = synthesize(
                            pipeline,
                            prompts,
                            seeds,
                            steps=steps,
                            guidance_scale=guidance_scale,
                            negative_prompt=config.negative_prompt,
                            size=config.size,
                        )
                        for pair, image in zip(batch, images, strict=True):
                            if isinstance(image, Failure):
                                facts = _metadata(config, pair, pipeline, config.size or (0, 0), steps, guidance_scale)
                                writer.add_failure(pair.key, facts, image.kind, image.message)
                            else:
                                writer.add(pair.key, image, _metadata(config, pair, pipeline, image.size, steps, guidance_scale))
                        progress.update(len(batch))
            except ShardBusyError:
                busy += 1
    return busy


def _batches(config: GenerateConfig, pipeline: Any, shard: PlannedShard) -> Iterator[tuple[Sequence[PlannedPair], int, float]]:
    """The pairs of a shard that share their settings, some at once; the order of the pairs does not depend on how many."""
    usual = usual_sampling(pipeline, config.model)

    def settings(pair: PlannedPair) -> tuple[int, float]:
        return (
            pair.steps if pair.steps is not None else usual[0],
            pair.guidance_scale if pair.guidance_scale is not None else usual[1],
        )

    for (steps, guidance_scale), same in itertools.groupby(sorted(shard.pairs, key=settings), key=settings):
        pairs = list(same)
        for start in range(0, len(pairs), config.batch_size):
            yield pairs[start : start + config.batch_size], steps, guidance_scale


def _metadata(config: GenerateConfig, pair: PlannedPair, pipeline: Any, size: tuple[int, int], steps: int, guidance_scale: float) -> dict[str, Any]:
    return {
        "prompt": pair.record.prompt,
        "negative_prompt": config.negative_prompt,
        "seed": pair.seed,
        "steps": steps,
        "guidance_scale": guidance_scale,
        "sampler": type(pipeline.scheduler).__name__,
        "width": size[0],
        "height": size[1],
        "model": config.model,
        "revision": None,
        "lora": config.lora,
        "lora_weight": config.lora_weight if config.lora is not None else None,
        "prompt_group": pair.record.group,
        "slots": dict(pair.record.slots),
    }


def _report(config: GenerateConfig, shards: Sequence[PlannedShard], busy: int) -> None:
    counts, failed = Counter(dict.fromkeys(SPLITS, 0)), Counter[str]()
    for shard in shards:
        counts[shard.split] += len(shard.pairs)
        stats = read_stats(config.out / shard.split / f"{shard.number:05d}")
        failed.update(stats.get("failures", {}))
    if busy:
        print(f"{busy} shards were left to another run that is making them; run the same command again to be sure of them", file=sys.stderr)
    if failed:
        kinds = ", ".join(f"{count} x {kind}" for kind, count in failed.most_common())
        print(f"{sum(failed.values())} images could not be made: {kinds}. The parquet files say which; --retry tries them again.", file=sys.stderr)
    print(f"{config.out}: {sum(counts.values())} pairs (" + ", ".join(f"{split} {counts[split]}" for split in SPLITS) + ")")
    print(f"Next: python train.py --data {config.out}")


def _pairs(shards: Sequence[PlannedShard]) -> int:
    return sum(len(shard.pairs) for shard in shards)


if __name__ == "__main__":
    try:
        main(tyro.cli(GenerateConfig, description=__doc__))
    except (MissingExtraError, OSError, PairError, PipelineError, PromptError, ShardError, ValueError) as error:
        sys.exit(f"generate_data.py: {error}")
    except KeyboardInterrupt:
        sys.exit("\ngenerate_data.py: stopped. The finished shards are kept; run the same command to go on.")
