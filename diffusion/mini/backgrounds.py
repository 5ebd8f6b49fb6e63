"""The places of the embedded world, painted from code: each fills a square canvas and differs in shape, not only in colour,
so that a pencil sketch or a blueprint of it can still be told from the others."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]


def paint_background(name: str, size: int, rng: random.Random) -> Image.Image:
    """The background `name` (a key of `world.BACKGROUNDS`) as an RGB image of `size` x `size` pixels."""
    return PAINTERS[name](size, rng)


def _vary(colour: Colour, rng: random.Random, amount: int = 14) -> Colour:
    shift = rng.randint(-amount, amount)
    return tuple(min(255, max(0, c + shift + rng.randint(-6, 6))) for c in colour)  # type: ignore[return-value]


def _gradient(size: int, top: Colour, bottom: Colour) -> Image.Image:
    t = np.linspace(0, 1, size)[:, None, None]
    rows = (1 - t) * np.array(top) + t * np.array(bottom)
    return Image.fromarray(np.broadcast_to(rows, (size, size, 3)).astype(np.uint8))


def _beach(size: int, rng: random.Random) -> Image.Image:
    image = _gradient(size, _vary((110, 190, 245), rng), (215, 238, 250))
    draw = ImageDraw.Draw(image)
    sea, sand = int(size * rng.uniform(0.38, 0.48)), int(size * rng.uniform(0.62, 0.70))
    draw.rectangle((0, sea, size, sand), fill=_vary((25, 125, 190), rng))
    for y in range(sea + size // 20, sand, size // 14):
        x = rng.randint(0, size // 3)
        draw.line((x, y, x + size // 2, y), fill=(150, 215, 240), width=max(1, size // 50))
    draw.rectangle((0, sand, size, size), fill=_vary((240, 215, 150), rng))
    wave = [(x, sand + int(size * 0.025 * np.sin(x * 12 / size))) for x in range(0, size + 8, 8)]
    draw.line(wave, fill=(255, 255, 255), width=size // 26)
    r, x = size // 9, rng.choice((size // 6, size * 5 // 6))
    draw.ellipse((x - r, size // 7 - r, x + r, size // 7 + r), fill=(255, 235, 120))
    return image


def _forest(size: int, rng: random.Random) -> Image.Image:
    image = _gradient(size, _vary((150, 205, 165), rng), (90, 150, 100))
    draw = ImageDraw.Draw(image)
    ground = int(size * 0.78)
    draw.rectangle((0, ground, size, size), fill=_vary((70, 95, 40), rng))
    for row, (count, colour) in enumerate(((6, (75, 135, 85)), (5, (25, 90, 45)))):
        for i in range(count):
            x = int((i + 0.5 + rng.uniform(-0.3, 0.3)) * size / count)
            base = ground + row * size // 12
            width, height = size * rng.uniform(0.12, 0.17), size * rng.uniform(0.6, 0.8)
            draw.rectangle((x - size // 50, base - size // 8, x + size // 50, base + size // 30), fill=(80, 52, 30))
            for tier in range(3):
                top = base - height + tier * height * 0.24
                spread = width * (0.55 + 0.25 * tier)
                draw.polygon([(x, top), (x - spread, top + height * 0.38), (x + spread, top + height * 0.38)], fill=_vary(colour, rng))
    return image


def _desert(size: int, rng: random.Random) -> Image.Image:
    image = _gradient(size, _vary((255, 205, 130), rng), (255, 235, 195))
    draw = ImageDraw.Draw(image)
    for base, colour in ((0.52, (230, 170, 95)), (0.66, (214, 145, 70)), (0.82, (190, 118, 52))):
        phase, amplitude = rng.uniform(0, 6.3), rng.uniform(0.05, 0.08)
        ridge = [(x, size * (base + amplitude * np.sin(phase + x * 5.5 / size))) for x in range(0, size + 4, 4)]
        draw.polygon([(0, size), *ridge, (size, size)], fill=_vary(colour, rng, 8))
    return image


def _snowy_mountains(size: int, rng: random.Random) -> Image.Image:
    image = _gradient(size, _vary((95, 150, 220), rng), (200, 222, 245))
    draw = ImageDraw.Draw(image)
    for centre, top in ((0.15, 0.16), (0.85, 0.12), (0.5, 0.04)):
        x, y = size * (centre + rng.uniform(-0.06, 0.06)), size * (top + rng.uniform(-0.02, 0.05))
        half, base = size * 0.38, size * 0.78
        draw.polygon([(x, y), (x - half, base), (x + half, base)], fill=_vary((95, 105, 130), rng))
        cap = 0.42
        zigzag = [(x + half * cap * f, y + (base - y) * (cap + d)) for f, d in ((1, 0), (0.5, -0.1), (0.1, 0.06), (-0.4, -0.1), (-1, 0))]
        draw.polygon([(x, y), *zigzag], fill=(250, 252, 255))
    draw.rectangle((0, int(size * 0.76), size, size), fill=_vary((228, 238, 248), rng, 6))
    return image


def _city_skyline(size: int, rng: random.Random) -> Image.Image:
    image = _gradient(size, _vary((120, 165, 215), rng), (235, 215, 195))
    draw = ImageDraw.Draw(image)
    x, ground = 0, int(size * 0.86)
    while x < size:
        width, height = int(size * rng.uniform(0.13, 0.2)), int(size * rng.uniform(0.4, 0.8))
        colour = _vary(rng.choice(((70, 80, 105), (100, 90, 100), (85, 105, 120))), rng)
        draw.rectangle((x, ground - height, x + width - 2, ground), fill=colour)
        step = size // 16
        for wy in range(ground - height + step // 2, ground - step // 2, step):
            for wx in range(x + step // 2, x + width - step // 2, step):
                if rng.random() < 0.8:
                    draw.rectangle((wx, wy, wx + step // 2, wy + step // 2), fill=(250, 230, 140))
        x += width
    draw.rectangle((0, ground, size, size), fill=(75, 75, 82))
    return image


def _outer_space(size: int, rng: random.Random) -> Image.Image:
    image = _gradient(size, _vary((12, 10, 40), rng, 6), (32, 14, 62))
    draw = ImageDraw.Draw(image)
    for _ in range(34):
        x, y, r = rng.randint(0, size), rng.randint(0, size), rng.choice((1, 1, 2)) * size / 130
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(255, 255, 235))
    r = int(size * rng.uniform(0.13, 0.17))
    x, y = (rng.choice((r, size - r)), rng.choice((r, size - r)))
    draw.ellipse((x - r, y - r, x + r, y + r), fill=_vary(rng.choice(((205, 120, 80), (120, 150, 220), (190, 140, 200))), rng))
    draw.ellipse((x - r * 1.7, y - r * 0.45, x + r * 1.7, y + r * 0.45), outline=(235, 215, 170), width=max(2, size // 40))
    return image


def _underwater(size: int, rng: random.Random) -> Image.Image:
    image = _gradient(size, _vary((60, 180, 215), rng), (8, 45, 110))
    draw = ImageDraw.Draw(image)
    for _ in range(10):
        x, y, r = rng.randint(0, size), rng.randint(0, int(size * 0.7)), size * rng.uniform(0.02, 0.045)
        draw.ellipse((x - r, y - r, x + r, y + r), outline=(205, 240, 255), width=max(2, size // 60))
    for i in range(7):
        x0 = (i + rng.uniform(0.1, 0.9)) * size / 7
        height = size * rng.uniform(0.2, 0.42)
        weed = [(x0 + size * 0.03 * np.sin(t * 7 + i), size - height * t) for t in np.linspace(0, 1, 8)]
        draw.line(weed, fill=_vary((20, 130, 75), rng), width=size // 22)
    draw.rectangle((0, int(size * 0.93), size, size), fill=_vary((165, 150, 105), rng))
    return image


def _flower_meadow(size: int, rng: random.Random) -> Image.Image:
    image = _gradient(size, _vary((130, 200, 250), rng), (225, 243, 252))
    draw = ImageDraw.Draw(image)
    phase = rng.uniform(0, 6.3)
    hill = [(x, size * (0.46 + 0.06 * np.sin(phase + x * 4.5 / size))) for x in range(0, size + 4, 4)]
    draw.polygon([(0, size), *hill, (size, size)], fill=_vary((95, 180, 70), rng))
    for i in range(26):
        x, y = rng.randint(0, size), size * (0.58 + 0.4 * (i / 26))
        r = size * 0.028
        colour = rng.choice(((255, 255, 255), (255, 215, 60), (240, 90, 150), (200, 110, 235)))
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    return image


def _living_room(size: int, rng: random.Random) -> Image.Image:
    wall = _vary(rng.choice(((235, 215, 185), (215, 225, 205), (230, 205, 210))), rng, 8)
    image = Image.new("RGB", (size, size), wall)
    draw = ImageDraw.Draw(image)
    stripe = tuple(max(0, c - 24) for c in wall)
    for x in range(0, size, size // 8):
        draw.rectangle((x, 0, x + size // 18, size), fill=stripe)
    floor = int(size * 0.7)
    draw.rectangle((0, floor, size, size), fill=_vary((150, 95, 55), rng))
    for y in range(floor, size, size // 12):
        draw.line((0, y, size, y), fill=(100, 62, 35), width=max(1, size // 60))
    left = rng.random() < 0.5
    x0 = int(size * (0.05 if left else 0.65))
    box = (x0, int(size * 0.08), x0 + int(size * 0.3), int(size * 0.42))
    draw.rectangle(box, fill=(165, 215, 245), outline=(255, 255, 255), width=size // 26)
    draw.line(((box[0] + box[2]) / 2, box[1], (box[0] + box[2]) / 2, box[3]), fill=(255, 255, 255), width=size // 40)
    return image


def _theater_stage(size: int, rng: random.Random) -> Image.Image:
    x = np.arange(size)
    folds = 0.72 + 0.28 * np.sin(x * 2 * np.pi / (size / rng.choice((6, 7, 8))) + rng.uniform(0, 6.3))
    curtain = folds[None, :, None] * np.array(_vary((185, 25, 40), rng, 8))
    image = Image.fromarray(np.broadcast_to(curtain, (size, size, 3)).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for i in range(4):
        x0 = i * size / 4
        draw.pieslice((x0, -size * 0.14, x0 + size / 4, size * 0.14), 0, 180, fill=(225, 170, 50))
    draw.rectangle((0, int(size * 0.8), size, size), fill=_vary((120, 75, 40), rng))
    draw.rectangle((0, int(size * 0.8), size, int(size * 0.83)), fill=(230, 190, 110))
    return image


def _checkered_floor(size: int, rng: random.Random) -> Image.Image:
    dark = _vary(rng.choice(((40, 40, 46), (170, 40, 40), (40, 80, 150))), rng)
    cells = 6
    ys, xs = np.indices((size, size)) * cells // size
    board = ((xs + ys + rng.randint(0, 1)) % 2)[..., None]
    return Image.fromarray(np.where(board == 1, np.array(dark), np.array((238, 236, 230))).astype(np.uint8))


def _brick_wall(size: int, rng: random.Random) -> Image.Image:
    image = Image.new("RGB", (size, size), (212, 200, 185))
    draw = ImageDraw.Draw(image)
    height, width, gap = size // 8, size // 4, max(2, size // 42)
    base = _vary((170, 75, 55), rng)
    for row in range(9):
        for col in range(-1, 5):
            x, y = col * width + (row % 2) * width // 2, row * height
            draw.rectangle((x, y, x + width - gap, y + height - gap), fill=_vary(base, rng, 12))
    return image


def _plain_background(size: int, rng: random.Random) -> Image.Image:
    tone = rng.choice(((225, 225, 228), (250, 215, 150), (165, 205, 240), (245, 180, 185), (180, 225, 185)))
    tone = _vary(tone, rng)
    return _gradient(size, tone, tuple(int(c * 0.86) for c in tone))  # type: ignore[arg-type]


PAINTERS: dict[str, Callable[[int, random.Random], Image.Image]] = {
    "beach": _beach,
    "forest": _forest,
    "desert": _desert,
    "snowy mountains": _snowy_mountains,
    "city skyline": _city_skyline,
    "outer space": _outer_space,
    "underwater": _underwater,
    "flower meadow": _flower_meadow,
    "living room": _living_room,
    "theater stage": _theater_stage,
    "checkered floor": _checkered_floor,
    "brick wall": _brick_wall,
    "plain background": _plain_background,
}
