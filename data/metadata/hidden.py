"""Text hidden in the lowest bits of a picture, column by column: what NovelAI, and extensions of AUTOMATIC1111, SwarmUI and ComfyUI, write into the
alpha channel or, where there is none, into red, green and blue in turn: a name, a length in bits, and the text, compressed or not."""

from __future__ import annotations

import gzip
import io
import zlib

import numpy as np
from PIL import Image

from data.metadata.chunks import LONGEST
from data.metadata.found import MetadataError

_NAMES = {b"stealth_pnginfo": ("A", False), b"stealth_pngcomp": ("A", True), b"stealth_rgbinfo": ("RGB", False), b"stealth_rgbcomp": ("RGB", True)}
_NAME_BITS, _LENGTH_BITS = 120, 32
_LOSSY = ("JPEG", "MPO", "GIF")  # in whose pixels nothing could be hidden so
_MODES = {"RGBA": ("A", "RGB"), "RGB": ("RGB",), "LA": ("A",)}


def hidden_text(image: Image.Image) -> str | None:
    """
    Raises:
        MetadataError: there is one, and it is damaged.
    """
    for channels in _MODES.get(image.mode, ()) if image.format not in _LOSSY else ():
        try:
            text = _text(image, channels)
        except MetadataError:
            raise
        except Exception:  # a damaged picture raises anything; reading it will say what is wrong
            return None
        if text is not None:
            return text
    return None


def _text(image: Image.Image, channels: str) -> str | None:
    begin = _NAME_BITS + _LENGTH_BITS
    head = _bits(image, channels, begin)
    name = np.packbits(head[:_NAME_BITS]).tobytes()
    if len(head) < begin or _NAMES.get(name, ("", False))[0] != channels:
        return None
    where = "alpha channel" if channels == "A" else "colours"
    length = min(int.from_bytes(np.packbits(head[_NAME_BITS:]).tobytes(), "big"), 8 * LONGEST)
    bits = _bits(image, channels, begin + length)[begin:]
    if len(bits) < length:
        raise MetadataError(f"the text hidden in the {where} is damaged (it ends early)", "hidden text")
    body = np.packbits(bits).tobytes()
    try:
        if _NAMES[name][1]:
            with gzip.open(io.BytesIO(body)) as file:
                body = file.read(LONGEST)
        return body.decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise MetadataError(f"the text hidden in the {where} is damaged ({error})", "hidden text") from error


def _bits(image: Image.Image, channels: str, count: int) -> np.ndarray:
    """The first lowest bits, down the columns, the channels of a pixel one after another."""
    columns = min(image.width, -(-count // (image.height * len(channels))))
    pixels = np.asarray(image.crop((0, 0, columns, image.height)))
    pixels = pixels[..., -1:] if channels == "A" else pixels[..., :3]
    return (pixels.transpose(1, 0, 2).reshape(-1) & 1)[:count]
