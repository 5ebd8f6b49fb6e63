"""Prompts for files: read ahead, batched across files, in order, one bad file costing nothing but itself."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
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
        reranker: chooses among prompts drawn for each picture; `candidates` are drawn.
        metadata: a prompt that the file carries is taken.
        verify: and the model asked all the same, and both compared.
        min_confidence: of the model's prompt; below, the row says so.
        by: which model, and how.
    """

    inverter: Inverter
    decoding: Mapping[str, Any]
    batch_size: int = 32
    reranker: Reranker | None = None
    candidates: int = CANDIDATES
    metadata: bool = True
    verify: bool = False
    wording: Wording = field(default_factory=Wording)
    min_confidence: float = 0.0
    by: str = ""

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

        def lost(path: Path, kind: str, message: str) -> None:
            outcome.failed[kind] += 1
            failed(f"{printable(message)}" if str(path) in message else f"{printable(path)}: {printable(message)}")
            done()

        def wanted() -> Iterator[tuple[Path, list[Output]]]:
            """The files that some output has not."""
            for path in files:
                try:
                    lacking = [output for output in outputs if not output.has(path)]
                except OutputError as error:
                    lost(path, "name taken", str(error))
                    continue
                except OSError as error:  # a name that with another suffix is too long
                    lost(path, "not written", f"{error.strerror or error}")
                    continue
                if not lacking:
                    outcome.already += 1
                    done()
                    continue
                yield path, lacking

        read = partial(read_picture_file, reduced=self.inverter.reduced, metadata=self.metadata, always_decode=self.verify)
        compare = SentenceEncoder(bfloat16=True) if self.verify else None
        waiting: list[tuple[PictureFile, list[Output]]] = []

        def write() -> None:
            found = iter(self._predict([file.image for file, _ in waiting if file.image is not None]))
            for file, lacking in waiting:
                if file.error is not None:
                    lost(file.path, file.error.kind, str(file.error))
                    continue
                row = self._row(file, next(found) if file.image is not None else None, compare)
                try:
                    for output in lacking:
                        output.write(row)
                except (BrokenPipeError, DiskFullError):
                    raise
                except (OutputError, ImageError) as error:
                    lost(file.path, "not written", str(error))
                    continue
                except OSError as error:
                    if error.errno in (errno.ENOSPC, errno.EDQUOT):  # standard output's
                        raise
                    lost(file.path, "not written", f"{error.strerror or error}")
                    continue
                self._count(outcome, file, row)
                done()
            waiting.clear()

        def read_with(item: tuple[Path, list[Output]]) -> tuple[PictureFile, list[Output]]:
            return read(item[0]), item[1]

        for item in read_ahead(read_with, wanted(), ahead=_BATCHES_AHEAD * self.batch_size):
            waiting.append(item)
            asked = sum(file.image is not None for file, _ in waiting)
            if asked == self.batch_size or not asked or len(waiting) >= _BATCHES_AHEAD * self.batch_size:
                write()
        write()

    def _predict(self, images: list[Image.Image]) -> list[Prediction]:
        if not images:
            return []
        if self.reranker is None:
            return self.inverter.predict(images, batch_size=self.batch_size, **self.decoding)
        if not isinstance(self.inverter, PromptInverter):
            raise ValueError("choosing among drawn prompts needs a checkpoint of Reprompt's or GIT's; this one runs in transformers")
        return reranked(self.inverter, images, self.reranker, candidates=self.candidates, batch_size=self.batch_size, **self.decoding)

    def _row(self, file: PictureFile, prediction: Prediction | None, compare: SentenceEncoder | None) -> Row:
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
            about = {"source": "model", "note": "; ".join(notes)}
        parts = prompt_parts(prediction, self.inverter.confidence) if prediction is not None else None
        return Row(file=file.path, prompts=prompts, prediction=prediction, parts=parts, by=self.by, **about)

    def _count(self, outcome: Outcome, file: PictureFile, row: Row) -> None:
        outcome.misread.update([file.misread] if file.misread else [])
        if row.source == "metadata":
            outcome.metadata += 1
            return
        outcome.model += 1
        prediction = row.prediction
        outcome.unfamiliar += prediction is not None and not prediction.is_familiar
        outcome.unsure += prediction is not None and prediction.confidence < self.min_confidence
