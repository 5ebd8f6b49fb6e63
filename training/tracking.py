"""What a run shows while it goes on: TensorBoard."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from diffusion.contact_sheet import contact_sheet
from training.config import TrainConfig
from training.networks import Network

_CELL = 160
_WORDS = 6


class Tracker:
    """Curves, panels of pictures, and the settings beside what came of them. A disk that is full silences it; the run goes on."""

    def __init__(self, run: Path, since: int) -> None:
        """`since` is the step that the run goes on from; what an interrupted run showed after it is taken back."""
        self._silent = False
        self.writer = SummaryWriter(str(run), purge_step=since + 1 if since else None)

    def _write(self, write: Callable[[], Any]) -> None:
        if self._silent:
            return
        try:
            write()
        except OSError as error:
            self._silent = True
            print(f"TensorBoard's files cannot be written any more ({error}); training goes on without them", file=sys.stderr)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        def write() -> None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

        self._write(write)

    def panel(self, images: Sequence[Image.Image], prompts: Sequence[str], predictions: Sequence[str], step: int) -> None:
        """The same pictures every time, with what is true and what is predicted."""
        captions = [f"true: {prompt} / predicted: {prediction}" for prompt, prediction in zip(prompts, predictions, strict=True)]
        self._picture("validation/predictions", contact_sheet(images, captions, columns=4, cell=192, lines=7), step)

    def attention(self, images: Sequence[Image.Image], words: Sequence[Sequence[tuple[str, Tensor]]], step: int) -> None:
        """For each picture some predicted words, each with the (rows, columns) map of where in the picture they look."""
        self._picture("validation/attention", attention_panel(images, words), step)

    def _picture(self, name: str, picture: Image.Image, step: int) -> None:
        self._write(lambda: self.writer.add_image(name, np.asarray(picture), step, dataformats="HWC"))
        self._write(self.writer.flush)

    def settings(self, config: TrainConfig, outcome: Mapping[str, float]) -> None:
        """The hparams tab: what the run was made with, what came of it."""
        flat = dataclasses.asdict(config)
        flat |= {f"model.{name}": value for name, value in flat.pop("model").items()}
        known = {name: value if isinstance(value, bool | int | float | str) else str(value) for name, value in flat.items()}
        known = {name: value for name, value in known.items() if name not in ("resume", "out", "name")}
        self._write(lambda: self.writer.add_hparams(known, dict(outcome), run_name="."))

    def close(self) -> None:
        self._write(self.writer.close)


def attention_panel(images: Sequence[Image.Image], words: Sequence[Sequence[tuple[str, Tensor]]]) -> Image.Image:
    """A row for each picture: the picture, then for each word the picture lit up where the word looks."""
    columns = 1 + max((len(row) for row in words), default=0)
    sheet = Image.new("RGB", (columns * _CELL, len(images) * (_CELL + 18)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for i, (image, row) in enumerate(zip(images, words, strict=True)):
        top = i * (_CELL + 18)
        picture = image.resize((_CELL, _CELL), Image.Resampling.LANCZOS)
        sheet.paste(picture, (0, top))
        for j, (word, where) in enumerate(row, 1):
            light = (where / where.max()).clamp(min=0).float().cpu().numpy()
            mask = Image.fromarray((light * 255).astype(np.uint8)).resize((_CELL, _CELL), Image.Resampling.BICUBIC)
            dark = Image.blend(picture.convert("L").convert("RGB"), Image.new("RGB", picture.size), 0.65)
            sheet.paste(Image.composite(picture, dark, mask), (j * _CELL, top))
            draw.text((j * _CELL + 4, top + _CELL + 1), word[:24], fill=(30, 30, 30), font=font)
    return sheet


def word_maps(model: Network, decode: Callable[[Sequence[int]], str], pixel_values: Tensor, tokens: Sequence[int]) -> list[tuple[str, Tensor]]:
    """Some words of a predicted text, with where in the picture, (1, 3, H, W), the network looks as it writes them: (rows, columns)."""
    tokens = [token for token in tokens if token != model.config.eos_token_id]
    text = torch.tensor([[model.config.bos_token_id, *tokens[:-1]]], device=pixel_values.device)  # a position looks for the token after it
    maps = model.attention_maps(pixel_values, text) if tokens else None
    if maps is None:
        return []
    words: list[tuple[str, list[Tensor]]] = []
    for token, where in zip(tokens, maps[0], strict=True):
        piece = decode([token])
        if words and not piece.startswith(" ") and piece.isalnum():
            words[-1] = (words[-1][0] + piece, [*words[-1][1], where])
        else:
            words.append((piece.strip(), [where]))
    return [(word, torch.stack(places).mean(0)) for word, places in words if len(word) > 3][:_WORDS]
