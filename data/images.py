"""The one reader of pictures: formats on a list, sides known before anything is decoded, turned upright, RGB."""

from __future__ import annotations

import io
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from data.errors import ImageError

MAX_PIXELS = 100_000_000  # read from the header before anything is decoded
MAX_BYTES = 1 << 30  # of a file: so many pixels in four colours of 16 bits, uncompressed, take 0.8 GB
_ENOUGH = 1024  # pixels of a picture's shorter side: more than any captioner looks at
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".webp", ".jfif", ".jpe", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif", ".apng", ".avifs", ".dib"),
    *(".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico"),
)
# decoders that run no other program and are no containers of many things (of EPS Pillow would start Ghostscript)
_FORMATS = ["PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", "PPM", "TGA", "ICO", "JPEG2000"]
_LONGEST_TEXT = 16 << 20  # bytes of one text or colour profile of a PNG, unpacked: graphs of ComfyUI are longer than Pillow's 1 MB
PngImagePlugin.MAX_TEXT_CHUNK = _LONGEST_TEXT
PngImagePlugin.MAX_TEXT_MEMORY = 4 * _LONGEST_TEXT


def pictures_below(directory: Path, closed: Callable[[Path, OSError], None]) -> Iterator[Path]:
    """Every picture of a directory and those below it, in order; linked directories are gone into once, hidden ones not. `closed` is told of folders
    that cannot be entered."""
    seen: set[Path] = set()

    def walk(here: Path) -> Iterator[Path]:
        real = here.resolve()
        if real in seen:  # a link to what was gone through, or in a circle
            return
        seen.add(real)
        try:
            found = sorted(here.iterdir())
        except OSError as error:
            closed(here, error)
            return
        for path in found:
            if path.name.startswith("."):
                continue
            if path.is_dir():
                yield from walk(path)
            elif path.suffix.lower() in SUFFIXES and path.is_file():
                yield path

    return walk(directory)


def read_image(source: Path | bytes, name: str | None = None) -> Image.Image:
    """Decode a picture to RGB: turned upright as its EXIF data asks, transparency on white, metadata left behind.

    Raises:
        ImageError: missing, empty, damaged, cut short, not an image, or more than `MAX_BYTES` bytes or `MAX_PIXELS` pixels.
    """
    with opened_image(source, name) as image:
        return decoded_rgb(image, name or _label(source))


@contextmanager
def opened_image(source: Path | bytes, name: str | None = None) -> Iterator[Image.Image]:
    """A picture as Pillow opens it, with its metadata and not yet decoded; what goes wrong with it inside the `with` block is an `ImageError` too.

    Raises:
        ImageError: as `read_image`.
    """
    label = name or _label(source)
    try:
        size = len(source) if isinstance(source, bytes) else _size(source, label)
        if not size:
            raise ImageError(f"{label}: not a readable image (the file is empty)", "empty image")
        if size > MAX_BYTES:
            raise ImageError(f"{label}: {size:,} bytes are more than the {MAX_BYTES:,} that are read; reduce it first", "huge image")
        _know_heif(source)
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_known_formats()) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(_too_large(label, image), "huge image")
            yield image
    except FileNotFoundError as error:
        raise ImageError(f"{label}: no such file", "missing image") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{label}: {error}", "huge image") from error
    except UnidentifiedImageError as error:  # whose own words name an object in memory
        raise ImageError(f"{label}: not a readable image (damaged, or in no format that is read)") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, RuntimeError, TypeError, KeyError, IndexError, OverflowError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"{label}: not a readable image ({error})") from error


def decoded_rgb(image: Image.Image, label: str) -> Image.Image:
    """What `opened_image` gave, decoded to its end, upright and RGB.

    Raises:
        ImageError: it is damaged or cut short.
    """
    try:
        image.load()
        return upright_rgb(image)
    except Image.DecompressionBombError as error:
        raise ImageError(f"{label}: {error}", "huge image") from error
    except Exception as error:  # decoders of damaged files raise anything
        raise ImageError(f"{label}: not a readable image ({type(error).__name__}: {error})") from error


def _too_large(label: str, image: Image.Image) -> str:
    return f"{label}: {image.width} x {image.height} pixels are more than the {MAX_PIXELS:,} that are read; reduce it first"


def _size(path: Path, label: str) -> int:
    """In bytes. What is no file, a pipe say, might never end."""
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise ImageError(f"{label}: not a file", "no file")
    return about.st_size


def _label(source: Path | bytes) -> str:
    return str(source) if isinstance(source, Path) else "image"


def _known_formats() -> list[str]:
    Image.init()  # loads all decoders, once
    return [name for name in _FORMATS if name in Image.OPEN]


def _know_heif(source: Path | bytes) -> None:
    """Teach Pillow the pictures of phones where the extra 'heic' is there.

    Raises:
        ImageError: it is one of them, and the extra is not there.
    """
    head = source[:12] if isinstance(source, bytes) else b""
    if isinstance(source, Path):
        with open(source, "rb") as file:
            head = file.read(12)
    if head[4:8] != b"ftyp" or head[8:12] not in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"):
        return
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise ImageError("a HEIC picture; reading it needs the extra 'heic': pip install -e '.[heic]'", "extra 'heic' missing") from error
    register_heif_opener()


def picture_rgb(image: Image.Image) -> Image.Image:
    """An image that somebody else opened or made, as `read_image` would give it.

    Raises:
        ImageError: no pixels, more than `MAX_PIXELS`, or a damaged file behind it.
    """
    if not image.width or not image.height:
        raise ImageError(f"image: {image.width} x {image.height} pixels are no picture", "empty image")
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(_too_large("image", image), "huge image")
    return decoded_rgb(image, "image")


def upright_rgb(image: Image.Image) -> Image.Image:
    """As `to_rgb`, turned as its EXIF data asks; damaged EXIF data asks for nothing."""
    with suppress(Exception):  # which raise anything
        image = ImageOps.exif_transpose(image)
    return to_rgb(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB without metadata; transparent parts become white, greys of 16 bits or of fractions are scaled to 8 bits."""
    if image.mode in ("RGBa", "La"):  # colours multiplied by their opacity
        image = image.convert(image.mode.upper())
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.new("RGBA", rgba.size, "white")
        image.alpha_composite(rgba)
    rgb = image.convert("RGB")
    rgb.info = {}
    return rgb


def _eight_bits(image: Image.Image) -> Image.Image:
    """Greys of 32 bits say nowhere how bright white is: 255 where none is above, else 65535; of fractions 1 where none is above, else 255."""
    grey = np.nan_to_num(np.asarray(image).astype(np.float32))
    brightest = float(grey.max(initial=0))
    if image.mode.startswith("I;16"):
        white = 65535.0
    elif image.mode == "F":
        white = 1.0 if brightest <= 1 else 255.0
    else:
        white = 255.0 if brightest <= 255 else 65535.0
    return Image.fromarray((grey * (255 / white)).clip(0, 255).astype(np.uint8))


def shrunk(image: Image.Image) -> Image.Image:
    """Of a picture that is twice as large as any captioner looks at, a whole number of pixels averaged to one."""
    factor = min(image.size) // _ENOUGH
    return image.reduce(factor) if factor > 1 else image
