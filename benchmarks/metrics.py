"""How long judging takes, and in how much memory: all metrics with intervals and the paired differences of two captioners, on prompts of the embedded
world (or the lines of a file), whose predictions lack a word in six.

    python benchmarks/metrics.py --samples 10000
    python benchmarks/metrics.py --samples 100000 --without-similarity
"""

from __future__ import annotations

import itertools
import random
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from rounds import machine, markdown

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from diffusion.mini.world import random_scenes, read_slots
from evaluation.judging import Judge
from evaluation.meaning import SentenceSimilarity


@dataclass(frozen=True, kw_only=True)
class MetricsConfig:
    """On what to measure."""

    samples: int = 10_000
    prompts: Path | None = None
    """A prompt on each line, from the first again when they run out."""
    without_similarity: bool = False
    """Leave the sentence model out, whose share of the time is the largest."""


def main(config: MetricsConfig) -> None:
    draw = random.Random(0)
    if config.prompts is not None:
        lines = [line for line in config.prompts.read_text(encoding="utf-8").splitlines() if line.strip()]
        prompts, slots = list(itertools.islice(itertools.cycle(lines), config.samples)), []
    else:
        scenes = list(itertools.islice(random_scenes(0, held_out=False), config.samples))
        prompts, slots = [prompt for _, prompt in scenes], [scene.slots() for scene, _ in scenes]
    predictions = [[" ".join(word for word in prompt.split() if draw.random() > 1 / 6) for prompt in prompts] for _ in range(2)]
    similarity = None if config.without_similarity else SentenceSimilarity()
    rows, began = [], time.perf_counter()

    def lap(what: str) -> None:
        nonlocal began
        now = time.perf_counter()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        rows.append({"step": what, "seconds": f"{now - began:.1f}", "most memory so far, GB": f"{peak:.2f}"})
        began = now

    judge = Judge(
        [[prompt] for prompt in prompts], [str(i) for i in range(config.samples)], similarity=similarity, slots=slots, read_slots=read_slots
    )
    lap("document frequencies")
    one = judge(predictions[0])
    lap("the first captioner, references embedded")
    other = judge(predictions[1])
    lap("another captioner")
    judge.differences(one, other)
    lap("their differences")
    judge.extremes()
    lap("the range of each metric")
    print(f"{config.samples} samples; {machine(torch.device('cpu'))}\n\n{markdown(rows)}")


if __name__ == "__main__":
    main(tyro.cli(MetricsConfig, description=__doc__))
