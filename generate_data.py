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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from accelerate import PartialState
from filelock import FileLock
from tqdm import tqdm

from data.begun import LOCK_FILE, begun_settings, check_begun
from data.extras import MissingExtraError
from data.groups import Groups, Nearness
from data.pairs import PairError, find_pair
from data.plan import PlannedPair, PlannedShard, plan_shards
from data.prompts import PROMPTS_FILE, GroupedPrompts, PromptRecord, grouped, read_grouped, read_prompts, write_grouped
from data.shards import DATASET_FILE, ShardBusyError, ShardWriter, read_json, read_stats, remove_leftovers, write_json
from data.splits import SPLIT_RULE, SPLITS
from diffusion.families import usual_sampling
from diffusion.mini.world import random_scenes
from diffusion.pipelines import (
    MINI,
    Failure,
    MemoryLimit,
    PipelineError,
    add_lora,
    compile_denoiser,
    default_device,
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
    nearness: Annotated[Nearness, tyro.conf.arg(name="")] = field(default_factory=Nearness)
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
    device = default_device()
    processes = PartialState(cpu=device.type == "cpu", timeout=timedelta(days=1))  # the first to be done waits for the last
    with processes.main_process_first():  # which decides what is to be made; the others find it in the directory
        work = _begin(config, device) if processes.is_main_process else _join(config, device)
    busy = 0
    if work.pipeline is not None:
        own = work.missing[processes.process_index :: processes.num_processes]
        busy = _render(config, work.pipeline, own, done=_pairs(work.shards) - _pairs(work.missing))
    processes.wait_for_everyone()
    if processes.is_main_process:
        _report(config, work, busy)


@dataclass(frozen=True)
class Work:
    """What a data set will hold, and which of its shards are missing. No pipeline where none is."""

    prompts: GroupedPrompts
    shards: Sequence[PlannedShard]
    missing: Sequence[PlannedShard]
    pipeline: Any


def _begin(config: GenerateConfig, device: torch.device) -> Work:
    """Begin a data set directory, or go on with it. Nothing is written before all that is needed has been found."""
    known = config.out / DATASET_FILE
    before = begun_settings(config.out, leftovers=(PROMPTS_FILE,))
    texts = read_prompts(config.prompts, config.prompt_column) if config.prompts is not None else None
    nearness = config.nearness.settled(before)
    settings = _settings(config, texts, nearness)
    if before is not None:
        check_begun(config.out, before, settings)
    prompts, pipeline = _begun_prompts(config), None
    if prompts is None:
        groups = Groups(nearness) if texts is not None else None
        pipeline = _pipeline(config, device)  # before the prompts are compared, since it may not be there
        prompts = grouped(texts, groups) if texts is not None and groups is not None else _invented(config)
        config.out.mkdir(parents=True, exist_ok=True)
        with FileLock(config.out / LOCK_FILE):
            if known.exists():  # perhaps by another run, meanwhile
                check_begun(config.out, begun_settings(config.out) or {}, settings)
            if texts is not None and not (known.exists() and (config.out / PROMPTS_FILE).exists()):
                write_grouped(config.out / PROMPTS_FILE, prompts)
            if not known.exists():
                write_json(known, _describe(config, settings, prompts, pipeline))
            prompts = _begun_prompts(config) or prompts
    shards = _planned(config, prompts)
    missing = [shard for shard in shards if not _is_done(config, shard)]
    if missing:
        remove_leftovers(config.out)
        pipeline = pipeline or _pipeline(config, device)
    return Work(prompts, shards, missing, pipeline if missing else None)


def _join(config: GenerateConfig, device: torch.device) -> Work:
    """Take part in what the main process has begun."""
    prompts = _begun_prompts(config) or _invented(config)
    shards = _planned(config, prompts)
    missing = [shard for shard in shards if not _is_done(config, shard)]
    return Work(prompts, shards, missing, _pipeline(config, device) if missing else None)


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


def _begun_prompts(config: GenerateConfig) -> GroupedPrompts | None:
    """The prompts of a directory that was begun: their groups are found once, so that they cannot change."""
    path = config.out / PROMPTS_FILE
    if config.prompts is None or not (config.out / DATASET_FILE).exists() or not path.exists():
        return None
    return read_grouped(path)


def _invented(config: GenerateConfig) -> GroupedPrompts:
    """What the grammar invents is grouped by its scene: other words for the same, and the same words for something else, are known apart."""
    wanted = config.num_images if config.num_images is not None else DEFAULT_IMAGES
    scenes = itertools.islice(random_scenes(config.seed, held_out=False), max(1, wanted // config.images_per_prompt))
    return GroupedPrompts([PromptRecord(prompt=prompt, group=scene.key, slots=scene.slots()) for scene, prompt in scenes])


def _planned(config: GenerateConfig, prompts: GroupedPrompts) -> list[PlannedShard]:
    return plan_shards(
        prompts.records,
        num_images=_num_images(config, len(prompts.records)),
        seed=config.seed,
        shard_size=config.shard_size,
        steps=config.steps,
        guidance_scales=config.guidance,
    )


def _num_images(config: GenerateConfig, prompts: int) -> int:
    if config.num_images is not None:
        return config.num_images
    return DEFAULT_IMAGES if config.prompts is None else prompts * config.images_per_prompt


def _pipeline(config: GenerateConfig, device: torch.device) -> Any:
    pipeline = load_pipeline(config.model, device=device, dtype=None if config.dtype == "auto" else getattr(torch, config.dtype))
    if config.scheduler is not None:
        use_scheduler(pipeline, config.scheduler)
    if config.lora is not None:
        add_lora(pipeline, config.lora, config.lora_weight)
    if config.compile:
        compile_denoiser(pipeline)
    return pipeline


def _settings(config: GenerateConfig, texts: Sequence[str] | None, nearness: Nearness) -> dict[str, Any]:
    """What decides the pairs; a directory is only continued with the same. What is left to the model is null."""
    digest = hashlib.sha256("\n".join(texts or ()).encode("utf-8")).hexdigest()[:16]
    return {
        "model": config.model,
        "prompts": MINI if config.prompts is None else f"{Path(config.prompts).name} sha256:{digest}",
        "num_images": _num_images(config, len(texts or ())),
        "steps": list(config.steps) or None,
        "guidance_scale": list(config.guidance) or None,
        "scheduler": config.scheduler,
        "negative_prompt": config.negative_prompt,
        "size": list(config.size) if config.size is not None else None,
        "lora": [config.lora, config.lora_weight] if config.lora is not None else None,
        "seed": config.seed,
        "shard_size": config.shard_size,
    } | (nearness.settings() if config.prompts is not None else {})  # what the grammar invents is grouped by its scene


def _describe(config: GenerateConfig, settings: Mapping[str, Any], prompts: GroupedPrompts, pipeline: Any) -> dict[str, Any]:
    counts = Counter(shard.split for shard in _planned(config, prompts) for _ in shard.pairs)
    steps, guidance_scale = usual_sampling(pipeline, config.model)
    return {
        "generator": type(pipeline).__name__,
        "scheduler": type(pipeline.scheduler).__name__,
        "sampling": {"steps": list(config.steps) or [steps], "guidance_scale": list(config.guidance) or [guidance_scale]},
        "dtype": str(pipeline.dtype).removeprefix("torch."),
        "settings": settings,
        "counts": {split: counts[split] for split in SPLITS},
        "skipped": prompts.kinds,
        "split_rule": SPLIT_RULE,
        "near_duplicates": {name: settings.get(name) for name in Nearness().settings()},
        "command": "python generate_data.py",
        "arguments": [argument for argument in sys.argv[1:] if argument != "--retry"],
    }


def _is_done(config: GenerateConfig, shard: PlannedShard) -> bool:
    writer = ShardWriter(config.out / shard.split, shard.number)
    return writer.is_done and not (config.retry and read_stats(writer.stem).get("failed"))


def _render(config: GenerateConfig, pipeline: Any, shards: Sequence[PlannedShard], *, done: int) -> int:
    """Make these shards, after `done` images that were there before; how many were left to another run, which is making them."""
    busy, limit = 0, MemoryLimit()
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
                            limit=limit,
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
    steps, guidance_scale = usual_sampling(pipeline, config.model)

    def settings(pair: PlannedPair) -> tuple[int, float]:
        return pair.steps or steps, pair.guidance_scale if pair.guidance_scale is not None else guidance_scale

    for chosen, same in itertools.groupby(sorted(shard.pairs, key=settings), key=settings):
        pairs = list(same)
        for start in range(0, len(pairs), config.batch_size):
            yield pairs[start : start + config.batch_size], *chosen


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


def _report(config: GenerateConfig, work: Work, busy: int) -> None:
    counts, failed = Counter(dict.fromkeys(SPLITS, 0)), Counter[str]()
    for shard in work.shards:
        counts[shard.split] += len(shard.pairs)
        stats = read_stats(config.out / shard.split / f"{shard.number:05d}")
        failed.update(stats.get("failures", {}))
    if busy:
        print(f"{busy} shards were left to another run that is making them; run the same command again to be sure of them", file=sys.stderr)
    if work.prompts.left_out:
        kinds = ", ".join(f"{count} x {kind}" for kind, count in work.prompts.kinds.items())
        print(f"{len(work.prompts.left_out)} prompts were left out: {kinds}; they are listed in {config.out / PROMPTS_FILE}", file=sys.stderr)
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
    except (MissingExtraError, OSError, PipelineError, ValueError) as error:
        sys.exit(f"generate_data.py: {error}")
    except KeyboardInterrupt:
        sys.exit("\ngenerate_data.py: stopped. The finished shards are kept; run the same command to go on.")
