"""Score the pairs of a data set by how well prompt and image fit, so that training can leave out, weigh or postpone those that do not.

Examples:
    python score.py --data datasets/mine --checkpoint runs/small/model
    python score.py --data datasets/mine --clip openai/clip-vit-large-patch14
    python train.py small --data datasets/mine --min-fit 0.2 --name filtered
    python train.py small --data datasets/mine --weigh --fit-measure clip --name weighed

By likelihood, a network that was trained on the noisy pairs will do (CapFilt, arXiv 2201.12086): the fit is the log-probability of the prompt given
its image, less that given other images, per token; below 0 another image would make the prompt likelier. By CLIP it is the cosine of both embeddings.
Scores go into columns of the shards' parquet files, `fit` or `clip_fit`, and how likely each pair fits into `fit_chance` or `clip_fit_chance`. It can
be stopped at any time; the same command goes on with the shards that this model has not scored. A pair's own image and those of its group of prompts
are never among the other images.
"""

from __future__ import annotations

import hashlib
import random
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # Ctrl-C from here on ends the process, whatever is being imported
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from data.console import begin_command, check_least, read_command_line
from inference import DEFAULT_CHECKPOINT


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """What to score, with what."""

    data: Path
    """A data set directory of ours."""
    checkpoint: str = str(DEFAULT_CHECKPOINT)
    """A checkpoint directory or Hub id, best one trained on data of this kind."""
    revision: str | None = None
    """Of a Hub id: a branch, a tag or a commit."""
    clip: str | None = None
    """Score by this CLIP or SigLIP instead: a directory or a Hub id."""
    batch_size: int = 64
    again: bool = False
    """Score shards again that have scores."""
    seed: int = 0
    """Decides which images stand for any other."""

    def __post_init__(self) -> None:
        check_least(1, batch_size=self.batch_size)


if __name__ == "__main__":  # --help, a wrong option and Ctrl-C do not wait for the imports below, which take seconds
    CONFIG = read_command_line(ScoreConfig, __doc__)

import numpy as np
from PIL import Image
from tqdm import tqdm

from data.errors import ImageError, MissingExtraError, PairError, ShardError
from data.loading.fit import Hills, two_hills
from data.splits import SPLITS
from data.store.columns import FIT_COLUMNS, Measure, chance_column, column_origin, read_column, write_column
from data.store.directory import finished_shards, index_shard
from data.store.pairs import ArchivePairs
from inference import PromptInverter
from inference.fit import REFERENCES, PromptFit
from model import CheckpointError
from peers.clip import Clip


@dataclass(frozen=True)
class ScoredPair:
    key: str
    image: Image.Image
    prompt: str
    group: str


Fit = Callable[[Sequence[ScoredPair]], list[float]]


def main(config: ScoreConfig) -> None:
    tars = [tar for split in SPLITS for tar in finished_shards(config.data / split)]
    if not tars:
        raise ShardError(f"{config.data} is not a data set directory with finished shards")
    measure: Measure = "likelihood" if config.clip is None else "clip"
    column = FIT_COLUMNS[measure]
    fit, origin = _fit(config, tars)
    origins = {tar: column_origin(tar, column) for tar in tars}
    missing = [tar for tar in tars if config.again or origins[tar] != origin]
    if others := sum(origins[tar] is not None for tar in missing):
        why = "again" if config.again else "anew, since another model or other references scored them"
        print(f"{others} of {len(tars)} shards have scores and are scored {why}", file=sys.stderr)
    unread = 0
    if missing:
        total = sum(len(index_shard(tar)) for tar in missing)
        with tqdm(total=total, unit="pair", desc="scoring") as bar:
            for tar in missing:
                scores = _score(tar, fit, config.batch_size, bar)
                unread += len(index_shard(tar)) - len(scores)
                write_column(tar, column, scores, origin=origin)
    if unread:
        print(f"{unread} pairs could not be read and have no score", file=sys.stderr)
    hills = two_hills(_scores(tars, column))
    if missing or any(column_origin(tar, chance_column(measure)) != origin for tar in tars):
        for tar in tars:
            write_column(tar, chance_column(measure), _chances(read_column(tar, column) or {}, hills), origin=origin)
    _show(config.data, _scores(tars, column), hills, measure)


def _fit(config: ScoreConfig, tars: list[Path]) -> tuple[Fit, str]:
    """What scores pairs, and the name under which its scores are known again."""
    if config.clip is not None:
        by_clip = Clip(config.clip)
        return lambda pairs: by_clip([pair.image for pair in pairs], [pair.prompt for pair in pairs]), f"clip {by_clip.fingerprint()}"
    inverter = PromptInverter.from_pretrained(config.checkpoint, revision=config.revision)
    references = _references(tars, config.seed)
    by_likelihood = PromptFit(inverter, [pair.image for pair in references], [pair.group for pair in references])
    drawn = hashlib.sha256(" ".join(pair.key for pair in references).encode()).hexdigest()[:16]

    def fit(pairs: Sequence[ScoredPair]) -> list[float]:
        return by_likelihood([pair.image for pair in pairs], [pair.prompt for pair in pairs], [pair.group for pair in pairs])

    return fit, f"likelihood {inverter.fingerprint()} beside {drawn}"


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


def _read(pairs: ArchivePairs, number: int) -> ScoredPair:
    """
    Raises:
        ImageError, PairError: it cannot be read.
    """
    pair = pairs[number]
    return ScoredPair(pair.key, pair.image, pair.prompt, str(pair.metadata.get("prompt_group") or pair.prompt))


def _references(tars: list[Path], seed: int) -> list[ScoredPair]:
    """Pairs from anywhere in the data, each of another group, and one more than a pair is compared with: its own group is left out."""
    draw = random.Random(seed)
    pairs = ArchivePairs([location for tar in draw.sample(tars, min(len(tars), 8)) for location in index_shard(tar)])
    found: dict[str, ScoredPair] = {}
    for number in draw.sample(range(len(pairs)), len(pairs)):
        if len(found) == REFERENCES + 1:
            break
        with suppress(ImageError, PairError):
            pair = _read(pairs, number)
            found.setdefault(pair.group, pair)
    if len(found) < 2:
        raise ShardError("a pair is scored beside pairs of other groups of prompts, and this data has one group alone; score it with --clip")
    return list(found.values())


def _score(tar: Path, fit: Fit, batch_size: int, bar: tqdm) -> dict[str, float]:
    """By key; pairs that cannot be read have no score."""
    pairs, scores = ArchivePairs(index_shard(tar)), dict[str, float]()
    for start in range(0, len(pairs), batch_size):
        read: list[ScoredPair] = []
        for number in range(start, min(start + batch_size, len(pairs))):
            with suppress(ImageError, PairError):
                read.append(_read(pairs, number))
        if read:
            scores |= dict(zip((pair.key for pair in read), fit(read), strict=True))
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
    begin_command()
    try:
        main(CONFIG)
    except (CheckpointError, MissingExtraError, OSError, ValueError) as error:
        sys.exit(f"score.py: {error}")
    except KeyboardInterrupt:
        sys.exit("\nscore.py: stopped. Shards that were scored are kept; run the same command to go on.")
