"""What the page asks of a model: predictions, words' places, pictures painted again, other captioners' answers."""

from __future__ import annotations

import html
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from data.errors import ImageError, MissingExtraError
from data.images import read_image
from diffusion.painting import painting_with
from diffusion.pipelines import PipelineError
from evaluation.captioners import Captioner, CaptionerError
from inference.attention import WordMap, lit, word_maps
from inference.inverter import PromptInverter
from inference.loading import Inverter
from inference.parts import prompt_parts
from inference.prediction import NOT_FAMILIAR, Prediction
from inference.reading import read_picture_file
from inference.rows import Row, printable
from model import CheckpointError, NotFiniteError
from page.sent import MOST_BYTES, SentError

_KNOWN: tuple[type[Exception], ...] = (ImageError, NotFiniteError, MissingExtraError, PipelineError, SentError, CaptionerError, CheckpointError)
_KNOWN += (ValueError, TypeError, OverflowError, OSError)
_MOST_SIDE = 1024  # of pictures that are sent back
_SEEDS = 1 << 63  # that there are


class PageError(RuntimeError):
    """What a visitor is told, as HTML in which nothing of theirs is markup."""


@contextmanager
def explained(path: str | None = None) -> Iterator[None]:
    """Errors in words for a visitor, without the place where an upload was kept."""
    try:
        yield
    except _KNOWN as error:
        message = str(error).replace(f"{Path(path).parent}{os.sep}", "") if path else str(error)
        raise PageError(html.escape(printable(message), quote=False)) from error


@dataclass
class Reader:
    """
    Attributes:
        paint: name of a diffusion model; "" for none.
        baselines: by name, how each is built.
    """

    inverter: Inverter
    paint: str = ""
    baselines: Mapping[str, Callable[[], Captioner]] = field(default_factory=dict)
    _built: dict[str, Captioner] = field(default_factory=dict)

    def read(self, picture: str | None, **decoding: Any) -> dict[str, Any]:
        """The row of a picture's file, with what its metadata say beside; empty without a picture."""
        if not picture:
            return {}
        with explained(picture):
            if Path(picture).stat().st_size > MOST_BYTES:
                raise ImageError(f"{Path(picture).name}: larger than {MOST_BYTES >> 20} MB", "large file")
            file = read_picture_file(Path(picture), seen=lambda image: (self.inverter.reduced(image),), metadata=True, always_decode=True)
            if file.error is not None:
                raise file.error
            row = self.as_row(Path(picture).name, self.inverter.predict(file.images[0], **decoding))
            return row.as_json() | {
                "metadata": file.prompt,
                "misread_metadata": file.misread,
                "is_familiar": row.prediction is None or row.prediction.is_familiar,
            }

    def as_row(self, name: str, prediction: Prediction) -> Row:
        prompts = (prediction.prompt, *(one.prompt for one in prediction.alternatives))
        parts = prompt_parts(prediction, self.inverter.confidence)
        note = "" if prediction.is_familiar else NOT_FAMILIAR
        return Row(file=Path(name), prompts=prompts, source="model", prediction=prediction, parts=parts, note=note)

    def words(self, picture: str | None, prompt: str) -> list[WordMap]:
        """None where the network does not say where it looks."""
        if not picture or not prompt.strip() or not isinstance(self.inverter, PromptInverter):
            return []
        with explained(picture):
            return word_maps(self.inverter, read_image(Path(picture)), prompt)

    def shown(self, picture: str) -> Image.Image:
        """As any browser can show it."""
        with explained(picture):
            image = read_image(Path(picture))
            image.thumbnail((_MOST_SIDE, _MOST_SIDE))
            return image

    def looked(self, picture: str, prompt: str, number: int) -> Image.Image:
        """The picture, light where the network looks for a word of a prompt, counted from 0."""
        maps = self.words(picture, prompt)
        with explained(picture):
            if not isinstance(self.inverter, PromptInverter) or not 0 <= int(number) < len(maps):
                raise SentError("there is no such word, or this model does not say where it looks")
            return lit(self.shown(picture), maps[int(number)].where, self.inverter.preprocess)

    @cached_property
    def _render(self) -> Callable[[Sequence[str], Sequence[int]], list[Image.Image]]:
        return painting_with(self.paint, self.inverter.device)[0]

    def painted(self, prompt: str, seed: float) -> Image.Image:
        with explained():
            if not self.paint:
                raise SentError("this page was started without a diffusion model (--paint)")
            if not prompt.strip():
                raise SentError("there is no prompt to paint")
            return self._render([prompt], [int(seed) % _SEEDS])[0]

    def compared(self, picture: str | None, **decoding: Any) -> list[tuple[str, str, str, str]]:
        """Name, text, confidence and seconds of ours and of each baseline; one that fails says why."""
        if not picture:
            return []
        with explained(picture):
            image = read_image(Path(picture))
            begun = time.perf_counter()
            ours = self.inverter.predict(image, **decoding)
            rows = [("reprompt", ours.prompt, f"{ours.confidence:.2f}", f"{time.perf_counter() - begun:.2f}")]
        for name, build in self.baselines.items():
            try:
                captioner = self._built.get(name) or build()
                self._built[name] = captioner
                begun = time.perf_counter()
                said = captioner.caption([image])[0]
                sure = "" if said.confidence is None else f"{said.confidence:.2f}"
                rows.append((name, said.text, sure, f"{time.perf_counter() - begun:.2f}"))
            except Exception as error:  # of whatever library, it costs its own row
                rows.append((name, f"failed: {printable((str(error).strip() or type(error).__name__).splitlines()[0])}", "", ""))
        return rows
