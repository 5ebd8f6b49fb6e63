"""The bundled model beside its teachers: what the model in the box reads off their pictures, how much pictures differ by seed, and the time of each.

    python benchmarks/distilled.py
    python benchmarks/distilled.py --students runs/mini-student assets/mini-diffusion --images 200
    python benchmarks/distilled.py --teacher runs/mini-four --teacher-steps 4 --teacher-guidance 1

Scenes and seeds are ones that no shipped network was trained on, the same for every model. assets/mini-diffusion/README.md says how to have
the teachers.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image
from rounds import machine, markdown
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from diffusion.mini.networks import STUDENT_STEPS, TEACHER_GUIDANCE, TEACHER_STEPS
from diffusion.mini.world import random_scenes, read_slots
from diffusion.pipelines import load_pipeline, synthesize
from evaluation.meaning import SentenceSimilarity
from evaluation.overlap import exact_match, slot_scores
from inference import PromptInverter

SLOTS = ("subject", "other", "relation", "count", "colour", "background", "style", "weather", "light", "shot")


@dataclass(frozen=True, kw_only=True)
class DistilledConfig:
    """What to compare."""

    teacher: str = "runs/mini-teacher"
    teacher_steps: int = TEACHER_STEPS
    teacher_guidance: float = TEACHER_GUIDANCE
    students: tuple[str, ...] = ("mini",)
    """"mini" or pipeline directories, each painted with in its two steps."""
    reader: str = "assets/mini-inverter"
    images: int = 1000
    other_steps: tuple[int, ...] = ()
    """Paint with the students in these numbers of steps as well; 50 are what a caller of diffusers gets who names none."""
    seeds_per_scene: int = 8
    """For the differences by seed, on an eighth of the scenes."""
    scenes: int = 4242
    """Decides the scenes, and the seeds of the pictures."""


def main(config: DistilledConfig) -> None:
    scenes = list(itertools.islice(random_scenes(config.scenes, held_out=True), config.images))
    reader, similarity = PromptInverter.from_pretrained(config.reader), SentenceSimilarity()
    models = [("teacher", config.teacher, config.teacher_steps, config.teacher_guidance)]
    models += [(name, name, steps, 1.0) for name in config.students for steps in (STUDENT_STEPS, *config.other_steps)]
    rows = []
    pipelines = {name: load_pipeline(name, device=torch.device("cpu")) for name in {model[1] for model in models}}
    times: dict[tuple[str, int], list[float]] = {(name, steps): [] for name, _, steps, _ in models}
    pictures: dict[tuple[str, int], list[Image.Image]] = {key: [] for key in times}
    for start in tqdm(range(0, config.images, 32), "painting", unit="batch"):  # side by side
        prompts = [prompt for _, prompt in scenes[start : start + 32]]
        for name, source, steps, guidance in models:
            begun = time.perf_counter()
            seeds = range(config.scenes + start, config.scenes + start + len(prompts))
            made = synthesize(pipelines[source], prompts, seeds, steps=steps, guidance_scale=guidance)
            times[name, steps].append((time.perf_counter() - begun) / len(prompts))
            pictures[name, steps] += [image for image in made if isinstance(image, Image.Image)]
    wanted = [prompt for _, prompt in scenes]
    references = [[prompt] for prompt in wanted]
    some = wanted[: max(1, config.images // 8)]
    for name, source, steps, guidance in models:
        texts = [prediction.prompt for prediction in reader.predict(pictures[name, steps])]
        guesses = [read_slots(text) for text in texts]
        truths = [scene.slots() for scene, _ in scenes]
        accuracy = {slot: np.nanmean(scores) for slot, scores in slot_scores(truths, guesses).items()}
        whole = sum(all(guess[slot] == truth[slot] for slot in SLOTS) for guess, truth in zip(guesses, truths, strict=True)) / len(truths)
        features, pixels = [], []
        for number, prompt in enumerate(some):
            seeds = range(number * config.seeds_per_scene, (number + 1) * config.seeds_per_scene)
            made = synthesize(pipelines[source], [prompt] * len(seeds), seeds, steps=steps, guidance_scale=guidance)
            pixels.append(_spread(torch.from_numpy(np.stack([np.asarray(image, np.float32) / 255 for image in made])).flatten(1)))
            features.append(_spread(_features(reader, made)))
        row = {"model": name, "steps": steps, "ms an image": f"{1000 * statistics.median(times[name, steps]):.1f}"}
        row |= {"similarity": f"{similarity(references, texts).mean():.3f}", "exact": f"{exact_match(references, texts).mean():.3f}"}
        row |= {slot: f"{accuracy[slot]:.3f}" for slot in SLOTS} | {"all": f"{whole:.3f}"}
        rows.append(row | {"features by seed": f"{statistics.mean(features):.4f}", "pixels by seed": f"{statistics.mean(pixels):.4f}"})
    print(f"{machine(torch.device('cpu'))}; {config.images} scenes, read by {config.reader}\n")
    print(markdown(rows))
    print("\nby seed: the mean distance of two pictures of one prompt: root mean square of pixels, and of the reader's features, each of unit length")


@torch.no_grad()
def _features(reader: PromptInverter, pictures: list[Image.Image]) -> torch.Tensor:
    images = reader.preprocess.normalise(torch.stack([reader.preprocess.pixels(picture) for picture in pictures]))
    return torch.nn.functional.normalize(reader.model.encoder(images).mean(1), dim=-1)


def _spread(vectors: torch.Tensor) -> float:
    """Mean over all pairs of the root mean square difference."""
    return float(torch.pdist(vectors).mean() / vectors.shape[1] ** 0.5)


if __name__ == "__main__":
    main(tyro.cli(DistilledConfig, description=__doc__))
