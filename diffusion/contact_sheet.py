"""A grid of images with a caption beneath each, as one picture."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

_LINE = 12


def contact_sheet(images: Sequence[Image.Image], captions: Sequence[str], *, columns: int = 8, cell: int = 160, lines: int = 4) -> Image.Image:
    """Lay `images` out in `columns`, each fitted into `cell` x `cell` pixels, its caption wrapped beneath in at most `lines` lines.

    Raises:
        ValueError: no images, or not one caption for each.
    """
    if not images or len(images) != len(captions):
        raise ValueError(f"a contact sheet needs as many captions as images, and at least one: {len(images)} images, {len(captions)} captions")
    font = ImageFont.load_default(size=10)
    gap, text_height = 6, lines * _LINE + 4
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (cell + gap) + gap, rows * (cell + text_height + gap) + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = gap + i % columns * (cell + gap), gap + i // columns * (cell + text_height + gap)
        scale = cell / max(image.size)
        resample = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS
        fitted = image.convert("RGB").resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), resample)
        sheet.paste(fitted, (x + (cell - fitted.width) // 2, y + (cell - fitted.height) // 2))
        for j, line in enumerate(textwrap.wrap(caption, width=max(8, int(cell / 5.4)), max_lines=lines, placeholder=" ...")):
            draw.text((x, y + cell + 2 + j * _LINE), line, fill=(30, 30, 30), font=font)
    return sheet
