"""How a picture becomes `pixel_values`: frozen when a model is built and kept in its config.json, so that it travels with the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image

from model.fields import check_range, check_types


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """A picture as the model wants it: (3, height, width)."""

    image_size: int | tuple[int, int]
    """Pixels: one number for a square, or height and width."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    crop: Literal["squeeze", "center"] = "squeeze"
    """How a picture of another shape fits: squeezed, or the middle of it, as CLIP and GIT take it."""

    def __post_init__(self) -> None:
        check_types(self)
        for side in self.size:
            check_range("image_size", side, 1)
        if min(self.std) <= 0:
            raise ValueError(f"std must be above 0, not {self.std}: pixels are divided by it")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Normalised, float32."""
        return self.normalise(self.pixels(image))

    def pixels(self, image: Image.Image) -> torch.Tensor:
        """uint8, 0 to 255, of an RGB picture: what is carried from a loader to the device, a quarter as large."""
        return torch.from_numpy(np.array(self.reduced(image))).permute(2, 0, 1)

    def reduced(self, image: Image.Image) -> Image.Image:
        """The part of a picture that the model sees, at its size; of a picture of this size the picture itself."""
        height, width = self.size
        if self.crop == "center":
            return _middle(image, width, height, self.resample)
        return image if image.size == (width, height) else image.resize((width, height), self.resample)

    @property
    def resample(self) -> Image.Resampling:
        return Image.Resampling[self.interpolation.upper()]

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """(..., 3, height, width), 0 to 255 -> float32, as the network wants it."""
        mean, std = (torch.tensor(values, device=pixels.device).view(3, 1, 1) for values in (self.mean, self.std))
        return pixels.to(torch.float32, memory_format=torch.contiguous_format).mul_(1 / (255 * std)).sub_(mean / std)


def _middle(image: Image.Image, width: int, height: int, resample: Image.Resampling) -> Image.Image:
    """Reduced until one side fits and the other is no shorter, then the middle, in the integer arithmetic of CLIP's preprocessing."""
    if image.width * height <= image.height * width:
        reduced = (width, int(width * image.height / image.width))
    else:
        reduced = (int(height * image.width / image.height), height)
    if reduced != image.size:
        image = image.resize(reduced, resample)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
