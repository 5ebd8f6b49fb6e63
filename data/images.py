"""Pictures from disk to tensors."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.nn import functional

MAX_PIXELS = 100_000_000  # read from the header before anything is decoded


class ImageError(ValueError):
    """A file that is not a picture we can read; names it and says why. `kind` is the reason in two words, for counting."""

    def __init__(self, message: str, kind: str = "damaged image") -> None:
        super().__init__(message)
        self.kind = kind


def read_image(source: Path | bytes, name: str | None = None) -> Image.Image:
    """Decode a picture to RGB: turned upright as its EXIF data asks, transparency on white, metadata left behind.

    Raises:
        ImageError: missing, empty, damaged, cut short, not an image, or more than `MAX_PIXELS` pixels.
    """
    with opened_image(source, name) as image:
        image.load()
        return upright_rgb(image)


@contextmanager
def opened_image(source: Path | bytes, name: str | None = None) -> Iterator[Image.Image]:
    """A picture as Pillow opens it, with its metadata and not yet decoded; what goes wrong with it inside the `with` block is an `ImageError` too.

    Raises:
        ImageError: as `read_image`.
    """
    label = name or (str(source) if isinstance(source, Path) else "image")
    if not source if isinstance(source, bytes) else source.is_file() and source.stat().st_size == 0:
        raise ImageError(f"{label}: not a readable image (the file is empty)", "empty image")
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            if image.width * image.height > MAX_PIXELS:
                message = f"{label}: {image.width} x {image.height} pixels are more than the {MAX_PIXELS:,} that are read; reduce it first"
                raise ImageError(message, "huge image")
            yield image
    except FileNotFoundError as error:
        raise ImageError(f"{label}: no such file", "missing image") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{label}: {error}", "huge image") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"{label}: not a readable image ({error})") from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """As `to_rgb`, turned as its EXIF data asks."""
    return to_rgb(ImageOps.exif_transpose(image))


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB without metadata; transparent parts become white, 16-bit greys are scaled to 8."""
    if image.mode.startswith(("I;16", "I")):
        grey = np.asarray(image).astype(np.float32)
        image = Image.fromarray((grey / 65535 * 255).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.new("RGBA", rgba.size, "white")
        image.alpha_composite(rgba)
    rgb = image.convert("RGB")
    rgb.info = {}
    return rgb


@dataclass(frozen=True)
class Preprocess:
    """A picture as the model wants it: (3, height, width). One of another shape is squeezed ("squeeze"), or the middle of it is taken
    ("center", as CLIP and GIT do)."""

    size: tuple[int, int]  # height, width
    mean: Sequence[float]
    std: Sequence[float]
    interpolation: str
    crop: str = "squeeze"

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Normalised, float32."""
        return self.normalise(self.pixels(image))

    def pixels(self, image: Image.Image) -> torch.Tensor:
        """uint8, 0 to 255: what is carried from a loader to the device, a quarter as large."""
        height, width = self.size
        if self.crop == "center":
            image = _middle(image, width, height, self.resample)
        elif image.size != (width, height):
            image = image.resize((width, height), self.resample)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

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


@dataclass(frozen=True)
class AugmentedPreprocess:
    """The pixels of a random part of the picture: 80 to 100 % of its area, its shape changed by up to a third (torchvision's
    RandomResizedCrop). No flips: prompts say left and right."""

    preprocess: Preprocess
    smallest_area: float = 0.8
    most_stretched: float = 4 / 3

    def __call__(self, image: Image.Image, draw: random.Random) -> torch.Tensor:
        left, top, right, lower = self.box(image.width, image.height, draw)
        part = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None, :, top:lower, left:right]
        # within one level of 255 of Pillow's result, in a quarter of its time
        return functional.interpolate(part, self.preprocess.size, mode=self.preprocess.interpolation, antialias=True)[0]

    def box(self, width: int, height: int, draw: random.Random) -> tuple[int, int, int, int]:
        """Left, upper, right and lower edge of a random part of a picture of this size, in pixels."""
        area = draw.uniform(self.smallest_area, 1) * width * height
        stretch = math.exp(draw.uniform(-1, 1) * math.log(self.most_stretched)) * width / height
        part_width, part_height = min(round(math.sqrt(area * stretch)), width), min(round(math.sqrt(area / stretch)), height)
        left, top = draw.randint(0, width - max(1, part_width)), draw.randint(0, height - max(1, part_height))
        return left, top, left + max(1, part_width), top + max(1, part_height)
