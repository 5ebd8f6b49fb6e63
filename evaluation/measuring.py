"""From pictures and captioners to a report: what train.py does at its end and evaluate.py is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image

from data.embeddings import SENTENCE_MODEL
from data.errors import DiskFullError, MissingExtraError
from data.files import write_json
from data.sources.held_out import HeldOutPictures
from evaluation.captioners import Captioner
from evaluation.clip_scores import ClipScores
from evaluation.comparison import Comparison, compare
from evaluation.judging import Judge, ReadSlots
from evaluation.meaning import SentenceSimilarity
from evaluation.processes import Processes
from evaluation.report import ContactSheet, as_json, write_report
from evaluation.round_trip import Painter, round_trip
from peers.clip import Clip

_LIBRARIES = ("jinja2", "matplotlib", "pycocoevalcap", "scipy")
CAPTIONS = "captions"  # in a report's directory: what is gone on with after an interruption


def check_libraries() -> None:
    """
    Raises:
        MissingExtraError: a comparison needs a library that is not installed; before anything was computed for it.
    """
    lacking = [name for name in _LIBRARIES if find_spec(name) is None]
    if lacking:
        raise MissingExtraError(f"a comparison needs the extra 'eval' (there is no {', '.join(lacking)}): pip install -e '.[eval]'")


def measure(
    captioners: Mapping[str, Callable[[], Captioner]],
    pictures: HeldOutPictures,
    *,
    about: Mapping[str, Any],
    title: str,
    read_slots: ReadSlots | None = None,
    similarity: SentenceSimilarity | None = None,
    batch_size: int = 32,
    clip: Clip | None = None,
    painter: Painter | None = None,
    contact_sheet: ContactSheet | None = None,
    report: Path | None = None,
    json: Path | None = None,
    processes: Processes | None = None,
) -> Comparison:
    """Compare captioners, the first with all others, and write what is asked for.

    Args:
        about: what makes the outcome checkable (`evaluation.provenance`).
        title: of the report.
        read_slots: finds the parts of a scene in a text, for pictures whose parts are known.
        clip: adds CLIPScore.
        painter: paints what was written, for the round trip.
        contact_sheet: draws pictures with a text below each.
        report: a directory for the report; what was captioned is kept in it, and an interrupted comparison goes on.
        json: a file for every figure.

    Raises:
        MissingExtraError: a library is not installed.
        OSError: something cannot be written.
    """
    check_libraries()
    about = {**about, "sentence_model": SENTENCE_MODEL if similarity is not None else "none: similarity is left out"}
    first = processes is None or processes.index == 0
    judge = Judge(
        pictures.references,
        pictures.groups,
        similarity=similarity,
        slots=pictures.slots,
        read_slots=read_slots,
        clip_scores=ClipScores(clip, _one_by_one(pictures), pictures.references) if clip is not None and first else None,
    )
    keep = report / CAPTIONS if report is not None else None
    comparison = compare(captioners, pictures, judge, batch_size=batch_size, keep=keep, processes=processes)

    def write() -> None:
        if report is not None:
            write_report(report, comparison, pictures, title=title, about=about, contact_sheet=contact_sheet)
        if json is not None:
            write_json(json, as_json(comparison, about))

    if painter is not None:
        if first:  # whatever becomes of the painting
            write()
        about_batches: dict[str, Any] = {"batch_size": batch_size, "keep": keep, "processes": processes}
        written = {column.name: column.captioned.texts for column in comparison.columns if column.captioned is not None}
        try:
            comparison = dataclasses.replace(comparison, round_trip=round_trip(painter, written, captioners, pictures, judge, **about_batches))
        except DiskFullError:
            raise
        except Exception as error:  # of whatever paints
            if processes is not None and processes.count > 1:  # the others wait for what this one will not send
                raise
            comparison = dataclasses.replace(comparison, unpainted=f"{type(error).__name__}: {error}")
    if first:
        write()
    return comparison


def _one_by_one(pictures: HeldOutPictures) -> Iterator[Image.Image]:
    for place in range(len(pictures)):
        yield from pictures.images(place, 1)
