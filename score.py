"""Score the pairs of a data set by how well prompt and image fit, so that training can leave out or postpone those that do not.

Examples:
    python score.py --data datasets/mine --checkpoint runs/small/model
    python train.py small --data datasets/mine --min-fit 0.2 --name filtered

A network that was trained on the noisy pairs will do (CapFilt, arXiv 2201.12086). The fit is the log-probability of the prompt given its image,
less that given other images, per token; below 0 another image would make the prompt likelier. It goes into the column `fit` of the shards' parquet
files. It can be stopped at any time; the same command goes on with the shards that have no score.
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from tqdm import tqdm

from data.fitting import FIT_COLUMN
from data.images import ImageError
from data.pairs import ArchivePairs, PairError
from data.shards import ShardError, finished_shards, index_shard, read_column, write_column
from data.splits import SPLITS
from inference import PromptInverter
from inference.fit import REFERENCES, PromptFit
from inference.inverter import DEFAULT_CHECKPOINT
from model import CheckpointError


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """What to score, with what."""

    data: Path
    """A data set directory of ours."""
    checkpoint: str = str(DEFAULT_CHECKPOINT)
    """A checkpoint directory or Hub id, best one trained on data of this kind."""
    batch_size: int = 64
    again: bool = False
    """Score shards again that have scores."""
    seed: int = 0
    """Decides which images stand for any other."""


def main(config: ScoreConfig) -> None:
    tars = [tar for split in SPLITS for tar in finished_shards(config.data / split)]
    if not tars:
        raise ShardError(f"{config.data} is not a data set directory with finished shards")
    missing = [tar for tar in tars if config.again or read_column(tar, FIT_COLUMN) is None]
    if missing:
        fit = PromptFit(PromptInverter.from_pretrained(config.checkpoint), _references(tars, config.seed))
        total = sum(len(index_shard(tar)) for tar in missing)
        with tqdm(total=total, unit="pair", desc="scoring") as bar:
            for tar in missing:
                write_column(tar, FIT_COLUMN, _score(tar, fit, config.batch_size, bar))
    scores = np.array([value for tar in tars for value in (read_column(tar, FIT_COLUMN) or {}).values() if value is not None])
    if not len(scores):
        raise ShardError("no pair could be scored")
    _show(scores)
    print(f"\nNext: python train.py --data {config.data} --min-fit 0.2   (or where two hills of the histogram meet)")


def _references(tars: list[Path], seed: int) -> list:
    """Images from anywhere in the data."""
    draw = random.Random(seed)
    pairs = ArchivePairs([location for tar in draw.sample(tars, min(len(tars), 8)) for location in index_shard(tar)])
    found: list = []
    for number in draw.sample(range(len(pairs)), len(pairs)):
        if len(found) == REFERENCES:
            break
        try:
            found.append(pairs.image(number))
        except ImageError:
            continue
    return found


def _score(tar: Path, fit: PromptFit, batch_size: int, bar: tqdm) -> dict[str, float]:
    """By key; pairs that cannot be read have no score."""
    pairs, scores = ArchivePairs(index_shard(tar)), dict[str, float]()
    for start in range(0, len(pairs), batch_size):
        keys, images, prompts = [], [], []
        for number in range(start, min(start + batch_size, len(pairs))):
            try:
                image, prompt = pairs.image(number), pairs.prompt(number)
            except (ImageError, PairError):
                continue
            keys.append(pairs.locations[number].key)
            images.append(image)
            prompts.append(prompt)
        if keys:
            scores |= dict(zip(keys, fit(images, prompts), strict=True))
        bar.update(min(batch_size, len(pairs) - start))
    return scores


def _show(scores: np.ndarray) -> None:
    counts, edges = np.histogram(scores, bins=16)
    print(f"{len(scores)} pairs; fit, per token:")
    for number, count in enumerate(counts):
        print(f"  {edges[number]:6.2f} to {edges[number + 1]:6.2f}  {count:7d}  {'#' * round(50 * count / max(1, counts.max()))}")
    print(f"below 0: {int((scores < 0).sum())} ({(scores < 0).mean():.1%})")


if __name__ == "__main__":
    try:
        main(tyro.cli(ScoreConfig, description=__doc__))
    except (CheckpointError, ImageError, OSError, PairError, ShardError, ValueError) as error:
        sys.exit(f"score.py: {error}")
    except KeyboardInterrupt:
        sys.exit("\nscore.py: stopped. Shards that were scored are kept; run the same command to go on.")
