"""Pictures worth looking at, with what was said of them and which words are right."""

from __future__ import annotations

import base64
import io
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from data.sources.held_out import HeldOutPictures
from evaluation.comparison import Column, Comparison

_EACH = 6
_SIDE = 320  # pixels of a picture's longer side
_PIECE = re.compile(r"\s+|\w+|[^\w\s]")

Mark = Literal["", "same", "other"]


@dataclass(frozen=True)
class Said:
    """A text in pieces, each with whether the other side says it too; `name` is whose it is."""

    name: str
    pieces: Sequence[tuple[str, Mark]]
    score: float | None = None
    confidence: float | None = None


@dataclass(frozen=True)
class Shown:
    """A picture as a data URI, its prompts, and what each captioner wrote."""

    key: str
    image: str
    prompts: Sequence[Said]
    texts: Sequence[Said]


@dataclass(frozen=True)
class Wall:
    """Some pictures under a title that says why these."""

    title: str
    shown: Sequence[Shown]


def gallery(comparison: Comparison, pictures: HeldOutPictures) -> list[Wall]:
    """The best and the worst of the first captioner, some drawn at random (seed 0), and those where it and the best of the others differ most."""
    judged = comparison.judged
    if not judged:
        return []
    first, *others = judged
    metric = main_metric(first)
    ours = _scores(first, metric)
    order = np.argsort(ours, kind="stable")
    every = range(len(pictures))
    walls = [
        (f"Best of {first.name}, by {metric}", list(order[::-1][:_EACH])),
        (f"Worst of {first.name}, by {metric}", list(order[:_EACH])),
        ("At random", random.Random(0).sample(every, min(_EACH, len(every)))),
    ]
    if others:
        best = max(others, key=lambda column: float(np.nanmean(_scores(column, metric))))
        gaps = np.argsort(-np.abs(ours - _scores(best, metric)), kind="stable")
        walls.append((f"Where {first.name} and {best.name} differ most", list(gaps[:_EACH])))
    return [Wall(title, [_shown(int(place), judged, pictures, metric) for place in places]) for title, places in walls]


def main_metric(column: Column) -> str:
    """What pictures are ordered by."""
    return "similarity" if column.judgement is not None and "similarity" in column.judgement.scores else "token_f1"


def _scores(column: Column, metric: str) -> np.ndarray:
    return column.judgement.scores[metric] if column.judgement is not None else np.array([])


def _shown(place: int, judged: Sequence[Column], pictures: HeldOutPictures, metric: str) -> Shown:
    prompts = pictures.references[place]
    texts = []
    for column in judged:
        caption = column.captioned.captions[place]  # type: ignore[union-attr]
        texts.append(Said(column.name, marked(caption.text, " ".join(prompts)), float(_scores(column, metric)[place]), caption.confidence))
    said = " ".join("".join(piece for piece, _ in texts[0].pieces).split())
    (image,) = pictures.images(place, 1)
    return Shown(pictures.keys[place], data_uri(image), [Said("prompt", marked(prompt, said)) for prompt in prompts], texts)


def marked(text: str, other: str) -> list[tuple[str, Mark]]:
    """A text in pieces: words that `other` says too, as often as it says them, are "same", those it does not are "other"; spaces are neither."""
    left = Counter(map(_plain, _PIECE.findall(other)))
    pieces: list[tuple[str, Mark]] = []
    for piece in _PIECE.findall(text):
        mark: Mark = ""
        if not piece.isspace():
            mark = "same" if left[_plain(piece)] > 0 else "other"
            left[_plain(piece)] -= 1
        pieces.append((piece, mark))
    return pieces


def _plain(piece: str) -> str:
    return unicodedata.normalize("NFC", piece.casefold())


def data_uri(image: Image.Image) -> str:
    small = image.convert("RGB")
    small.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=85)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
