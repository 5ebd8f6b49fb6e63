"""Does the prompt make the picture again? Pictures are painted from what captioners wrote and compared with the originals; over several rounds of
prompt to picture to prompt, one sees meaning drift."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from data.errors import DiskFullError
from data.sources.held_out import HeldOutPictures
from diffusion.painting import Render
from evaluation.captioners import Captioner, caption_all, file_name
from evaluation.judging import Judge
from evaluation.overlap import Scores
from evaluation.processes import Processes
from evaluation.statistics import Estimate, interval, mean_estimates

_BATCH = 32

Features = Callable[[Sequence[Image.Image]], NDArray[np.float32]]


@dataclass(frozen=True)
class Drift:
    """After each round: how near what a captioner then wrote is to the true prompt, and the picture painted from it to the original."""

    sentence: Sequence[Estimate]
    image: Sequence[Estimate]


@dataclass(frozen=True)
class RoundTrip:
    """
    Attributes:
        painter: what painted the pictures.
        encoder: what compared them, by the cosine of its features.
        ceiling: similarity of pictures painted from the true prompts, with other seeds than the originals'.
        floor: of pictures painted from other test prompts.
        failed: why a captioner has no outcome, by its name.
        recovery: (similarity - floor) / (ceiling - floor) of each captioner's pictures after one round.
        drifts: by captioner.
    """

    painter: str
    encoder: str
    ceiling: Estimate
    floor: Estimate
    recovery: Mapping[str, Estimate]
    drifts: Mapping[str, Drift]
    failed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Painter:
    """How pictures are painted and compared, and how often in turn."""

    rounds: int
    render: Render
    features: Features
    name: str
    encoder: str


class _Painted:
    """Painted pictures, where captioning takes a data set's."""

    def __init__(self, encoded: Sequence[bytes]) -> None:
        self.encoded = encoded

    def __len__(self) -> int:
        return len(self.encoded)

    def images(self, first: int, count: int) -> list[Image.Image]:
        return [Image.open(io.BytesIO(content)).convert("RGB") for content in self.encoded[first : first + count]]

    def fingerprint(self) -> str:
        return hashlib.sha256(b"".join(self.encoded)).hexdigest()[:16]


def round_trip(
    painter: Painter,
    written: Mapping[str, Sequence[str]],
    captioners: Mapping[str, Callable[[], Captioner]],
    pictures: HeldOutPictures,
    judge: Judge,
    *,
    batch_size: int,
    keep: Path | None = None,
    processes: Processes | None = None,
) -> RoundTrip | None:
    """Paint from what captioners wrote, by name; of more than one round, have each caption that and so on. All processes call this; the first one has
    the outcome.

    Raises:
        ValueError: true prompts paint pictures no more like the originals than others do.
    """
    processes = processes or Processes()
    originals = _shared_features(painter, pictures, processes)
    count = len(pictures)
    seeds = [[_seed(place, number) for place in range(count)] for number in range(painter.rounds)]
    true = [prompts[0] for prompts in pictures.references]
    similarity: dict[str, list[Scores]] = {}
    for name, ends in {"ceiling": true, "floor": judge.others()}.items():
        painted = _paint(painter, ends, seeds[0], processes, name)
        similarity[name] = [_cosine(originals, _shared_features(painter, painted, processes))]
    said: dict[str, list[list[str]]] = {}
    failed: dict[str, str] = {}
    for name, prompts in written.items():
        said[name], similarity[name] = [list(prompts)], []
        captioner: Captioner | None = None
        for number in range(painter.rounds):
            painted = _paint(painter, said[name][-1], seeds[number], processes, name)
            similarity[name].append(_cosine(originals, _shared_features(painter, painted, processes)))
            if number + 1 == painter.rounds:
                break
            folder = keep / f"{file_name(name)} round {number + 2}" if keep is not None else None
            again: Any = painted
            try:
                captioner = captioner or captioners[name]()
                about: dict[str, Any] = {"batch_size": batch_size, "keep": folder, "processes": processes}
                said[name].append(caption_all(captioner, again, progress=lambda _: None, **about).texts)
            except DiskFullError:
                raise
            except Exception as error:  # it costs this captioner's later rounds
                failed[name] = f"round {number + 2}: {error}"
                break
    return _outcome(painter, judge, said, similarity, failed) if processes.index == 0 else None


def _outcome(
    painter: Painter, judge: Judge, said: Mapping[str, list[list[str]]], similarity: Mapping[str, list[Scores]], failed: Mapping[str, str]
) -> RoundTrip:
    ends = mean_estimates({name: similarity[name][0] for name in ("ceiling", "floor")}, judge.units)
    if not ends["ceiling"].mean > ends["floor"].mean:
        raise ValueError(
            f"pictures painted from the true prompts are no more like the originals ({ends['ceiling'].mean:.3f}) than those from other prompts "
            f"({ends['floor'].mean:.3f}), so that there is no recovery to measure: is --model what painted them, and are they black?"
        )
    drifts = {}
    for name, rounds in said.items():
        by_words = [judge.sentence(prompts) for prompts in rounds]
        drifts[name] = Drift(
            [mean_estimates({"x": scores}, judge.units)["x"] for scores in by_words],
            [mean_estimates({"x": scores}, judge.units)["x"] for scores in similarity[name]],
        )
    recovery = {name: _recovery(judge, similarity[name][0], similarity["ceiling"][0], similarity["floor"][0]) for name in said}
    return RoundTrip(painter.name, painter.encoder, ends["ceiling"], ends["floor"], recovery, drifts, failed)


def _recovery(judge: Judge, own: Scores, ceiling: Scores, floor: Scores) -> Estimate:
    totals = judge.units.totals(np.stack([own, ceiling, floor], 1))
    drawn = judge.units.resampled(totals)

    def ratio(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(divide="ignore", invalid="ignore"):
            return (sums[..., 0] - sums[..., 2]) / (sums[..., 1] - sums[..., 2])

    return Estimate(float(ratio(totals.sum(0))), *interval(ratio(drawn), judge.units.count), len(own), judge.units.count)


def _paint(painter: Painter, prompts: Sequence[str], seeds: Sequence[int], processes: Processes, name: str) -> _Painted:
    """The processes share the work, batch by batch."""
    starts = range(0, len(prompts), _BATCH)
    own: dict[int, list[bytes]] = {}
    for first in tqdm(starts[processes.index :: processes.count], f"painting {name}", unit="batch", leave=False, disable=processes.index != 0):
        some = slice(first, first + _BATCH)
        own[first] = [_png(image) for image in painter.render(prompts[some], seeds[some])]
    every = {first: images for share in processes.gather(own) for first, images in share.items()}
    return _Painted([image for first in starts for image in every[first]])


def _shared_features(painter: Painter, pictures: HeldOutPictures | _Painted, processes: Processes) -> NDArray[np.float32]:
    starts = range(0, len(pictures), _BATCH)
    own = {first: painter.features(pictures.images(first, _BATCH)) for first in starts[processes.index :: processes.count]}
    every = {first: vectors for share in processes.gather(own) for first, vectors in share.items()}
    return np.concatenate([every[first] for first in starts])


def _cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> Scores:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return ((one * other).sum(1) / np.maximum(lengths, 1e-12)).astype(np.float64)


def _seed(place: int, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"round trip {number} {place}".encode()).digest()[:4], "big")


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
