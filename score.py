"""Score the pairs of a data set by how well prompt and image fit, so that training can leave out, weigh or postpone those that do not.

Examples:
    python score.py --data datasets/mine --checkpoint runs/small/model
    python score.py --data datasets/mine --clip openai/clip-vit-large-patch14
    python train.py small --data datasets/mine --min-fit 0.2 --name filtered
    python train.py small --data datasets/mine --weigh --fit-measure clip --name weighed

By likelihood, a network that was trained on the noisy pairs will do (CapFilt, arXiv 2201.12086): the fit is the log-probability of the prompt given
its image, less that given other images, per token; below 0 another image would make the prompt likelier. By CLIP it is the cosine of both embeddings.
Scores go into columns of the shards' parquet files, `fit` or `clip_fit`, and how likely each pair fits into `fit_chance` or `clip_fit_chance`. It can
be stopped at any time; the same command goes on with the shards that have no score.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image
from tqdm import tqdm

from data.errors import ImageError, MissingExtraError, PairError, ShardError
from data.loading.fit import FIT_COLUMNS, Hills, Measure, chance_column, two_hills
from data.splits import SPLITS
from data.store.columns import read_column, write_column
from data.store.directory import finished_shards, index_shard
from data.store.pairs import ArchivePairs
from inference import PromptInverter
from inference.clip import ClipFit
from inference.fit import REFERENCES, PromptFit
from inference.inverter import DEFAULT_CHECKPOINT
from model import CheckpointError

Fit = Callable[[Sequence[Image.Image], Sequence[str]], list[float]]


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """What to score, with what."""

    data: Path
    """A data set directory of ours."""
    checkpoint: str = str(DEFAULT_CHECKPOINT)
    """A checkpoint directory or Hub id, best one trained on data of this kind."""
    clip: str | None = None
    """Score by this CLIP or SigLIP instead: a directory or a Hub id."""
    batch_size: int = 64
    again: bool = False
    """Score shards again that have scores."""
    seed: int = 0
    """Decides which images stand for any other."""


def main(config: ScoreConfig) -> None:
    tars = [tar for split in SPLITS for tar in finished_shards(config.data / split)]
    if not tars:
        raise ShardError(f"{config.data} is not a data set directory with finished shards")
    if config.batch_size < 1:
        raise ValueError("--batch-size must be 1 or more")
    measure: Measure = "likelihood" if config.clip is None else "clip"
    column = FIT_COLUMNS[measure]
    missing = [tar for tar in tars if config.again or read_column(tar, column) is None]
    unread = 0
    if missing:
        fit = _fit(config, tars)
        total = sum(len(index_shard(tar)) for tar in missing)
        with tqdm(total=total, unit="pair", desc="scoring") as bar:
            for tar in missing:
                scores = _score(tar, fit, config.batch_size, bar)
                unread += len(index_shard(tar)) - len(scores)
                write_column(tar, column, scores)
    if unread:
        print(f"{unread} pairs could not be read and have no score", file=sys.stderr)
    hills = two_hills(_scores(tars, column))
    if missing or any(read_column(tar, chance_column(measure)) is None for tar in tars):
        for tar in tars:
            write_column(tar, chance_column(measure), _chances(read_column(tar, column) or {}, hills))
    _show(config.data, _scores(tars, column), hills, measure)


def _fit(config: ScoreConfig, tars: list[Path]) -> Fit:
    if config.clip is not None:
        return ClipFit(config.clip)
    return PromptFit(PromptInverter.from_pretrained(config.checkpoint), _references(tars, config.seed))


def _scores(tars: list[Path], column: str) -> np.ndarray:
    scores = np.array([value for tar in tars for value in (read_column(tar, column) or {}).values() if value is not None])
    if not len(scores):
        raise ShardError("no pair could be scored")
    return scores


def _chances(scores: Mapping[str, float | None], hills: Hills | None) -> dict[str, float]:
    """How likely the pairs of a shard fit, by key; those of one hill are all as good."""
    scored = {key: score for key, score in scores.items() if score is not None}
    chances = np.ones(len(scored)) if hills is None or not scored else hills.chance(np.array(list(scored.values())))
    return dict(zip(scored, map(float, chances), strict=True))


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


def _score(tar: Path, fit: Fit, batch_size: int, bar: tqdm) -> dict[str, float]:
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


def _show(data: Path, scores: np.ndarray, hills: Hills | None, measure: Measure) -> None:
    counts, edges = np.histogram(scores, bins=16)
    print(f"{len(scores)} pairs by their fit:")
    for number, count in enumerate(counts):
        print(f"  {edges[number]:6.2f} to {edges[number + 1]:6.2f}  {count:7d}  {'#' * round(50 * count / max(1, counts.max()))}")
    if hills is None:
        print("\nOne hill: the scores do not tell good pairs from bad ones.")
        return
    low, high = hills.means
    below, by = (scores < hills.threshold).mean(), "" if measure == "likelihood" else f" --fit-measure {measure}"
    print(f"\nTwo hills, around {low:.2f} and {high:.2f}; they meet at {hills.threshold:.2f}, and {below:.1%} of the pairs are below.")
    print(f"Next: python train.py --data {data} --min-fit {hills.threshold:.2f}{by}      without those")
    print(f"      python train.py --data {data} --weigh{by}      each pair as often as it is likely to fit")


if __name__ == "__main__":
    try:
        main(tyro.cli(ScoreConfig, description=__doc__))
    except (CheckpointError, MissingExtraError, OSError, ValueError) as error:
        sys.exit(f"score.py: {error}")
    except KeyboardInterrupt:
        sys.exit("\nscore.py: stopped. Shards that were scored are kept; run the same command to go on.")
