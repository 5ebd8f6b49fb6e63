"""Whatever stands for a picture, as an RGB image."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard

import numpy as np
from PIL import Image
from torch import Tensor

from data.images import picture_rgb, read_image

OnePicture: TypeAlias = "Image.Image | str | Path | bytes"  # which can be nothing else
Picture: TypeAlias = "OnePicture | np.ndarray[Any, Any] | Tensor"


def as_picture(source: Picture) -> Image.Image:
    """
    Args:
        source: a PIL image, a path, an encoded file's bytes, or pixels from 0 to 255 in uint8: an array (H, W), (H, W, 3) or (H, W, 4), a tensor
            (3, H, W) or (1, H, W).

    Raises:
        ImageError: it cannot be read as a picture.
        TypeError: it is none of these; says what to pass.
    """
    if isinstance(source, str | Path):
        return read_image(Path(source))
    if isinstance(source, bytes):
        return read_image(source)
    if isinstance(source, Image.Image):
        return picture_rgb(source)
    if isinstance(source, Tensor):
        if source.ndim != 3 or source.shape[0] not in (1, 3):
            raise TypeError(f"a tensor of a picture is (3, H, W) or (1, H, W), not {tuple(source.shape)}")
        source = source.permute(1, 2, 0).squeeze(-1).cpu().numpy()
    if not isinstance(source, np.ndarray):
        raise TypeError(f"a picture is a PIL image, a path, an encoded file's bytes, an array or a tensor, not {type(source).__name__}")
    if source.dtype != np.uint8:
        raise TypeError(f"pixels are uint8, 0 to 255, not {source.dtype}; of fractions: (255 * pixels).round().astype('uint8')")
    if source.ndim not in (2, 3) or (source.ndim == 3 and source.shape[2] not in (3, 4)):
        raise TypeError(f"an array of a picture is (H, W), (H, W, 3) or (H, W, 4), not {source.shape}")
    return picture_rgb(Image.fromarray(source))


def is_picture(images: object) -> TypeGuard[Picture]:
    """Whether this is one picture, and not several. An array or tensor of four dimensions is several."""
    if isinstance(images, np.ndarray | Tensor):
        return images.ndim != 4
    return isinstance(images, Image.Image | str | Path | bytes)


def check_several(images: object, batch_size: int) -> None:
    """
    Raises:
        TypeError: neither a picture nor several.
        ValueError: no number of pictures that go through the network together.
    """
    if not isinstance(images, Iterable):
        raise TypeError(f"images is a picture or a list of them, not {type(images).__name__}")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be a whole number, 1 or more, not {batch_size}")
