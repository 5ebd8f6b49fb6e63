"""Rendering a data set: begin its directory or go on with it, make the shards that are missing, and say what was made."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from tqdm import tqdm

from core.device import Precision, compute_precision, weights_precision
from core.minutes import about_minutes
from data.errors import PairError, ShardBusyError, ShardError
from data.files import read_json, remove_leftovers, write_json
from data.groups.groups import Groups
from data.groups.nearness import Nearness
from data.groups.shares import Shares, shares
from data.splits import SPLIT_RULE, SPLITS, Split
from data.store.directory import DATASET_FILE, LOCK_FILE, begun_settings, check_begun, nothing_made, read_stats
from data.store.pairs import find_pair
from data.store.writer import ShardWriter
from diffusion.families import usual_sampling
from diffusion.mini import MINI
from diffusion.mini.world import random_scenes
from diffusion.pipelines import (
    Failure,
    MemoryLimit,
    PipelineError,
    add_lora,
    compile_denoiser,
    load_pipeline,
    model_revision,
    synthesize,
    use_scheduler,
)
from diffusion.reading import PromptReader
from synthesis.config import DEFAULT_IMAGES, GenerateConfig
from synthesis.long_prompts import read_by
from synthesis.plan import PlannedPair, PlannedShard, plan_shards
from synthesis.prompts import PROMPTS_FILE, GroupedPrompts, PromptList, PromptRecord, grouped, read_grouped, read_prompts, write_grouped

_LIBRARIES = ("reprompt", "torch", "diffusers", "transformers")


@dataclass(frozen=True)
class Work:
    """What a data set will hold, and which of its shards are missing. No pipeline where none is. `notice` says what of the prompts' file to know."""

    prompts: GroupedPrompts
    shards: Sequence[PlannedShard]
    missing: Sequence[PlannedShard]
    pipeline: Any
    notice: str = ""


@dataclass(frozen=True)
class Made:
    """What a data set holds, by its shards' stats files. `failed` by kind; `truncated` pairs have a prompt longer than the text encoder reads."""

    counts: Mapping[Split, int]
    failed: Mapping[str, int]
    truncated: int
    shards_done: int
    shards: int


def begin(config: GenerateConfig, device: torch.device) -> Work:
    """Begin a data set directory, or go on with it. Nothing is written before all that is needed has been found.

    Raises:
        ShardError, TableError, PipelineError, MissingExtraError: what is asked for cannot be made, or the directory was begun for something else.
    """
    known = config.out / DATASET_FILE
    before = begun_settings(config.out, leftovers=(PROMPTS_FILE,))
    if before is not None and config.model == MINI:
        before = {"weights": None} | before  # of the embedded model in twelve steps, which was not written down
    listed = PromptList(())
    if config.prompts is not None:
        listed = read_prompts(config.prompts, config.prompt_column, delimiter=config.delimiter, encoding=config.encoding)
    nearness = config.nearness.settled(before)
    settings = _settings(config, listed.prompts, nearness)
    if before is not None:
        try:
            check_begun(config.out, before, settings)
        except ShardError:
            if not nothing_made(config.out):
                raise
            for name in (DATASET_FILE, PROMPTS_FILE):  # perhaps it was begun with a mistake
                (config.out / name).unlink(missing_ok=True)
            nearness = config.nearness.settled(None)
            settings = _settings(config, listed.prompts, nearness)
    prompts, pipeline = _begun_prompts(config), None
    if prompts is None:
        groups = Groups(nearness) if config.prompts is not None else None
        if groups is not None or not known.exists():
            pipeline = open_pipeline(config, device)  # before the prompts are compared, since it may not be there
        prompts = _grouped(config, listed, groups, pipeline) if groups is not None else _invented(config, pipeline)
        config.out.mkdir(parents=True, exist_ok=True)
        with FileLock(config.out / LOCK_FILE):
            if known.exists():  # perhaps by another run, meanwhile
                check_begun(config.out, begun_settings(config.out) or {}, settings)
            if groups is not None and not (known.exists() and (config.out / PROMPTS_FILE).exists()):
                write_grouped(config.out / PROMPTS_FILE, prompts)
            if not known.exists():
                write_json(known, _describe(config, settings, prompts, pipeline))
            prompts = _begun_prompts(config) or prompts
    shards = _planned(config, prompts)
    missing = _missing(config, shards)
    if missing:
        remove_leftovers(config.out)
        pipeline = pipeline or open_pipeline(config, device)
    work = Work(prompts, shards, missing, pipeline if missing else None, listed.notice)
    return _with_tokens(config, work) if missing else work


def join(config: GenerateConfig, device: torch.device) -> Work:
    """Take part in what the main process has begun."""
    prompts = _begun_prompts(config) or _invented(config, None)
    shards = _planned(config, prompts)
    missing = _missing(config, shards)
    if not missing:
        return Work(prompts, shards, missing, None)
    pipeline = open_pipeline(config, device)
    return _with_tokens(config, Work(prompts, shards, missing, pipeline))


def own_share(work: Work, process: int, processes: int) -> list[PlannedShard]:
    """The missing shards that a process is to make: by their place in the plan, which all processes know alike, and not in what each finds missing
    at its own moment."""
    missing = {(shard.split, shard.number) for shard in work.missing}
    return [shard for shard in work.shards[process::processes] if (shard.split, shard.number) in missing]


def render(config: GenerateConfig, pipeline: Any, shards: Sequence[PlannedShard], *, done: int) -> None:
    """Make these shards, after `done` images that were there before. Those that another run is making are left to it."""
    limit, made, begun = MemoryLimit(), 0, time.perf_counter()
    with tqdm(total=done + num_pairs(shards), initial=done, unit="image", desc="rendering") as progress:
        for shard in shards:
            try:
                with ShardWriter(config.out / shard.split, shard.number, retry=config.retry) as writer:
                    for batch, steps, guidance_scale in _batches(config, pipeline, shard):
                        _make(config, pipeline, batch, steps, guidance_scale, writer, limit)
                        made += len(batch)
                        if config.seconds_after:
                            left = (progress.total - progress.n - len(batch)) * (time.perf_counter() - begun) / made
                            progress.set_postfix_str(f"{about_minutes(left + config.seconds_after)} left, training included", refresh=False)
                        progress.update(len(batch))
            except ShardBusyError:
                progress.update(len(shard.pairs))


def count_made(config: GenerateConfig, shards: Sequence[PlannedShard]) -> Made:
    """As the stats files say, whoever made the shards."""
    counts, failed, truncated, done = Counter(dict.fromkeys(SPLITS, 0)), Counter[str](), 0, 0
    for shard in shards:
        stats = read_stats(config.out / shard.split / f"{shard.number:05d}")
        done += bool(stats)
        counts[shard.split] += stats.get("successes", 0)
        truncated += stats.get("truncated", 0)
        failed.update(stats.get("failures", {}))
    return Made(counts, failed, truncated, done, len(shards))


def spread(work: Work, config: GenerateConfig) -> Shares:
    """How the prompts are spread over their groups."""
    return shares(((record.prompt, record.group) for record in work.prompts.records), config.nearness.ignore_words)


def make_again(config: GenerateConfig, key: str, device: torch.device) -> str:
    """One image of a data set from nothing but its metadata, kept as KEY.png; what came of it.

    Raises:
        PairError: no such pair, or not a rendered one.
        PipelineError: its model cannot be had, or fails.
    """
    pair = find_pair(config.out, key)
    was = pair.metadata
    if was.get("steps") is None or was.get("seed") is None:
        raise PairError(f"{key} was not made by generate_data.py: it has no seed or no steps")
    about = read_json(config.out / DATASET_FILE)
    asked = str(about.get("dtype", "float32")) if config.dtype == "auto" else config.dtype
    pipeline = load_pipeline(str(was["model"]), device=device, dtype=weights_precision(device, asked).dtype)
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
    other = "" if was.get("revision") == model_revision(str(was["model"])) else "\nIt was made by other weights of the same name."
    far = f"differs from the image in its shard by at most {difference.max()} of 255, by {difference.mean():.3f} in the mean"
    return f"{path}: {pair.prompt}\n{far}{other}"


def open_pipeline(config: GenerateConfig, device: torch.device) -> Any:
    dtype = None if config.dtype == "auto" else weights_precision(device, config.dtype).dtype
    pipeline = load_pipeline(config.model, device=device, dtype=dtype)
    if config.scheduler is not None:
        use_scheduler(pipeline, config.scheduler)
    if config.lora is not None:
        add_lora(pipeline, config.lora, config.lora_weight)
    if config.compile:
        compile_denoiser(pipeline)
    return pipeline


def pipeline_precision(config: GenerateConfig, pipeline: Any, device: torch.device) -> Precision:
    """What a pipeline of `open_pipeline` computes in, and why."""
    if config.dtype != "auto":
        return Precision(pipeline.dtype, "as asked for")
    chosen = compute_precision(device)
    return chosen if device.type == "cpu" else Precision(pipeline.dtype, "usual for this pipeline on a GPU")


def num_pairs(shards: Sequence[PlannedShard]) -> int:
    return sum(len(shard.pairs) for shard in shards)


def _begun_prompts(config: GenerateConfig) -> GroupedPrompts | None:
    """The prompts of a directory that was begun: their groups are found once, so that they cannot change."""
    path = config.out / PROMPTS_FILE
    if config.prompts is None or not (config.out / DATASET_FILE).exists() or not path.exists():
        return None
    return read_grouped(path)


def _grouped(config: GenerateConfig, listed: PromptList, groups: Groups, pipeline: Any) -> GroupedPrompts:
    read, skipped = read_by(PromptReader(pipeline), listed.prompts, config.long_prompts)
    return grouped(read, groups, [*listed.left_out, *skipped])


def _invented(config: GenerateConfig, pipeline: Any) -> GroupedPrompts:
    """What the grammar invents is grouped by its scene: other words for the same, and the same words for something else, are known apart."""
    wanted = config.num_images if config.num_images is not None else DEFAULT_IMAGES
    scenes = list(itertools.islice(random_scenes(config.seed, held_out=False), max(1, wanted // config.images_per_prompt)))
    reader = PromptReader(pipeline)  # counts nothing without a pipeline
    tokens = reader.count([prompt for _, prompt in scenes])
    return GroupedPrompts(
        [
            PromptRecord(
                prompt=prompt, group=scene.key, slots=scene.slots(), prompt_tokens=count, truncated=count is not None and count > reader.limit
            )
            for (scene, prompt), count in zip(scenes, tokens, strict=True)
        ]
    )


def _with_tokens(config: GenerateConfig, work: Work) -> Work:
    """The same work, the tokens of what the grammar invents counted, which needs the pipeline."""
    if config.prompts is not None:
        return work
    prompts = _invented(config, work.pipeline)
    shards = _planned(config, prompts)
    return dataclasses.replace(work, prompts=prompts, shards=shards, missing=_missing(config, shards))


def _planned(config: GenerateConfig, prompts: GroupedPrompts) -> list[PlannedShard]:
    return plan_shards(
        prompts.records,
        num_images=config.total(len(prompts.records)),
        seed=config.seed,
        shard_size=config.shard_size,
        steps=config.steps,
        guidance_scales=config.guidance,
    )


def _missing(config: GenerateConfig, shards: Sequence[PlannedShard]) -> list[PlannedShard]:
    return [shard for shard in shards if not ShardWriter(config.out / shard.split, shard.number, retry=config.retry).is_done]


def _settings(config: GenerateConfig, texts: Sequence[str], nearness: Nearness) -> dict[str, Any]:
    """What decides the pairs; a directory is only continued with the same. What is left to the model is null."""
    digest = hashlib.sha256("\n".join(texts).encode("utf-8")).hexdigest()[:16]
    return {
        "model": config.model,
        "weights": model_revision(MINI) if config.model == MINI else None,
        "prompts": MINI if config.prompts is None else f"{Path(config.prompts).name} sha256:{digest}",
        "num_images": config.total(len(texts)),
        "images_per_prompt": config.images_per_prompt,
        "long_prompts": config.long_prompts,
        "steps": list(config.steps) or None,
        "guidance_scale": list(config.guidance) or None,
        "scheduler": config.scheduler,
        "negative_prompt": config.negative_prompt,
        "size": list(config.size) if config.size is not None else None,
        "lora": [config.lora, config.lora_weight] if config.lora is not None else None,
        "dtype": config.dtype,
        "format": config.format,
        "seed": config.seed,
        "shard_size": config.shard_size,
    } | (nearness.settings() if config.prompts is not None else {})  # what the grammar invents is grouped by its scene


def _describe(config: GenerateConfig, settings: Mapping[str, Any], prompts: GroupedPrompts, pipeline: Any) -> dict[str, Any]:
    planned = _planned(config, prompts)
    counts, shards = Counter(shard.split for shard in planned for _ in shard.pairs), Counter(shard.split for shard in planned)
    steps, guidance_scale = usual_sampling(pipeline, config.model)
    return {
        "generator": type(pipeline).__name__,
        "scheduler": type(pipeline.scheduler).__name__,
        "sampling": {"steps": list(config.steps) or [steps], "guidance_scale": list(config.guidance) or [guidance_scale]},
        "dtype": str(pipeline.dtype).removeprefix("torch."),
        "device": str(pipeline.device),
        "revision": model_revision(config.model),
        "versions": {name: found for name in _LIBRARIES if (found := _version(name)) is not None},
        "settings": settings,
        "counts": {split: counts[split] for split in SPLITS},
        "shards": {split: shards[split] for split in SPLITS},
        "skipped": prompts.kinds,
        "prompt_limit": PromptReader(pipeline).limit or None,
        "split_rule": SPLIT_RULE,
        "near_duplicates": {name: settings.get(name) for name in Nearness().settings()},
        "command": "python generate_data.py",
        "arguments": [argument for argument in sys.argv[1:] if argument != "--retry" and not argument.startswith("--seconds-after=")],
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _make(
    config: GenerateConfig, pipeline: Any, batch: Sequence[PlannedPair], steps: int, guidance_scale: float, writer: ShardWriter, limit: MemoryLimit
) -> None:
    """Render a batch and write it."""
    images = synthesize(
        pipeline,
        [pair.record.prompt for pair in batch],
        [pair.seed for pair in batch],
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
            writer.add(pair.key, image, _metadata(config, pair, pipeline, image.size, steps, guidance_scale), config.format)


def _batches(config: GenerateConfig, pipeline: Any, shard: PlannedShard) -> Iterator[tuple[Sequence[PlannedPair], int, float]]:
    """The pairs of a shard that share their settings, some at once; the order of the pairs does not depend on how many."""
    steps, guidance_scale = usual_sampling(pipeline, config.model)

    def settings(pair: PlannedPair) -> tuple[int, float]:
        return pair.steps or steps, pair.guidance_scale if pair.guidance_scale is not None else guidance_scale

    for chosen, same in itertools.groupby(sorted(shard.pairs, key=settings), key=settings):
        pairs = list(same)
        for start in range(0, len(pairs), config.images_at_once):
            yield pairs[start : start + config.images_at_once], *chosen


def _metadata(config: GenerateConfig, pair: PlannedPair, pipeline: Any, size: tuple[int, int], steps: int, guidance_scale: float) -> dict[str, Any]:
    return {
        "prompt": pair.record.prompt,
        "original_prompt": pair.record.original_prompt,
        "negative_prompt": config.negative_prompt,
        "seed": pair.seed,
        "steps": steps,
        "guidance_scale": guidance_scale,
        "sampler": type(pipeline.scheduler).__name__,
        "width": size[0],
        "height": size[1],
        "model": config.model,
        "revision": model_revision(config.model),
        "lora": config.lora,
        "lora_weight": config.lora_weight if config.lora is not None else None,
        "prompt_group": pair.record.group,
        "prompt_tokens": pair.record.prompt_tokens,
        "truncated": pair.record.truncated,
        "slots": dict(pair.record.slots),
    }
