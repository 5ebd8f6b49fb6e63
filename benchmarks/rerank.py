"""Does choosing among drawn prompts pay? Plain beam search beside minimum Bayes risk and rendering, with paired intervals.

python benchmarks/rerank.py
python benchmarks/rerank.py --data datasets/mini --pictures 600 --clip DIR
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from PIL import Image
from rounds import report

from data.sources.held_out import HeldOutPictures
from data.sources.opening import open_splits
from diffusion.mini.world import read_slots
from diffusion.painting import painting_with
from evaluation.captioners import About, Caption, Captioner
from evaluation.comparison import compare
from evaluation.inverting import InverterCaptioner
from evaluation.judging import Judge
from evaluation.meaning import SentenceSimilarity
from inference import DEFAULT_CHECKPOINT, PromptInverter
from inference.reranking import CANDIDATES, BayesRisk, ClipFit, Rendering, Reranker, reranked
from peers.clip import Clip

METRICS = ("similarity", "cider_d", "exact_match", "subject_similarity")


@dataclass(frozen=True, kw_only=True)
class RerankConfig:
    """On what, and with what."""

    checkpoint: Path = DEFAULT_CHECKPOINT
    data: str = "assets/mini-benchmark"
    pictures: int = 500
    candidates: int = CANDIDATES
    paint: str = "mini"
    clip: str | None = None
    """A CLIP, which is then compared too."""
    json: Path | None = None


class Reranked:
    """A captioner of `evaluation`."""

    def __init__(self, inverter: PromptInverter, name: str, reranker: Reranker, candidates: int) -> None:
        self.inverter, self.reranker, self.candidates = inverter, reranker, candidates
        self.about = About(fingerprint=f"{inverter.fingerprint()} {name} {candidates}")

    def caption(self, images: Sequence[Image.Image]) -> list[Caption]:
        found = reranked(self.inverter, images, self.reranker, candidates=self.candidates, batch_size=len(images))
        return [Caption(one.prompt, one.confidence) for one in found]


def main(config: RerankConfig) -> None:
    inverter = PromptInverter.from_pretrained(config.checkpoint)
    pictures = HeldOutPictures.of(open_splits(config.data)["test"], config.pictures)

    def rendering() -> Reranker:
        return Rendering(painting_with(config.paint, inverter.device)[0], inverter.features)

    ways: dict[str, Callable[[], Reranker]] = {"mbr": BayesRisk, "render": rendering}
    if config.clip is not None:
        clip = config.clip
        ways["clip"] = lambda: ClipFit(Clip(clip))
    captioners: dict[str, Callable[[], Captioner]] = {"beam": lambda: InverterCaptioner(inverter, str(config.checkpoint))}
    captioners |= {name: lambda name=name, build=build: Reranked(inverter, name, build(), config.candidates) for name, build in ways.items()}  # type: ignore[misc]
    judge = Judge(pictures.references, pictures.groups, similarity=SentenceSimilarity(), slots=pictures.slots, read_slots=read_slots)
    comparison = compare(captioners, pictures, judge)
    beam, *others = comparison.columns
    rows = []
    for column in comparison.columns:
        if column.judgement is None or column.captioned is None or beam.captioned is None:
            raise RuntimeError(f"{column.name}: {column.failed}")
        cost = statistics.median(seconds / size for size, seconds in column.captioned.seconds)
        row: dict[str, object] = {"way": column.name} | {name: column.judgement.estimates[name].mean for name in METRICS}
        rows.append(row | {"subject": column.judgement.slots["subject"].mean, "ms an image": 1000 * cost})
    report(f"{len(pictures)} pictures, {config.candidates} candidates", rows, torch.device("cpu"), config.json)
    gains = []
    for column in others:
        row = {"way": column.name}
        for name in METRICS:
            one = column.differences[name]  # of beam's minus this one's
            row[name] = f"{-one.mean:+.4f} [{-one.high:+.4f}, {-one.low:+.4f}]"
        gains.append(row)
    report("What each has more than beam search, 95 % intervals of paired differences", gains, torch.device("cpu"), None)


if __name__ == "__main__":
    main(tyro.cli(RerankConfig, description=__doc__))
