"""Pictures that are none of a data set's, made of its own and of nothing: what a measure of familiarity learns to tell from them (outlier exposure,
Hendrycks et al., arXiv 1812.04606)."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations

import torch
from torch import Tensor
from torch.nn import functional as F

_LEAVES = 30  # shapes of a picture


def outliers(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """(N, 3, H, W) uint8 -> as many outliers, each of a kind drawn by chance."""
    pixels = pictures.float() / 255
    kinds = torch.randint(len(_KINDS), (len(pixels),), generator=generator)
    made = pixels.clone()
    for number, kind in enumerate(_KINDS):
        if len(places := (kinds == number).nonzero().flatten()):
            made[places] = kind(pixels[places], generator)
    return (made.clamp(0, 1) * 255).round().to(torch.uint8)


def _blocks(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Cut into squares that change places."""
    count, _, height, width = pixels.shape
    across = (2, 4, 8)[_integer(3, generator)]
    rows, columns = height // across, width // across
    squares = pixels[:, :, : rows * across, : columns * across].unfold(2, rows, rows).unfold(3, columns, columns).flatten(2, 3)
    squares = squares[:, :, torch.randperm(across * across, generator=generator)].unflatten(2, (across, across))
    return _sized(squares.permute(0, 1, 2, 4, 3, 5).reshape(count, 3, rows * across, columns * across), height, width)


def _negative(pixels: Tensor, generator: torch.Generator) -> Tensor:
    return 1 - pixels


def _recoloured(pixels: Tensor, generator: torch.Generator) -> Tensor:
    orders = [order for order in permutations(range(3)) if order != (0, 1, 2)]
    return pixels[:, orders[_integer(len(orders), generator)]]


def _blended(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Two pictures, one through the other, which is mirrored since it may be the same."""
    share = 0.3 + 0.4 * _random(generator, len(pixels), 1, 1, 1)
    return share * pixels + (1 - share) * pixels.roll(1, 0).flip(3)


def _on_plain(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Parts of a picture on one colour, on white as often as not."""
    colour = _random(generator, len(pixels), 3, 1, 1)
    colour[_random(generator, len(pixels)) < 0.5] = 1.0
    return torch.where(_blobs(pixels, generator), pixels, colour)


def _on_smooth(pixels: Tensor, generator: torch.Generator) -> Tensor:
    return torch.where(_blobs(pixels, generator), pixels, _smooth(pixels, 3, generator))


def _scrambled(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """The same frequencies as strong, at other places."""
    size = pixels.shape[-2:]
    phases = torch.fft.rfft2(_random(generator, len(pixels), 1, *size)).angle()
    return torch.fft.irfft2(torch.fft.rfft2(pixels).abs() * torch.exp(1j * phases), s=size)


def _enlarged(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """A part that fills the picture."""
    height, width = pixels.shape[-2:]
    share, across, down = (float(_random(generator, 1)) for _ in range(3))
    rows, columns = math.ceil(height * (0.2 + 0.4 * share)), math.ceil(width * (0.2 + 0.4 * share))
    top, left = int((height - rows) * down), int((width - columns) * across)
    return _sized(pixels[:, :, top : top + rows, left : left + columns], height, width)


def _tiled(pixels: Tensor, generator: torch.Generator) -> Tensor:
    height, width = pixels.shape[-2:]
    return _sized(F.interpolate(pixels, (math.ceil(height / 2), math.ceil(width / 2)), mode="area").repeat(1, 1, 2, 2), height, width)


def _turned(pixels: Tensor, generator: torch.Generator) -> Tensor:
    height, width = pixels.shape[-2:]
    return _sized(torch.rot90(pixels, 1 + _integer(3, generator), (2, 3)), height, width)


def _levels(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Darker or lighter, greyer or more colourful."""
    pixels = pixels ** torch.exp(3 * _random(generator, len(pixels), 1, 1, 1) - 1.5)
    grey = pixels.mean(1, keepdim=True)
    return grey + (pixels - grey) * 2 * _random(generator, len(pixels), 1, 1, 1)


def _noise(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Colours by chance, from a few to one for each pixel."""
    return _smooth(pixels, 2 ** (1 + _integer(6, generator)), generator)


def _leaves(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Shapes of all sizes, one over the other, on which photographs' statistics depend ("dead leaves": Lee, Mumford and Huang, IJCV 41, 2001)."""
    count, _, height, width = pixels.shape
    made = _random(generator, count, 3, 1, 1).expand_as(pixels)
    down, across = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    for _ in range(_LEAVES):
        y, x, turn, stretch, radius, corner, wave = _random(generator, 7, count, 1, 1)
        angle, stretch, radius = math.pi * turn, 0.5 + 1.5 * stretch, 0.03 + 0.4 * radius**3
        along = (down - y) * angle.cos() + (across - x) * angle.sin()
        beside = (across - x) * angle.cos() - (down - y) * angle.sin()
        inside = (along / stretch) ** 2 + (beside * stretch) ** 2 < radius**2
        inside |= (corner < 0.3) & (along.abs() < radius) & (beside.abs() < 0.6 * radius)
        colour = _random(generator, count, 3, 1, 1) + (wave[:, None] - 0.5) * _smooth(pixels, 6, generator)
        made = torch.where(inside[:, None], colour, made)
    return made


# more of what is made of nothing, since it differs most within its kind
_KINDS: tuple[Callable[[Tensor, torch.Generator], Tensor], ...] = (
    *(_blocks, _negative, _recoloured, _blended, _on_plain, _on_smooth, _scrambled, _enlarged, _tiled, _turned, _levels, _noise, _leaves, _leaves),
)


def _smooth(pixels: Tensor, cells: int, generator: torch.Generator) -> Tensor:
    """As many pictures of colours by chance, `cells` in a row, with passages between them."""
    return _sized(_random(generator, len(pixels), 3, cells, cells), *pixels.shape[-2:])


def _blobs(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """(N, 1, H, W): about half of each picture."""
    return _smooth(pixels, 4, generator).mean(1, keepdim=True) > 0.5


def _sized(pixels: Tensor, height: int, width: int) -> Tensor:
    same = pixels.shape[-2:] == (height, width)
    return pixels if same else F.interpolate(pixels, (height, width), mode="bicubic", align_corners=False).clamp(0, 1)


def _random(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator)


def _integer(below: int, generator: torch.Generator) -> int:
    return int(torch.randint(below, (1,), generator=generator))
