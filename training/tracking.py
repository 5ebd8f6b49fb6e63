"""What a run shows while it goes on: TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from diffusion.contact_sheet import contact_sheet


class Tracker:
    """Scalars and a panel of pictures with true and predicted prompts."""

    def __init__(self, run: Path) -> None:
        self.writer = SummaryWriter(str(run))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def panel(self, images: Sequence[Image.Image], prompts: Sequence[str], predictions: Sequence[str], step: int) -> None:
        captions = [f"true: {prompt} / predicted: {prediction}" for prompt, prediction in zip(prompts, predictions, strict=True)]
        sheet = contact_sheet(images, captions, columns=4, cell=192, lines=7)
        self.writer.add_image("validation", np.asarray(sheet), step, dataformats="HWC")
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()
