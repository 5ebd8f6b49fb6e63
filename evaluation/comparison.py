"""The one comparison: what train.py prints at its end, evaluate.py and the benchmarks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from data.errors import DiskFullError
from data.sources.held_out import HeldOutPictures
from evaluation.captioners import About, Captioned, Captioner, caption_all, file_name
from evaluation.judging import Judge, Judgement
from evaluation.processes import Processes
from evaluation.round_trip import RoundTrip
from evaluation.slices import Slice, slices
from evaluation.statistics import Estimate


@dataclass(frozen=True)
class Column:
    """One captioner: what it wrote and deserves, or why there is nothing.

    Attributes:
        failed: why, and what to do; empty where all went well.
        differences: how much more the first captioner of the comparison has of each metric.
    """

    name: str
    about: About = field(default_factory=About)
    captioned: Captioned | None = None
    judgement: Judgement | None = None
    failed: str = ""
    differences: Mapping[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Captioners on the same pictures; the first is the one that all others stand beside.

    Attributes:
        extremes: what each metric gives here to another picture's prompt, and to a true one.
        unpainted: why there is no round trip, where one was asked for.
    """

    columns: Sequence[Column]
    extremes: Mapping[str, tuple[float, float]]
    slices: Sequence[Slice]
    round_trip: RoundTrip | None = None
    unpainted: str = ""

    @property
    def judged(self) -> list[Column]:
        return [column for column in self.columns if column.judgement is not None]

    @property
    def failed(self) -> list[Column]:
        return [column for column in self.columns if column.failed]


def compare(
    captioners: Mapping[str, Callable[[], Captioner]],
    pictures: HeldOutPictures,
    judge: Judge,
    *,
    batch_size: int = 32,
    keep: Path | None = None,
    processes: Processes | None = None,
) -> Comparison:
    """Build each captioner, have it caption all pictures, judge what it wrote. One that cannot be built or fails costs its own column, which says
    why.

    Args:
        captioners: what builds each, by name; the first is the one that the others stand beside.
        keep: a directory for what is written, so that an interrupted comparison goes on.
        processes: that share the work; the comparison is made by the first, and on the others holds no judgements.

    Raises:
        DiskFullError: captions cannot be kept.
    """
    processes = processes or Processes()
    columns: list[Column] = []
    for name, build in captioners.items():
        column = _captioned(name, build, pictures, batch_size, keep / file_name(name) if keep is not None else None, processes)
        if processes.index == 0 and column.captioned is not None:
            taken = column.captioned
            try:
                judgement = judge(taken.texts, [caption.confidence for caption in taken.captions])
                column = Column(name, column.about, taken, judgement)
            except ValueError as error:  # of scores that are no numbers
                column = Column(name, column.about, taken, failed=_explained(error))
        columns.append(column)
    if columns and columns[0].judgement is not None:
        ours = columns[0].judgement
        columns = [
            Column(one.name, one.about, one.captioned, one.judgement, one.failed, judge.differences(ours, one.judgement))
            if one is not columns[0] and one.judgement is not None
            else one
            for one in columns
        ]
    if processes.index != 0:
        return Comparison(columns, {}, ())
    judged = {column.name: column.judgement for column in columns if column.judgement is not None}
    return Comparison(columns, judge.extremes(), slices(judged, pictures, judge))


def _captioned(
    name: str, build: Callable[[], Captioner], pictures: HeldOutPictures, batch_size: int, keep: Path | None, processes: Processes
) -> Column:
    about, failed = About(), ""
    try:
        captioner = build()
        about = captioner.about
    except DiskFullError:
        raise
    except Exception as error:  # whatever a library raises, the other captioners go on
        failed = _explained(error)
    failures = [text for text in processes.gather(failed) if text]  # so that all processes do the same
    if failures:
        return Column(name, about, failed=failures[0])
    found: Captioned | None = None
    try:
        with tqdm(total=len(pictures), desc=name, unit="image", leave=False, disable=processes.index != 0) as bar:
            found = caption_all(captioner, pictures, batch_size=batch_size, progress=bar.update, keep=keep, processes=processes)
    except DiskFullError:
        raise
    except Exception as error:
        failed = _explained(error)
    about = captioner.about
    return Column(name, dataclasses.replace(about, cost=sum(processes.gather(about.cost))), found, failed=failed)


def _explained(error: Exception) -> str:
    text = str(error).strip()
    return (
        text if text and type(error).__module__.split(".")[0] in ("data", "evaluation", "model", "inference") else f"{type(error).__name__}: {text}"
    )
