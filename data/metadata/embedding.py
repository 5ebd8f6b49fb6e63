"""Writing a guessed prompt into a copy of a picture, as AUTOMATIC1111's web UI notes its own: PNG's chunk `parameters`, EXIF's UserComment of JPEG.

Pixels are as they were: chunks and segments are put between the bytes of the file. What is neither PNG nor JPEG becomes a PNG.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping

from PIL import ExifTags, Image

from data.errors import ImageError
from data.images import to_rgb
from data.metadata.automatic1111 import ParametersText

GUESS = "guessed by Reprompt"  # under `Version`, so that nobody takes it for what made the picture
_PNG = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_MOST_EXIF = 65_533  # a segment of JPEG says its length in two bytes, which count themselves
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B", "I")


class EmbeddingError(ImageError):
    """A prompt that cannot be written into a file of this kind; says why."""

    def __init__(self, message: str, kind: str = "prompt not embedded") -> None:
        super().__init__(message, kind)


def guessed_text(prompt: str, about: Mapping[str, str]) -> str:
    """The text to write: the prompt, and on a line after it what is to be known about the guess."""
    return str(ParametersText(prompt=prompt, parameters={**about, "Version": GUESS}))


def is_guess(text: str) -> bool:
    """Whether `guessed_text` wrote it."""
    return text.rstrip("\0 \t\r\n").endswith(f"Version: {GUESS}")


def with_text(content: bytes, image: Image.Image, text: str) -> tuple[bytes, str]:
    """
    Args:
        content: of a picture's file.
        image: the same, as Pillow opened it.

    Returns:
        The file with the text, and the suffix of its name.

    Raises:
        EmbeddingError: the text is too long for a JPEG, its EXIF data are damaged, or the file is not built as its kind is.
    """
    if image.format == "JPEG":
        return _jpeg(content, image, text), ".jpg"
    if image.format != "PNG":
        buffer = io.BytesIO()
        frame = image
        if image.mode not in _PNG_MODES:
            frame = image.convert("RGBA") if image.has_transparency_data else to_rgb(image)
        frame.save(buffer, "PNG", exif=image.getexif())
        content = buffer.getvalue()
    return _png(content, text), ".png"


def _png(content: bytes, text: str) -> bytes:
    """Its chunks, an earlier `parameters` left out, with ours after the header."""
    if not content.startswith(_PNG):
        raise EmbeddingError("not built as a PNG is")
    chunks, place = [], len(_PNG)
    while place + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, place)
        kind, end = content[place + 4 : place + 8], place + 12 + length
        if end > len(content):
            break
        if not (kind in _TEXTS and content[place + 8 : end].startswith(b"parameters\0")):
            chunks.append(content[place:end])
        place = end
    if not chunks or chunks[0][4:8] != b"IHDR":
        raise EmbeddingError("not built as a PNG is")
    try:
        kind, body = b"tEXt", b"parameters\0" + text.encode("latin-1")
    except UnicodeEncodeError:
        kind, body = b"iTXt", b"parameters\0\0\0\0\0" + text.encode("utf-8", "replace")
    ours = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return b"".join([_PNG, chunks[0], ours, *chunks[1:], content[place:]])


def _jpeg(content: bytes, image: Image.Image, text: str) -> bytes:
    """Its segments, EXIF's replaced by the same with our comment."""
    try:
        exif = image.getexif()
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"UNICODE\0" + text.encode("utf-16-be", "replace")
        body = exif.tobytes()
    except Exception as error:  # damaged EXIF raises anything
        raise EmbeddingError(f"its EXIF data are damaged, so that nothing can be put beside them ({error})") from error
    if len(body) > _MOST_EXIF:
        raise EmbeddingError(f"the prompt is too long for a JPEG ({len(text):,} characters)")
    segments, place = [], 2
    while content[place : place + 1] == b"\xff" and place + 4 <= len(content) and content[place + 1] != 0xDA:  # up to the picture
        end = place + 2 + struct.unpack_from(">H", content, place + 2)[0]
        segments.append(content[place:end])
        place = end
    if not content.startswith(b"\xff\xd8") or content[place : place + 2] != b"\xff\xda":
        raise EmbeddingError("not built as a JPEG is")
    first = [part for part in segments[:1] if part[1] == 0xE0]  # JFIF's comes before all others
    others = [part for part in segments[len(first) :] if not (part[1] == 0xE1 and part[4:10] == b"Exif\0\0")]
    ours = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    return b"".join([b"\xff\xd8", *first, ours, *others, content[place:]])
