"""The styles of the embedded world: each redraws a whole picture. Lines are bold, since thin ones do not survive 64 pixels."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[Any]  # (size, size, 3) float32 in [0, 1]

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def apply_style(name: str, image: Image.Image, rng: random.Random) -> Image.Image:
    """Redraw the RGB `image` in the style `name` (a key of `world.STYLES`)."""
    pixels = np.asarray(image, dtype=np.float32) / 255
    noise = np.random.default_rng(rng.getrandbits(32))
    styled = PAINTERS[name](pixels, noise)
    return _to_image(styled)


def _to_image(pixels: Pixels) -> Image.Image:
    return Image.fromarray((np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8))


def _filtered(pixels: Pixels, image_filter: ImageFilter.Filter) -> Pixels:
    return np.asarray(_to_image(pixels).filter(image_filter), dtype=np.float32) / 255


def _blur(pixels: Pixels, radius: float) -> Pixels:
    return _filtered(pixels, ImageFilter.GaussianBlur(radius))


def _smooth_noise(shape: tuple[int, int], cells: int, noise: np.random.Generator) -> Pixels:
    """Blotches: noise of `cells` x `cells`, enlarged; (size, size, 1) in [-1, 1]."""
    coarse = Image.fromarray(noise.integers(0, 256, (cells, cells), dtype=np.uint8))
    return np.asarray(coarse.resize(shape[::-1], Image.Resampling.BICUBIC), dtype=np.float32)[..., None] / 127.5 - 1


def _luma(pixels: Pixels) -> Pixels:
    return (pixels @ _LUMA)[..., None]


def _edges(pixels: Pixels) -> Pixels:
    """How strongly colour changes at each pixel, the strongest channel counting; (size, size, 1), about 0 to 1."""
    dx = np.abs(np.diff(pixels, axis=1, append=pixels[:, -1:]))
    dy = np.abs(np.diff(pixels, axis=0, append=pixels[-1:]))
    return np.clip((dx + dy).max(axis=-1, keepdims=True) * 1.6, 0, 1)


def _saturate(pixels: Pixels, factor: float) -> Pixels:
    grey = _luma(pixels)
    return grey + (pixels - grey) * factor


def _map_tones(tones: Pixels, stops: list[tuple[int, int, int]]) -> Pixels:
    """A gradient map: dark to light through the colours `stops`."""
    colours = np.array(stops, dtype=np.float32) / 255
    position = np.clip(tones[..., 0], 0, 1)
    where = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(position, where, colours[:, c]) for c in range(3)], axis=-1).astype(np.float32)


def _digital_art(pixels: Pixels, noise: np.random.Generator) -> Pixels:
    return pixels


def _watercolor(pixels: Pixels, noise: np.random.Generator) -> Pixels:
    size = pixels.shape[:2]
    wash = _blur(_filtered(pixels, ImageFilter.MedianFilter(3)), 0.7)
    wash = 0.30 + 0.70 * _saturate(wash, 0.9)  # paper shines through
    wash = wash + 0.13 * _smooth_noise(size, 9, noise) * (1.15 - wash)  # pigment pools
    wash = wash - 0.22 * _blur(np.repeat(_edges(wash), 3, axis=-1), 0.6)  # and darkens along its rims
    y, x = np.indices(size, dtype=np.float32) / (size[0] - 1)
    margin = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y))[..., None] + 0.035 * _smooth_noise(size, 8, noise)
    paper = np.clip(1 - margin / 0.07, 0, 1)
    return wash * (1 - paper) + 0.98 * paper


def _oil_painting(pixels: Pixels, noise: np.random.Generator) -> Pixels:
    size = pixels.shape[0]
    rows, cols = np.indices((size, size), dtype=np.float32)
    angle = 2.2 * _smooth_noise((size, size), 5, noise)[..., 0]
    strokes = noise.integers(0, 256, (size, size), dtype=np.uint8)
    along = np.zeros((size, size), dtype=np.float32)
    source = np.zeros_like(pixels)
    for step in (-2, -1, 0, 1, 2):  # smear colour and bristle marks along a flow field
        ys = np.clip(rows + step * np.sin(angle), 0, size - 1).astype(np.intp)
        xs = np.clip(cols + step * np.cos(angle), 0, size - 1).astype(np.intp)
        along += strokes[ys, xs] / (5 * 127.5)
        source += pixels[ys, xs] / 5
    return _saturate(0.55 * source + 0.45 * pixels, 1.45) * 0.94 + 0.16 * (along - 1)[..., None]


def _pencil_sketch(pixels: Pixels, noise: np.random.Generator) -> Pixels:
    size = pixels.shape[0]
    tone = _luma(pixels)
    rows, cols = np.indices((size, size))
    hatch = ((rows + cols) % 4 < 2).astype(np.float32)[..., None]
    shade = 0.97 - 0.40 * (1 - tone) - 0.16 * hatch * (tone < 0.55)
    grain = noise.normal(0, 0.01, tone.shape).astype(np.float32)
    return np.repeat(shade - 0.75 * _edges(pixels) + grain, 3, axis=-1)


def _pixel_art(pixels: Pixels, noise: np.random.Generator) -> Pixels:
    size = pixels.shape[0]
    small = _to_image(_saturate(pixels, 1.3)).resize((size * 3 // 8,) * 2, Image.Resampling.BOX)
    flat = np.round(np.asarray(small, dtype=np.float32) / 255 * 5) / 5
    return np.asarray(_to_image(flat).resize((size, size), Image.Resampling.NEAREST), dtype=np.float32) / 255


def _neon(pixels: Pixels, noise: np.random.Generator) -> Pixels:
    vivid = np.clip(_saturate(pixels, 2.2), 0, 1)
    vivid = vivid / (vivid.max(axis=-1, keepdims=True) + 0.15)
    tubes = np.clip(_edges(pixels) * 1.7, 0, 1) * (0.25 + 0.95 * vivid)
    glow = _blur(tubes, 2.0)
    return 0.20 * pixels + tubes + 1.1 * glow + np.array([0.02, 0.0, 0.07], dtype=np.float32)


def _mosaic(pixels: Pixels, noise: np.random.Generator) -> Pixels:
    size, tile = pixels.shape[0], 8
    cells = -(-size // tile)
    coarse = _to_image(pixels).resize((cells, cells), Image.Resampling.BOX).resize((cells * tile,) * 2, Image.Resampling.NEAREST)
    flat = np.asarray(coarse, dtype=np.float32)[:size, :size] / 255
    jitter = np.kron(noise.normal(0, 0.06, (cells, cells)), np.ones((tile, tile))).astype(np.float32)[:size, :size, None]
    rows, cols = np.indices((size, size))
    grout = ((rows % tile == 0) | (cols % tile == 0))[..., None]
    tiles = 0.25 * flat + 0.75 * pixels + jitter
    return np.where(grout, 0.22 * tiles + 0.06, tiles).astype(np.float32)


def _sepia_photo(pixels: Pixels, noise: np.random.Generator) -> Pixels:
    size = pixels.shape[0]
    y, x = np.indices((size, size), dtype=np.float32) / (size - 1) - 0.5
    vignette = np.clip(1.12 - 1.1 * (x * x + y * y), 0, 1)[..., None]
    grain = noise.normal(0, 0.015, (size, size, 1)).astype(np.float32)
    return _map_tones(_luma(pixels) * vignette + grain, [(35, 20, 10), (150, 105, 60), (252, 236, 200)])


def _blueprint(pixels: Pixels, noise: np.random.Generator) -> Pixels:
    size = pixels.shape[0]
    rows, cols = np.indices((size, size))
    grid = ((rows % 16 == 8) | (cols % 16 == 8)).astype(np.float32)[..., None]
    paper = _map_tones(_luma(pixels), [(12, 40, 120), (62, 108, 200)])
    return paper + 0.10 * grid + 0.85 * _edges(pixels) * np.array([0.85, 0.92, 1.0], dtype=np.float32)


def _comic_book(pixels: Pixels, noise: np.random.Generator) -> Pixels:
    size = pixels.shape[0]
    flat = np.round(np.clip(_saturate(pixels, 1.7), 0, 1) * 3) / 3
    rows, cols = np.indices((size, size))
    dots = ((rows % 4 < 2) & ((cols + 2 * (rows // 4 % 2)) % 4 < 2))[..., None]
    flat = np.where(dots & (_luma(pixels) > 0.45), flat * 0.80, flat)
    return (flat * (1 - 0.95 * np.clip(_edges(pixels) * 1.3 - 0.12, 0, 1))).astype(np.float32)


def _vaporwave(pixels: Pixels, noise: np.random.Generator) -> Pixels:
    toned = _map_tones(_luma(pixels), [(40, 8, 80), (205, 40, 160), (255, 120, 190), (110, 240, 245)])
    rows = np.arange(pixels.shape[0]) % 4 < 2
    return toned * np.where(rows, 1.0, 0.72).astype(np.float32)[:, None, None]


PAINTERS: dict[str, Callable[[Pixels, np.random.Generator], Pixels]] = {
    "digital art": _digital_art,
    "watercolor": _watercolor,
    "oil painting": _oil_painting,
    "pencil sketch": _pencil_sketch,
    "pixel art": _pixel_art,
    "neon": _neon,
    "mosaic": _mosaic,
    "sepia photo": _sepia_photo,
    "blueprint": _blueprint,
    "comic book": _comic_book,
    "vaporwave": _vaporwave,
}
