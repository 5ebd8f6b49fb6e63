"""Prompts for files: read ahead, batched across files, in order, one bad file costing nothing but itself."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.embeddings import SentenceEncoder
from data.errors import DiskFullError, ImageError
from inference.inverter import PromptInverter
from inference.loading import Inverter
from inference.outputs import Output, OutputError
from inference.parts import prompt_parts
from inference.prediction import NOT_FAMILIAR, Prediction
from inference.reading import PictureFile, read_ahead, read_picture_file
from inference.reranking import CANDIDATES, Reranker, reranked
from inference.rows import Row, printable

_BATCHES_AHEAD = 3


@dataclass(frozen=True, kw_only=True)
class Wording:
    """What is put around a prompt: words before it, words after it; those that it has already are not put there again."""

    triggers: Sequence[str] = ()
    suffix: str = ""

    def __call__(self, prompt: str) -> str:
        said = _said(prompt)
        before = [word for word in self.triggers if not _said(word) <= said]
        after = [self.suffix] if not _said(self.suffix) <= said and not prompt.endswith(self.suffix) else []
        return ", ".join([*before, *([prompt] if prompt else []), *after])


def _said(text: str) -> set[str]:
    """What stands between commas, in any case."""
    return {part.strip().casefold() for part in text.split(",")} - {""}


@dataclass
class Outcome:
    """How many files went which way; `failed` by reason, `misread` metadata by what was the matter."""

    model: int = 0
    metadata: int = 0
    already: int = 0
    unfamiliar: int = 0
    unsure: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    misread: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        total = self.model + self.metadata + self.already + self.failed.total()
        said = [f"{self.model} by the model", f"{self.metadata} from their metadata"]
        reasons = ", ".join(f"{count} {kind}" for kind, count in self.failed.most_common())
        said += [f"{self.already} there already"] if self.already else []
        said += [f"{self.failed.total()} failed ({reasons})"] if self.failed else []
        line = f"{total} {'picture' if total == 1 else 'pictures'}: " + ", ".join(said)
        if self.unfamiliar:
            line += f"; {self.unfamiliar} unlike anything this model was trained on, whose prompts are guesses"
        if self.unsure:
            line += f"; {self.unsure} below --min-confidence"
        if self.misread:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self.misread.most_common())
            line += f"; the metadata of {self.misread.total()} gave no prompt ({kinds})"
        return line


@dataclass(frozen=True, kw_only=True)
class Captioning:
    """What is done with each file.

    Attributes:
        decoding: of `inference.Decoding`.
        joint: the pictures of a folder were made from one prompt, which the model reads from the first that can be read of them, as many as it can
            see at once.
        grid: rows and columns of pictures of one prompt that each file shows.
        reranker: chooses among prompts drawn for each picture; `candidates` are drawn.
        metadata: a prompt that the file carries is taken.
        verify: and the model asked all the same, and both compared.
        min_confidence: of the model's prompt; below, the row says so.
        by: which model, and how.
    """

    inverter: Inverter
    decoding: Mapping[str, Any]
    batch_size: int = 32
    joint: bool = False
    grid: tuple[int, int] = (1, 1)
    reranker: Reranker | None = None
    candidates: int = CANDIDATES
    metadata: bool = True
    verify: bool = False
    wording: Wording = field(default_factory=Wording)
    min_confidence: float = 0.0
    by: str = ""

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: the model does not do what it is asked for.
        """
        if self.reranker is not None and not isinstance(self.inverter, PromptInverter):
            raise ValueError("choosing among drawn prompts needs a checkpoint of Reprompt's or GIT's; this one runs in transformers")
        if self.reads_together and self.most_together == 1:
            raise ValueError(
                "this model reads one picture at a time, as ONNX graphs do; one that reads several together is trained by train.py --joint 4"
            )

    @property
    def reads_together(self) -> bool:
        return self.joint or self.grid != (1, 1)

    @property
    def most_together(self) -> int:
        """Pictures that one prompt is read from."""
        return self.inverter.most_together if self.reads_together and isinstance(self.inverter, PromptInverter) else 1

    def run(
        self, files: Iterable[Path], outputs: Sequence[Output], outcome: Outcome, *, failed: Callable[[str], None], done: Callable[[], None]
    ) -> None:
        """
        Args:
            outcome: is counted on.
            failed: is told of each file that failed.
            done: is called after each file.

        Raises:
            DiskFullError: what was written before is whole.
            NotFiniteError: the network computed no numbers.
        """
        running = _Running(self, outputs, outcome, failed, done)
        groups: list[Group] = []
        for path, lacking, file in read_ahead(running.read, running.wanted(self._grouped(files)), ahead=_BATCHES_AHEAD * self.batch_size):
            folder = path.parent if self.joint else path
            if not self.joint or not groups or groups[-1].path != folder:
                if self.joint and self._are_enough(groups):  # the last of them is whole only now
                    running.write(groups)
                groups.append(Group(path=folder, most=self.most_together, each=self.grid[0] * self.grid[1]))
            groups[-1].add(file, lacking)
            if not self.joint and self._are_enough(groups):
                running.write(groups)
        running.write(groups)

    def _grouped(self, files: Iterable[Path]) -> Iterable[list[Path]]:
        """Those that share a prompt."""
        if not self.joint:
            return ([file] for file in files)
        folders: dict[Path, list[Path]] = {}
        for file in files:
            folders.setdefault(file.parent, []).append(file)
        return folders.values()

    def _are_enough(self, groups: Sequence[Group]) -> bool:
        """For a batch, or of which nothing is asked of the network."""
        asked = sum(bool(group.images) for group in groups)
        return asked == self.batch_size or not asked or len(groups) >= _BATCHES_AHEAD * self.batch_size

    def seen(self, image: Image.Image) -> tuple[Image.Image, ...]:
        """What the network sees of a file's picture, or of the first of those in its grid.

        Raises:
            ImageError: it has fewer pixels than its grid has pictures.
        """
        rows, columns = self.grid
        if image.height < rows or image.width < columns:
            raise ImageError(f"image: {image.width} x {image.height} pixels are no grid of {rows} rows and {columns} columns", "no grid")
        down, across = ([length * part // parts for part in range(parts + 1)] for length, parts in ((image.height, rows), (image.width, columns)))
        boxes = [(left, top, right, bottom) for top, bottom in pairwise(down) for left, right in pairwise(across)]
        return tuple(self.inverter.reduced(image if len(boxes) == 1 else image.crop(box)) for box in boxes[: self.most_together])

    def predict(self, groups: Sequence[Group]) -> list[Prediction]:
        """A prompt for each."""
        if not groups:
            return []
        if self.reads_together and isinstance(self.inverter, PromptInverter):
            return self.inverter.predict_joint([group.images for group in groups], batch_size=self.batch_size, **self.decoding)
        images = [group.images[0] for group in groups]
        if self.reranker is not None and isinstance(self.inverter, PromptInverter):
            return reranked(self.inverter, images, self.reranker, candidates=self.candidates, batch_size=self.batch_size, **self.decoding)
        return self.inverter.predict(images, batch_size=self.batch_size, **self.decoding)

    def row(self, file: PictureFile, prediction: Prediction | None, compare: SentenceEncoder | None, group: Group) -> Row:
        """
        Args:
            prediction: where the model was asked about this file.
            compare: where both prompts are to be compared.
            group: that it belongs to.
        """
        if file.prompt is not None:
            similarity = None
            if prediction is not None and compare is not None:
                one, other = compare([file.prompt, prediction.prompt])
                similarity = float(np.dot(one, other))
            prompts: tuple[str, ...] = (self.wording(file.prompt),)
            about: dict[str, Any] = {"metadata": file.prompt, "similarity": similarity, "source": "metadata"}
            if prediction is not None and similarity is not None:
                about["note"] = f"the model says: {prediction.prompt} (similarity {similarity:.2f})"
        else:
            assert prediction is not None
            prompts = tuple(self.wording(text) for text in (prediction.prompt, *(one.prompt for one in prediction.alternatives)))
            notes = [] if prediction.is_familiar else [NOT_FAMILIAR]
            if prediction.confidence < self.min_confidence:
                notes.append(f"unsure: confidence {prediction.confidence:.2f}")
            if len(group.images) < group.pictures:
                notes.append(f"read from the first {len(group.images)} of {group.pictures} pictures")
            about = {"source": "model", "note": "; ".join(notes)}
        parts = prompt_parts(prediction, self.inverter.confidence) if prediction is not None else None
        return Row(file=file.path, prompts=prompts, prediction=prediction, parts=parts, by=self.by, **about)


@dataclass
class Group:
    """Files that share a prompt: one, or those of a folder. The network sees the first of their pictures, `most` at most.

    Attributes:
        path: of the file, or of the folder.
        each: pictures of a file.
        pictures: that there are.
        files: what was read of them but the pictures, which outputs lack them, and whether the network was asked.
    """

    path: Path
    most: int
    each: int = 1
    images: list[Image.Image] = field(default_factory=list)
    pictures: int = 0
    files: list[tuple[PictureFile, list[Output], bool]] = field(default_factory=list)

    def add(self, file: PictureFile, lacking: list[Output]) -> None:
        self.images += file.images[: self.most - len(self.images)]
        self.pictures += self.each if file.images else 0
        self.files.append((replace(file, images=()), lacking, bool(file.images)))


class _Running:
    """One run over files: what is wanted, read, written and counted."""

    def __init__(
        self, captioning: Captioning, outputs: Sequence[Output], outcome: Outcome, failed: Callable[[str], None], done: Callable[[], None]
    ) -> None:
        self.captioning, self.outputs, self.outcome = captioning, outputs, outcome
        self.failed, self.done = failed, done
        self.compare = SentenceEncoder(bfloat16=True) if captioning.verify else None

    def lost(self, path: Path, kind: str, message: str) -> None:
        self.outcome.failed[kind] += 1
        self.failed(f"{printable(message)}" if str(path) in message else f"{printable(path)}: {printable(message)}")
        self.done()

    def wanted(self, groups: Iterable[list[Path]]) -> Iterator[tuple[Path, list[Output]]]:
        """The files that some output has not, and those that share their prompt."""
        for files in groups:
            found = [(path, lacking) for path in files if (lacking := self._lacking(path)) is not None]
            some = any(lacking for _, lacking in found)
            for path, lacking in found:
                if not lacking:
                    self.outcome.already += 1
                    self.done()
                if some:
                    yield path, lacking

    def _lacking(self, path: Path) -> list[Output] | None:
        """None where it cannot be asked."""
        try:
            return [output for output in self.outputs if not output.has(path)]
        except OutputError as error:
            self.lost(path, "name taken", str(error))
        except OSError as error:  # a name that with another suffix is too long
            self.lost(path, "not written", f"{error.strerror or error}")
        return None

    def read(self, item: tuple[Path, list[Output]]) -> tuple[Path, list[Output], PictureFile]:
        path, lacking = item
        about = self.captioning
        return path, lacking, read_picture_file(path, seen=about.seen, metadata=about.metadata, always_decode=about.verify)

    def write(self, groups: list[Group]) -> None:
        """And forget them."""
        found = iter(self.captioning.predict([group for group in groups if group.images]))
        for group in groups:
            prediction = next(found) if group.images else None
            for file, lacking, asked in group.files:
                if lacking and file.error is not None:
                    self.lost(file.path, file.error.kind, str(file.error))
                elif lacking:
                    self._write(self.captioning.row(file, prediction if asked else None, self.compare, group), lacking, file)
        groups.clear()

    def _write(self, row: Row, lacking: Sequence[Output], file: PictureFile) -> None:
        try:
            for output in lacking:
                output.write(row)
        except (BrokenPipeError, DiskFullError):
            raise
        except (OutputError, ImageError) as error:
            self.lost(file.path, "not written", str(error))
            return
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):  # standard output's
                raise
            self.lost(file.path, "not written", f"{error.strerror or error}")
            return
        self._count(row, file)
        self.done()

    def _count(self, row: Row, file: PictureFile) -> None:
        outcome, prediction = self.outcome, row.prediction
        outcome.misread.update([file.misread] if file.misread else [])
        if row.source == "metadata":
            outcome.metadata += 1
            return
        outcome.model += 1
        outcome.unfamiliar += prediction is not None and not prediction.is_familiar
        outcome.unsure += prediction is not None and prediction.confidence < self.captioning.min_confidence
