import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from data.images import AugmentedPreprocess, ImageError, Preprocess, read_image

PREPROCESS = Preprocess((16, 16), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bicubic")


def encoded(image: Image.Image, kind: str = "PNG", **arguments: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **arguments)
    return buffer.getvalue()


def test_metadata_is_left_behind() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a secret prompt")
    image = read_image(encoded(Image.new("RGB", (4, 4)), pnginfo=info))
    assert image.info == {}
    assert b"secret" not in encoded(image)


def test_transparency_becomes_white() -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    assert list(read_image(encoded(image)).getdata()) == [(255, 0, 0), (255, 255, 255)]


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(mode: str, tmp_path: Path) -> None:
    sixteen_bits = Image.fromarray(np.full((3, 3), 32768, dtype=np.uint16))
    image = sixteen_bits if mode == "I;16" else Image.new("RGB", (3, 3), (128, 128, 128)).convert(mode)
    read = read_image(encoded(image, "TIFF" if mode == "CMYK" else "PNG"))
    assert read.mode == "RGB"
    if mode in ("L", "LA", "I;16", "CMYK"):
        assert abs(read.getpixel((1, 1))[0] - 128) <= 2


def test_pictures_are_turned_upright() -> None:
    image = Image.new("RGB", (2, 1), "white")
    exif = image.getexif()
    exif[0x0112] = 6
    assert read_image(encoded(image, "JPEG", exif=exif)).size == (1, 2)


@pytest.mark.parametrize("content", [b"", b"not an image", encoded(Image.effect_noise((64, 64), 50))[:300]])
def test_unreadable_files_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.png").write_bytes(content)
    with pytest.raises(ImageError, match=r"broken\.png: not a readable image"):
        read_image(tmp_path / "broken.png")
    with pytest.raises(ImageError, match=r"none\.png: no such file"):
        read_image(tmp_path / "none.png")


def test_a_huge_picture_is_refused_by_its_header() -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 12_000, 12_000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(ImageError, match=r"12000 x 12000 pixels are more"):
        read_image(bomb, name="bomb.png")


def test_pixel_values_by_hand() -> None:
    values = PREPROCESS(Image.new("RGB", (16, 16), (255, 0, 51)))
    assert values.shape == (3, 16, 16)
    torch.testing.assert_close(values[:, 3, 5], torch.tensor([2.0, -2.0, -1.2]))


def test_augmentation_keeps_left_and_right() -> None:
    image = Image.new("RGB", (64, 64))
    image.paste((255, 255, 255), (32, 0, 64, 64))
    views = [AugmentedPreprocess(PREPROCESS)(image, random.Random(i)) for i in range(20)]
    assert all(view[0, 8, 0] < view[0, 8, -1] for view in views)
    assert any(not torch.equal(views[0], view) for view in views)


@pytest.mark.parametrize(
    ("shape", "size", "box"),
    [
        ((60, 40), (20, 20), (5, 0, 25, 20)),  # wider: 30 x 20, the middle of its width
        ((40, 60), (20, 20), (0, 5, 20, 25)),
        ((60, 40), (10, 30), (0, 5, 30, 15)),  # a flat target: 30 x 20, the middle of its height
    ],
)
def test_the_middle_of_a_picture_of_another_shape(shape: tuple[int, int], size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    rows = np.add.outer(np.arange(shape[1]) * 3, np.arange(shape[0]) * 2).astype(np.uint8)
    image = Image.fromarray(np.repeat(rows[..., None], 3, -1))
    reduced = (box[2] - box[0], box[3] - box[1])
    assert reduced == size[::-1]
    scale = min(shape) / 20
    expected = image.resize((round(shape[0] / scale), round(shape[1] / scale)), Image.Resampling.BICUBIC).crop(box)
    preprocess = Preprocess(size, (0, 0, 0), (1, 1, 1), "bicubic", "center")
    assert np.array_equal((preprocess(image) * 255).round().numpy().transpose(1, 2, 0), np.asarray(expected))
    squeezed = Preprocess(size, (0, 0, 0), (1, 1, 1), "bicubic")(image)
    assert squeezed.shape == (3, *size)
