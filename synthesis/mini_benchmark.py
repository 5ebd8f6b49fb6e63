"""Make the benchmark in the box: 500 test pictures of the embedded world, each of another scene, and some training pairs for the floors to know.

Example:
    python -m synthesis.mini_benchmark --out assets/mini-benchmark

Its test scenes are among those that the embedded diffusion model is never trained on, nor any captioner in the box, since `generate_data.py` draws
the others alone. Left out too are those that anything in the box was measured on while it was made (`MEASURED_ON`). The training pairs are of
ordinary scenes; `nearest` and `constant` know nothing else. Seeds are those of neither, as a test makes sure.
"""

from __future__ import annotations

import itertools
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from data.errors import ShardError
from data.files import write_json, write_text
from data.splits import Split
from data.store.directory import DATASET_FILE, LOCKS
from data.store.writer import Format, ShardWriter
from diffusion.families import usual_sampling
from diffusion.mini import MINI
from diffusion.mini.world import Scene, random_scenes
from diffusion.pipelines import Failure, load_pipeline, model_revision, synthesize
from synthesis.plan import image_seed

TEST, TRAIN = 500, 200
SEED = 20261126
# held-out scenes that were looked at while the networks in the box were made: the seed of each draw and how many came of it (diffusion.mini.probe,
# diffusion.mini.train and distil, benchmarks/distilled.py)
MEASURED_ON = {77: 2000, 78: 2000, 1: 2000, 2: 2000, 4242: 4000}
_FORMAT: Format = "webp"
_AT_ONCE = 64

CARD = """---
license: apache-2.0
task_categories:
- image-to-text
---

# mini-benchmark

{test} test pictures of Reprompt's embedded world, each of another scene, with the prompts that made them and the parts of each prompt
(`slots`), and {train} training pairs for the baselines `nearest` and `constant`. Painted by `assets/mini-diffusion` in four steps, 64 x 64
pixels, WebP. No network in the box was trained or tuned on its test scenes or on any of its seeds.

`python evaluate.py` measures on it. It is a data set directory as `generate_data.py` makes them (WebDataset tars), made by
`python -m synthesis.mini_benchmark`. What is learnt here holds for the embedded world, and not for photographs or for pictures of large models.
"""


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Where to put it."""

    out: Path


def test_scenes() -> list[tuple[Scene, str]]:
    """500 scenes that differ from each other and from all that anything in the box has seen."""
    seen = {scene.key for seed, count in MEASURED_ON.items() for scene, _ in itertools.islice(random_scenes(seed, held_out=True), count)}
    return _different(random_scenes(SEED, held_out=True), TEST, seen)


def train_scenes() -> list[tuple[Scene, str]]:
    return _different(random_scenes(SEED, held_out=False), TRAIN, set())


def _different(scenes: Iterable[tuple[Scene, str]], count: int, seen: set[str]) -> list[tuple[Scene, str]]:
    found = []
    for scene, prompt in scenes:
        if scene.key not in seen:
            seen.add(scene.key)
            found.append((scene, prompt))
        if len(found) == count:
            break
    return found


def main(config: BenchmarkConfig) -> None:
    if config.out.exists() and any(config.out.iterdir()):
        raise ShardError(f"--out {config.out} holds other things; name a new or empty directory")
    pipeline = load_pipeline(MINI, device=torch.device("cpu"))
    splits: dict[Split, list[tuple[Scene, str]]] = {"test": test_scenes(), "train": train_scenes()}
    number = 0
    for split, scenes in splits.items():
        with ShardWriter(config.out / split, 0) as writer:
            for start in range(0, len(scenes), _AT_ONCE):
                some = scenes[start : start + _AT_ONCE]
                _paint(pipeline, some, range(number, number + len(some)), writer)
                number += len(some)
        shutil.rmtree(config.out / split / LOCKS)
    about = {
        "generator": type(pipeline).__name__,
        "scheduler": type(pipeline.scheduler).__name__,
        "revision": model_revision(MINI),
        "settings": {"model": MINI, "seed": SEED, "format": _FORMAT},
        "counts": {split: len(scenes) for split, scenes in splits.items()},
        "shards": dict.fromkeys(splits, 1),
        "split_rule": "test: scenes that the embedded diffusion model is never trained on; train: others",
        "command": "python -m synthesis.mini_benchmark",
        "arguments": sys.argv[1:],
    }
    write_json(config.out / DATASET_FILE, about)
    write_text(config.out / "README.md", CARD.format(test=TEST, train=TRAIN))
    print(f"{config.out}: {TEST} test and {TRAIN} training pairs")


def _paint(pipeline: Any, scenes: list[tuple[Scene, str]], numbers: range, writer: ShardWriter) -> None:
    steps, guidance_scale = usual_sampling(pipeline, MINI)
    seeds = [image_seed(SEED, number) for number in numbers]
    images = synthesize(pipeline, [prompt for _, prompt in scenes], seeds, steps=steps, guidance_scale=guidance_scale)
    for (scene, prompt), seed, number, image in zip(scenes, seeds, numbers, images, strict=True):
        if isinstance(image, Failure):
            raise ShardError(f"picture {number} could not be painted: {image.message}")
        facts = {"prompt": prompt, "seed": seed, "steps": steps, "guidance_scale": guidance_scale, "width": image.width, "height": image.height}
        facts |= {"model": MINI, "revision": model_revision(MINI), "prompt_group": scene.key, "slots": scene.slots()}
        writer.add(f"{number:09d}", image, facts, _FORMAT)


if __name__ == "__main__":
    try:
        main(tyro.cli(BenchmarkConfig, description=__doc__))
    except (OSError, ShardError) as error:
        sys.exit(f"synthesis.mini_benchmark: {error}")
