"""After training: how sure the model may be of what it writes, and which pictures are like those it knows. train.py does it at its end; for a
checkpoint that was trained before:

    python -m inference.certainty --checkpoint DIR --data SOURCE

Both are kept in the checkpoint: the scale of its confidence in its config.json, the pictures' measure in familiarity.safetensors.
"""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # Ctrl-C from here on ends the process, whatever is being imported
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from data.console import begin_command, check_least, read_command_line


@dataclass(frozen=True, kw_only=True)
class CertaintyConfig:
    """Which checkpoint, and what it was trained on."""

    checkpoint: Path
    """A checkpoint directory, ours or a BLIP or GIT of Hugging Face; it is added to."""
    data: str
    """The data it was trained on, as train.py takes it."""
    image_column: str | None = None
    prompt_column: str | None = None
    label_smoothing: float | None = None
    """That a BLIP or GIT of Hugging Face was trained with, where its config.json does not say."""

    def __post_init__(self) -> None:
        check_least(0, label_smoothing=self.label_smoothing)
        if self.label_smoothing is not None and self.label_smoothing >= 1:
            raise ValueError(f"--label-smoothing must be below 1, not {self.label_smoothing}")


if __name__ == "__main__":  # --help and a wrong option do not wait for the imports below, which take seconds
    CONFIG = read_command_line(CertaintyConfig, __doc__)

import dataclasses
import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from data.errors import ImageError, MissingExtraError, PairError, ShardError
from data.files import read_json, write_text
from data.sources.chosen import PairSource
from data.sources.held_out import HeldOutPictures, spread_pairs
from data.sources.opening import open_splits
from inference import load_inverter
from inference.loading import Inverter
from inference.outliers import outliers
from inference.peer import PeerInverter
from model import CheckpointError, NotFiniteError
from model.confidence import CERTAINTY, Scale, fit_scale
from model.familiarity import Familiarity
from model.files import CONFIG_FILE

TRAINING_PICTURES = 4000  # that familiarity is learned from; as many outliers are made of them
HELD_OUT_PICTURES = 2000  # that say what is strange
HELD_OUT_PAIRS = 2000  # whose prompts are written, to see how often they are right
_BATCH = 32
_UPDATES, _LEARNED_TOGETHER, _LEARNING_RATE, _WEIGHT_DECAY, _DROPOUT = 600, 256, 3e-3, 0.05, 0.2
_FEWEST = 20  # pictures or pairs of which nothing can be learned


@dataclass(frozen=True, kw_only=True)
class Certainty:
    """What was found out. `confidence` is the mean of what the model held its validation prompts to be right with, `right` the share that were."""

    scale: Scale
    confidence: float
    right: float
    pairs: int
    pictures: int
    held_out: int

    def __str__(self) -> str:
        return (
            f"Confidence: of {self.pairs} validation prompts {self.right:.3f} are right word for word, {self.confidence:.3f} were expected. "
            f"Familiarity: learned from {self.pictures} training and {self.held_out} validation pictures"
        )


def learn_certainty(directory: Path, training: PairSource, validation: PairSource, *, label_smoothing: float | None = None) -> Certainty:
    """Learn both from pairs, and keep them in the checkpoint.

    Args:
        training: pairs that the model was trained on.
        validation: pairs that it was not.
        label_smoothing: that a network of transformers was trained with; None leaves what its config.json says. Ours say it.

    Raises:
        CheckpointError: no checkpoint.
        ShardError: too few pictures can be read.
    """
    inverter = load_inverter(directory)
    held_out = HeldOutPictures.of(validation, HELD_OUT_PICTURES)
    if len(held_out) < _FEWEST:
        raise ShardError(f"only {len(held_out)} validation pictures can be read; {_FEWEST} are the fewest that confidence can be learned from")
    if label_smoothing is not None:
        _set_label_smoothing(directory, inverter, label_smoothing)
    scale, sure, right = _scale(inverter, held_out)
    _keep_scale(directory, inverter, scale)
    known = _pixels(inverter, training, TRAINING_PICTURES)
    strange = torch.stack([_resized(inverter, held_out.images(place, 1)[0]) for place in range(len(held_out))])
    familiarity = fit_familiarity(inverter, known, strange)
    familiarity.save(directory)
    pairs = min(len(held_out), HELD_OUT_PAIRS)
    return Certainty(scale=scale, confidence=sure, right=right, pairs=pairs, pictures=len(known), held_out=len(held_out))


def _set_label_smoothing(directory: Path, inverter: Inverter, label_smoothing: float) -> None:
    """Of a network of transformers; ours says it."""
    if isinstance(inverter, PeerInverter):
        about = getattr(inverter.model.config, CERTAINTY, {})
        setattr(inverter.model.config, CERTAINTY, {**about, "label_smoothing": label_smoothing})
    elif "model_type" in read_json(directory / CONFIG_FILE):
        inverter.model.config = dataclasses.replace(inverter.model.config, label_smoothing=label_smoothing)


def _scale(inverter: Inverter, held_out: HeldOutPictures) -> tuple[Scale, float, float]:
    """The scale, the mean confidence with it, and the share of prompts that are right."""
    count = min(len(held_out), HELD_OUT_PAIRS)
    plain = dataclasses.replace(inverter.confidence, scale=None)
    log_probs, right = list[list[float]](), list[bool]()
    for first in tqdm(range(0, count, _BATCH), "writing validation prompts", unit="batch", leave=False):
        size = min(_BATCH, count - first)
        for place, prediction in enumerate(inverter.predict(held_out.images(first, size)), first):
            log_probs.append(plain.without_smoothing(prediction.log_probs))
            right.append(prediction.prompt.strip() in [prompt.strip() for prompt in held_out.references[place]])
    scale = fit_scale(log_probs, right)
    fitted = dataclasses.replace(plain, scale=scale)
    return scale, sum(map(fitted.of_text, log_probs)) / count, sum(right) / count


def _keep_scale(directory: Path, inverter: Inverter, scale: Scale) -> None:
    """In config.json, and there alone: the weights beside it stay as they are."""
    path = directory / CONFIG_FILE
    config: dict[str, Any] = read_json(path)
    if isinstance(inverter, PeerInverter) or "model_type" in config:
        smoothing = inverter.confidence.label_smoothing
        config[CERTAINTY] = {"label_smoothing": smoothing, "scale": scale}
    else:
        config["confidence_scale"] = scale
    write_text(path, json.dumps(config, indent=2) + "\n")


def fit_familiarity(inverter: Inverter, known: Tensor, held_out: Tensor, *, seed: int = 0) -> Familiarity:
    """
    Args:
        known, held_out: (N, 3, H, W) uint8, training pictures and others of the same data.
    """
    generator = torch.Generator().manual_seed(seed)
    own = torch.cat([_pooled(inverter, part) for part in tqdm(known.split(_BATCH), "looking at training pictures", unit="batch", leave=False)])
    parts = tqdm(known.split(_BATCH), "looking at outliers", unit="batch", leave=False)
    others = torch.cat([_pooled(inverter, outliers(part, generator)) for part in parts])
    held = torch.cat([_pooled(inverter, part) for part in held_out.split(_BATCH)])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        familiarity = Familiarity(own.shape[1] // 2, known=len(held))
        familiarity.standardise(own)
        examples, labels = torch.cat([own, others]), torch.cat([torch.zeros(len(own)), torch.ones(len(others))])
        optimizer = torch.optim.AdamW(familiarity.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
        for _ in range(_UPDATES):
            some = torch.randint(len(examples), (_LEARNED_TOGETHER,))
            odds = familiarity.log_odds(examples[some], dropout=_DROPOUT)
            loss = F.binary_cross_entropy_with_logits(odds, labels[some].expand_as(odds))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        familiarity.own.copy_(familiarity.log_odds(held).mean(0).sort().values)
    return familiarity.eval()


def _pooled(inverter: Inverter, pictures: Tensor) -> Tensor:
    return Familiarity.pooled(inverter.encode(pictures)).cpu()


def _pixels(inverter: Inverter, source: PairSource, count: int) -> Tensor:
    """Pictures from all over the source, (N, 3, H, W) uint8 at the size that the network sees."""

    def readable() -> Iterator[Tensor]:
        for _, pair in spread_pairs(source):
            if pair is not None:
                yield _resized(inverter, pair.image)

    found = list(tqdm(islice(readable(), count), "reading training pictures", total=min(count, len(source)), unit="picture", leave=False))
    if len(found) < _FEWEST:
        raise ShardError(f"only {len(found)} training pictures can be read; {_FEWEST} are the fewest that familiarity can be learned from")
    return torch.stack(found)


def _resized(inverter: Inverter, image: Any) -> Tensor:
    height, width = inverter.picture_size
    reduced = inverter.reduced(image).resize((width, height))
    return torch.frombuffer(bytearray(reduced.tobytes()), dtype=torch.uint8).view(height, width, 3).permute(2, 0, 1)


def main(config: CertaintyConfig) -> None:
    splits = open_splits(config.data, image_name=config.image_column, prompt_name=config.prompt_column)
    print(learn_certainty(config.checkpoint, splits["train"], splits["val"], label_smoothing=config.label_smoothing))


if __name__ == "__main__":
    begin_command()
    try:
        main(CONFIG)
    except (CheckpointError, ImageError, MissingExtraError, NotFiniteError, OSError, PairError, ShardError) as error:
        sys.exit(f"inference.certainty: {error}")
    except KeyboardInterrupt:
        sys.exit("\ninference.certainty: stopped; the checkpoint is as it was, or has the scale alone")
