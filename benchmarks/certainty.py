"""Does a model know what it knows? Confidence and familiarity on fresh pictures of the embedded world, and familiarity on pictures of anything else.

    python benchmarks/certainty.py --others PHOTOS

Half of the scenes are such as generate_data.py draws, half are those that it holds back; seeds are of their own. Printed are the expected calibration
error of `Prediction.confidence` (right: word for word), its bins, the share of pictures called unfamiliar, and, for each folder of --others, how many
are there and the area under the ROC curve of `Prediction.familiarity`.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from rounds import report
from tqdm import tqdm

from data.errors import ImageError
from data.images import pictures_below, read_image
from diffusion.families import usual_sampling
from diffusion.mini import MINI
from diffusion.mini.world import random_scenes
from diffusion.pipelines import Failure, load_pipeline, synthesize
from evaluation.calibration import calibration
from inference import DEFAULT_CHECKPOINT, Prediction, PromptInverter

_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class CertaintyConfig:
    """What to measure, and on what."""

    checkpoint: Path = DEFAULT_CHECKPOINT
    scenes: int = 3000
    """Half of them of each kind."""
    others: tuple[Path, ...] = ()
    """Folders of other pictures."""
    others_count: int = 1000
    """Of each folder, drawn by chance."""
    seed: int = 20261127
    json: Path | None = None


def painted(config: CertaintyConfig, inverter: PromptInverter) -> tuple[list[Prediction], list[bool]]:
    """Predictions for painted scenes, and whether each is right."""
    pipeline = load_pipeline(MINI, device=torch.device("cpu"))
    steps, guidance_scale = usual_sampling(pipeline, MINI)
    kinds = [itertools.islice(random_scenes(config.seed, held_out=held_out), config.scenes // 2) for held_out in (False, True)]
    prompts = [prompt for kind in kinds for _, prompt in kind]
    predictions, right = list[Prediction](), list[bool]()
    for start in tqdm(range(0, len(prompts), _AT_ONCE), "painting and reading", unit="batch"):
        some = prompts[start : start + _AT_ONCE]
        made = synthesize(pipeline, some, range(config.seed + start, config.seed + start + len(some)), steps=steps, guidance_scale=guidance_scale)
        images = [image for image in made if not isinstance(image, Failure)]
        if len(images) < len(made):
            raise RuntimeError("a picture could not be painted")
        found = inverter.predict(images)
        predictions += found
        right += [prediction.prompt == prompt for prediction, prompt in zip(found, some, strict=True)]
    return predictions, right


def auroc(own: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """The chance that a picture of `own` is more familiar than one of `others`, equal ones counted half (Mann and Whitney)."""
    above = np.searchsorted(np.sort(others), own, side="left") + np.searchsorted(np.sort(others), own, side="right")
    return float(above.mean() / (2 * len(others)))


def main(config: CertaintyConfig) -> None:
    inverter = PromptInverter.from_pretrained(config.checkpoint)
    predictions, right = painted(config, inverter)
    half = len(right) // 2
    rows = []
    for name, some in (("scenes as drawn", slice(0, half)), ("scenes held back", slice(half, None)), ("all", slice(None))):
        confidences = [prediction.confidence for prediction in predictions[some]]
        found = calibration(confidences, np.array(right[some], dtype=np.float64))
        row: dict[str, object] = {"pictures": name, "count": len(confidences), "right": np.mean(right[some]), "confidence": np.mean(confidences)}
        row |= {"ECE": found.error, "unfamiliar": np.mean([not prediction.is_familiar for prediction in predictions[some]])}
        rows.append(row)
    bins = [{"confidence": one.confidence, "right": one.right, "count": one.count} for one in found.bins]
    report("Confidence on fresh pictures of the embedded world", rows, torch.device("cpu"), config.json)
    report("Its bins", bins, torch.device("cpu"), None)
    own = np.array([prediction.familiarity for prediction in predictions], dtype=np.float64)
    rows = []
    for folder in config.others:
        files = list(pictures_below(folder, lambda closed, why: print(closed, why)))
        images, unread = [], 0
        for file in random.Random(config.seed).sample(files, min(config.others_count, len(files))):
            try:
                images.append(inverter.reduced(read_image(file)))
            except ImageError:
                unread += 1
        read = inverter.predict(images, num_beams=1)
        others = np.array([prediction.familiarity for prediction in read], dtype=np.float64)
        unfamiliar = np.mean([not prediction.is_familiar for prediction in read])
        rows.append({"folder": folder.name, "pictures": len(others), "unread": unread, "unfamiliar": unfamiliar, "AUROC": auroc(own, others)})
    if rows:
        report("Familiarity of other pictures", rows, torch.device("cpu"), None)


if __name__ == "__main__":
    main(tyro.cli(CertaintyConfig, description=__doc__))
