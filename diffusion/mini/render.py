"""Scenes of the embedded world as pictures: sprites on a background, under weather and light, redrawn in a style.

Sprites are the glyphs of the Noto Color Emoji font. The font is needed only here, to train the embedded diffusion model and its
probe; it is not part of this project.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from diffusion.mini.backgrounds import paint_background
from diffusion.mini.styles import apply_style
from diffusion.mini.world import COLOURS, SUBJECTS, Scene

IMAGE_SIZE = 64
_CANVAS = 2 * IMAGE_SIZE  # painted at twice the size, then reduced, so that edges are smooth
_FONT_PIXELS = 109  # the only size of the font's bitmaps
FONT_PATHS = (
    Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"),
    Path("/usr/share/fonts/noto/NotoColorEmoji.ttf"),
    Path("/usr/share/fonts/google-noto-emoji/NotoColorEmoji.ttf"),
    Path.home() / ".local/share/fonts/NotoColorEmoji.ttf",
)

Sprites = Mapping[str, Image.Image]  # subject -> RGBA, cropped to what is not transparent


class MissingFontError(RuntimeError):
    """The emoji font is not installed."""


def load_sprites(font_path: Path | None = None) -> Sprites:
    """Draw every subject of the world with the emoji font.

    Raises:
        MissingFontError: no font at `font_path`, or at none of `FONT_PATHS`; says how to install it.
    """
    found = font_path if font_path is not None else next((path for path in FONT_PATHS if path.is_file()), None)
    if found is None or not found.is_file():
        where = font_path if font_path is not None else ", ".join(str(path.parent) for path in FONT_PATHS)
        raise MissingFontError(
            f"The font NotoColorEmoji.ttf was not found (looked in: {where}). It draws the training pictures of the embedded diffusion "
            "model and is needed for nothing else. On Debian or Ubuntu: apt-get install fonts-noto-color-emoji"
        )
    font = ImageFont.truetype(str(found), _FONT_PIXELS)
    return {name: _draw_glyph(subject.emoji, font) for name, subject in SUBJECTS.items()}


def _draw_glyph(emoji: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    canvas = Image.new("RGBA", (2 * _FONT_PIXELS, 2 * _FONT_PIXELS))
    ImageDraw.Draw(canvas).text((20, 20), emoji, font=font, embedded_color=True)
    box = canvas.getbbox()
    if box is None:
        raise MissingFontError(f"The font {font.path!r} has no colour glyph for {emoji!r}; install a current fonts-noto-color-emoji")
    return canvas.crop(box)


def render(scene: Scene, sprites: Sprites, rng: random.Random) -> tuple[Image.Image, Image.Image]:
    """Paint `scene` as an RGB image of 64 x 64 pixels; `rng` decides places, sizes and small variations.

    Returns the image and a mask ("L", 64 x 64) that is 255 where the subjects are.
    """
    picture = paint_background(scene.background, _CANVAS, rng)
    mask = Image.new("L", picture.size)
    for sprite, (x, y) in _arrange(scene, sprites, rng):
        _drop_shadow(picture, sprite, x, y)
        picture.paste(sprite, (x, y), sprite)
        mask.paste(255, (x, y), sprite)
    picture = _weather(scene.weather, picture, rng)
    picture = _light(scene.light, picture, rng)
    picture, mask = (image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX) for image in (picture, mask))
    return apply_style(scene.style, picture, rng), mask


def _arrange(scene: Scene, sprites: Sprites, rng: random.Random) -> list[tuple[Image.Image, tuple[int, int]]]:
    """The sprites of a scene with their top left corners, back to front."""
    subject = sprites[scene.subject]
    if scene.colour:
        subject = _tint(subject, COLOURS[scene.colour])
    # (sprite, centre x, centre y, side), in parts of the canvas
    if scene.other:
        other = sprites[scene.other]
        flip = rng.choice((-1, 1))
        places = {
            "next to": [(subject, 0.25, 0.56, 0.49), (other, 0.75, 0.56, 0.49)],  # named from left to right, so that pictures say who comes first
            "above": [(subject, 0.5, 0.26, 0.48), (other, 0.5, 0.74, 0.48)],
            "behind": [(subject, 0.5 - 0.15 * flip, 0.38, 0.58), (other, 0.5 + 0.17 * flip, 0.69, 0.50)],
        }[scene.relation]
    elif scene.count == 3:
        places = [(subject, 0.5, 0.29, 0.44), (subject, 0.26, 0.70, 0.44), (subject, 0.74, 0.70, 0.44)]
    elif scene.count == 2:
        places = [(subject, 0.26, 0.54, 0.50), (subject, 0.74, 0.58, 0.50)]
    else:
        places = [(subject, 0.5, 0.54, 0.93 if scene.close_up else 0.68)]
    single = len(places) == 1 and not scene.close_up
    jitter = 0.05 if single else 0.03
    placed = []
    for sprite, x, y, side in places:
        side *= rng.uniform(0.95, 1.05)
        pixels = max(8, round(side * _CANVAS))
        scale = pixels / max(sprite.size)
        sized = sprite.resize(
            (max(1, round(sprite.width * scale)), max(1, round(sprite.height * scale))), Image.Resampling.BILINEAR, reducing_gap=2.0
        )
        cx, cy = x + rng.uniform(-jitter, jitter), y + rng.uniform(-jitter, jitter) * 0.7
        placed.append((sized, (round(cx * _CANVAS - sized.width / 2), round(cy * _CANVAS - sized.height / 2))))
    return placed


def _tint(sprite: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """Recolour a sprite, keeping its shading: dark parts stay dark, light parts become a light shade of `colour`."""
    pixels = np.asarray(sprite, dtype=np.float32)
    tone = (pixels[..., :3] @ np.array([0.299, 0.587, 0.114], dtype=np.float32) / 255)[..., None]
    mid = np.array(colour, dtype=np.float32)
    ramp = np.where(tone < 0.6, mid * tone / 0.6, mid + (255 - mid) * (tone - 0.6) / 0.4 * 0.75)
    return Image.fromarray(np.concatenate([ramp, pixels[..., 3:]], axis=-1).astype(np.uint8))


def _drop_shadow(picture: Image.Image, sprite: Image.Image, x: int, y: int) -> None:
    """A soft dark rim, which sets a sprite off from any background, as an illustrator's outline would."""
    rim = Image.new("L", (sprite.width + 12, sprite.height + 12))
    rim.paste(sprite.getchannel("A").point(lambda a: a * 0.55), (6, 7))
    rim = rim.filter(ImageFilter.BoxBlur(3))
    picture.paste((15, 15, 25), (x - 6, y - 6), rim)


def _weather(weather: str, picture: Image.Image, rng: random.Random) -> Image.Image:
    size = picture.width
    draw = ImageDraw.Draw(picture)
    if weather == "rain":
        picture = Image.blend(picture, Image.new("RGB", picture.size, (75, 90, 115)), 0.25)
        draw = ImageDraw.Draw(picture)
        for _ in range(30):
            x, y, length = rng.randint(0, size), rng.randint(-8, size), rng.randint(12, 20)
            draw.line((x, y, x - length * 0.45, y + length), fill=(215, 230, 250), width=3)
    elif weather == "snow":
        for _ in range(48):
            x, y, r = rng.randint(0, size), rng.randint(0, size), rng.choice((2, 3))
            draw.ellipse((x - r, y - r, x + r, y + r), fill=(255, 255, 255))
    elif weather == "fog":
        height = np.linspace(0.35, 0.85, size)[:, None]
        bands = height + 0.14 * np.sin(np.arange(size) / size * rng.uniform(9, 14) + rng.uniform(0, 6.3))[:, None]
        mask = Image.fromarray((np.clip(np.broadcast_to(bands, (size, size)), 0, 0.85) * 255).astype(np.uint8))
        picture.paste((232, 235, 240), (0, 0), mask)
    return picture


def _light(light: str, picture: Image.Image, rng: random.Random) -> Image.Image:
    size = picture.width
    y, x = np.indices((size, size), dtype=np.float32) / (size - 1)
    pixels = np.asarray(picture, dtype=np.float32)
    if light == "golden hour":  # a low sun at one side
        side = rng.choice((0.0, 1.0))
        glow = np.clip(1.25 - np.hypot(x - side, y - 0.1), 0, 1)[..., None] ** 1.6
        warm = pixels * np.array([1.0, 0.82, 0.58], dtype=np.float32)
        pixels = warm * (0.72 + 0.28 * glow) + glow * np.array([175, 115, 25], dtype=np.float32) * 0.85
    elif light == "night":  # dark and blue, with a crescent moon
        pixels = pixels * np.array([0.30, 0.36, 0.58], dtype=np.float32) + np.array([4, 6, 22], dtype=np.float32)
        cx, cy, r = rng.choice((0.14, 0.86)), 0.14, 0.11
        crescent = (np.hypot(x - cx, y - cy) < r) & (np.hypot(x - cx - 0.06, y - cy + 0.02) > r * 0.85)
        pixels[crescent] = (255, 250, 215)
    elif light == "spotlight":  # a bright cone of light, darkness around it
        cx = 0.5 + rng.uniform(-0.05, 0.05)
        beam = 1 - np.clip((np.hypot((x - cx) * 1.05, (y - 0.55)) - 0.30) / 0.16, 0, 1)[..., None]
        pixels = pixels * (0.16 + 0.98 * beam) + 14 * beam
    else:
        return picture
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
