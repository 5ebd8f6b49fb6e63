"""Do several images of a prompt give a better one? Scenes that no network here was trained on, four pictures of each, read from one, two, three and
all four of them together, with paired intervals.

    python benchmarks/joint.py
    python benchmarks/joint.py --hide 0.5                               a grey rectangle over half of each picture, somewhere else in each
    python benchmarks/joint.py --checkpoint runs/joint/model --prompts 300

Beside the quality stand the calibration of the confidence, the share of prompts whose pictures are called unfamiliar, and what a prompt costs.
"""

from __future__ import annotations

import itertools
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from PIL import Image
from rounds import report
from tqdm import tqdm

from diffusion.families import usual_sampling
from diffusion.mini import MINI
from diffusion.mini.world import random_scenes, read_slots
from diffusion.pipelines import Failure, load_pipeline, synthesize
from evaluation.judging import Judge
from evaluation.meaning import SentenceSimilarity
from inference import DEFAULT_CHECKPOINT, PromptInverter

METRICS = ("similarity", "cider_d", "exact_match")
SLOTS = ("subject", "other", "colour", "relation", "background", "style")
_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class JointConfig:
    """What to measure, and on how much."""

    checkpoint: Path = DEFAULT_CHECKPOINT
    """One that reads several images together (train.py --joint)."""
    prompts: int = 1000
    most: int = 4
    """Images of a prompt."""
    hide: float = 0.0
    """The share of each picture's area that lies under a grey rectangle, at a place drawn for each picture."""
    seed: int = 20261128
    json: Path | None = None


def painted(prompts: list[str], config: JointConfig, inverter: PromptInverter) -> list[list[Image.Image]]:
    """Of each prompt its images, as the network sees them."""
    pipeline = load_pipeline(MINI, device=torch.device("cpu"))
    steps, guidance_scale = usual_sampling(pipeline, MINI)
    asked = [prompt for prompt in prompts for _ in range(config.most)]
    images: list[Image.Image] = []
    for start in tqdm(range(0, len(asked), _AT_ONCE), "painting", unit="batch"):
        some = asked[start : start + _AT_ONCE]
        made = synthesize(pipeline, some, range(config.seed + start, config.seed + start + len(some)), steps=steps, guidance_scale=guidance_scale)
        images += [inverter.reduced(image) for image in made if not isinstance(image, Failure)]
        if len(images) < start + len(some):
            raise RuntimeError("a picture could not be painted")
    return [list(group) for group in zip(*(images[number :: config.most] for number in range(config.most)), strict=True)]


def hidden(image: Image.Image, share: float, draw: random.Random) -> Image.Image:
    """Of any shape from flat to tall."""
    width = int(image.width * draw.uniform(share, 1)) if share else 0
    height = min(image.height, round(share * image.width * image.height / width)) if width else 0
    left, top = draw.randint(0, image.width - width), draw.randint(0, image.height - height)
    image = image.copy()
    if width and height:
        image.paste((128, 128, 128), (left, top, left + width, top + height))
    return image


def main(config: JointConfig) -> None:
    inverter = PromptInverter.from_pretrained(config.checkpoint)
    scenes = list(itertools.islice(random_scenes(config.seed, held_out=True), config.prompts))
    prompts = [prompt for _, prompt in scenes]
    draw = random.Random(config.seed)
    groups = [[hidden(image, config.hide, draw) for image in group] for group in painted(prompts, config, inverter)]
    judge = Judge(
        [[prompt] for prompt in prompts],
        [scene.key for scene, _ in scenes],
        similarity=SentenceSimilarity(),
        slots=[scene.slots() for scene, _ in scenes],
        read_slots=read_slots,
    )
    rows, judgements = [], []
    for together in range(1, config.most + 1):
        begun = time.perf_counter()
        found = inverter.predict_joint([group[:together] for group in groups])
        taken = time.perf_counter() - begun
        judgement = judge([one.prompt for one in found], [one.confidence for one in found])
        judgements.append(judgement)
        row: dict[str, object] = {"images": together} | {name: judgement.estimates[name].mean for name in METRICS}
        row |= {name: judgement.slots[name].mean for name in SLOTS if name in judgement.slots}
        row["ECE"] = judgement.calibration.error if judgement.calibration is not None else None
        row |= {"unfamiliar": sum(not one.is_familiar for one in found) / len(found), "ms a prompt": 1000 * taken / len(found)}
        rows.append(row)
    title = f"{len(prompts)} prompts of scenes held back" + (f", {config.hide:.0%} of each picture hidden" if config.hide else "")
    report(title, rows, torch.device("cpu"), config.json)
    gains = []
    for together, judgement in enumerate(judgements[1:], 2):
        differences = judge.differences(judgement, judgements[0])
        gain: dict[str, object] = {"images": together}
        for name in (*METRICS, *(f"slot {slot}" for slot in SLOTS[:3])):
            if name in differences:
                one = differences[name]
                gain[name] = f"{one.mean:+.4f} [{one.low:+.4f}, {one.high:+.4f}]"
        gains.append(gain)
    report("More than from one image, 95 % intervals of paired differences", gains, torch.device("cpu"), None)


if __name__ == "__main__":
    main(tyro.cli(JointConfig, description=__doc__))
