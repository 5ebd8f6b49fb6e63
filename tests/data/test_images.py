import io
import os
import random
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from data.errors import ImageError
from data.images import picture_rgb, read_image, to_rgb
from data.loading.augmentation import RandomCrop
from model import Preprocessing

PREPROCESS = Preprocessing(image_size=16, mean=(0.5,) * 3, std=(0.25,) * 3)


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
    with pytest.raises(ImageError, match=r"broken\.png: not a readable image") as raised:
        read_image(tmp_path / "broken.png")
    assert raised.value.kind == ("damaged image" if content else "empty image")
    with pytest.raises(ImageError, match=r"none\.png: no such file"):
        read_image(tmp_path / "none.png")


def test_a_huge_picture_is_refused_by_its_header() -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 12_000, 12_000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(ImageError, match=r"12000 x 12000 pixels are more"):
        read_image(bomb, name="bomb.png")


@pytest.mark.parametrize("limit", ["MAX_BYTES", "MAX_PIXELS"])
def test_what_is_larger_than_is_read_is_refused_whole(limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(Image.effect_noise((30, 20), 50))
    (tmp_path / "a.png").write_bytes(content)
    most = len(content) if limit == "MAX_BYTES" else 600
    monkeypatch.setattr(f"data.images.{limit}", most)
    assert read_image(content).size == read_image(tmp_path / "a.png").size == (30, 20)
    monkeypatch.setattr(f"data.images.{limit}", most - 1)
    for source in (content, tmp_path / "a.png"):
        with pytest.raises(ImageError, match=rf"more than the {most - 1:,} that are read") as raised:
            read_image(source)
        assert raised.value.kind == "huge image"


def test_a_file_of_a_gibibyte_is_read_and_none_larger(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(Image.new("RGB", (3, 2))))
    os.truncate(tmp_path / "a.png", 1 << 30)  # nothing but a hole behind the picture
    assert read_image(tmp_path / "a.png").size == (3, 2)
    os.truncate(tmp_path / "a.png", (1 << 30) + 1)
    with pytest.raises(ImageError, match=r"1,073,741,825 bytes are more than the 1,073,741,824 that are read"):
        read_image(tmp_path / "a.png")


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "zeros.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "folder.png", "zeros.png"):
        with pytest.raises(ImageError, match=rf"{name}: not a file") as raised:
            read_image(tmp_path / name)
        assert raised.value.kind == "no file"


def test_pixel_values_by_hand() -> None:
    values = PREPROCESS(Image.new("RGB", (16, 16), (255, 0, 51)))
    assert values.shape == (3, 16, 16)
    torch.testing.assert_close(values[:, 3, 5], torch.tensor([2.0, -2.0, -1.2]))


def test_augmentation_keeps_left_and_right() -> None:
    image = Image.new("RGB", (64, 64))
    image.paste((255, 255, 255), (32, 0, 64, 64))
    views = [RandomCrop(PREPROCESS.size, PREPROCESS.interpolation)(image, random.Random(i)) for i in range(20)]
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
    preprocess = Preprocessing(image_size=size, mean=(0, 0, 0), std=(1, 1, 1), crop="center")
    assert np.array_equal((preprocess(image) * 255).round().numpy().transpose(1, 2, 0), np.asarray(expected))
    squeezed = Preprocessing(image_size=size, mean=(0, 0, 0), std=(1, 1, 1))(image)
    assert squeezed.shape == (3, *size)


@pytest.mark.parametrize("what", ["text", "profile"])
def test_long_texts_and_profiles_of_a_png_are_read(tmp_path: Path, what: str) -> None:
    """ComfyUI's graphs are longer than the megabyte that Pillow unpacks by itself."""
    notes = PngImagePlugin.PngInfo()
    if what == "text":
        notes.add_text("workflow", "x" * (3 << 20), zip=True)
    profile = bytes(3 << 20) if what == "profile" else None
    Image.new("RGB", (12, 10), "red").save(tmp_path / "a.png", pnginfo=notes, icc_profile=profile)
    assert read_image(tmp_path / "a.png").getpixel((0, 0)) == (255, 0, 0)


def test_a_text_that_is_a_bomb_is_still_refused(tmp_path: Path) -> None:
    notes = PngImagePlugin.PngInfo()
    notes.add_text("workflow", "x" * (100 << 20), zip=True)
    Image.new("RGB", (12, 10)).save(tmp_path / "a.png", pnginfo=notes)
    assert (tmp_path / "a.png").stat().st_size < 200_000
    with pytest.raises(ImageError, match="not a readable image"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".png", ".eps", ".jpg"])
def test_only_formats_on_the_list_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """Whatever its name says: of an EPS Pillow would start another program."""
    monkeypatch.setattr("subprocess.check_call", lambda *arguments, **options: pytest.fail("another program was started"))
    (tmp_path / f"a{suffix}").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(ImageError, match="not a readable image"):
        read_image(tmp_path / f"a{suffix}")


def test_heic_is_read_where_the_extra_is_there_and_named_where_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    Image.new("RGB", (64, 48), "red").save(tmp_path / "a.heic", quality=95)
    red = read_image(tmp_path / "a.heic").getpixel((30, 20))
    assert red[0] > 240
    assert max(red[1:]) < 20
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"pip install -e '\.\[heic\]'"):
        read_image(tmp_path / "a.heic")


def test_damaged_orientation_turns_nothing(tmp_path: Path) -> None:
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\xff\xff\xff\xff"
    Image.new("RGB", (12, 10), "red").save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").size == (12, 10)


@pytest.mark.parametrize(
    ("mode", "values", "expected"),
    [
        ("I", [0, 128, 255], [0, 128, 255]),  # a mask or a depth map of eight bits
        ("I", [0, 32896, 65535], [0, 128, 255]),
        ("F", [0.0, 0.502, 1.0], [0, 128, 255]),
        ("F", [0.0, 128.0, 255.0], [0, 128, 255]),
        ("F", [0.0, float("nan"), 1.0], [0, 0, 255]),
        ("I;16", [0, 32896, 65535], [0, 128, 255]),
        ("I;16", [0, 100, 255], [0, 0, 0]),  # which says how bright white is
    ],
)
def test_greys_of_more_than_eight_bits(mode: str, values: list[float], expected: list[int]) -> None:
    kinds = {"I": np.int32, "F": np.float32, "I;16": np.uint16}
    image = Image.fromarray(np.array([values], dtype=kinds[mode]))
    assert image.mode == mode
    for read in (to_rgb(image), picture_rgb(image)):
        assert [pixel[0] for pixel in read.getdata()] == pytest.approx(expected, abs=1)
        assert read.mode == "RGB"


def test_a_palette_with_a_transparent_colour_is_white_there() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    image.info["transparency"] = 1
    assert list(to_rgb(image).getdata()) == [(10, 20, 30), (255, 255, 255)]


def test_a_picture_reduced_twice_is_reduced_once() -> None:
    """So that what is kept of large pictures gives the same prompts."""
    image = Image.effect_noise((123, 77), 60).convert("RGB")
    for crop in ("squeeze", "center"):
        preprocessing = Preprocessing(image_size=(32, 24), crop=crop)
        once = preprocessing.reduced(image)
        assert once.size == (24, 32)
        assert preprocessing.reduced(once).tobytes() == once.tobytes()
        assert torch.equal(preprocessing.pixels(once), preprocessing.pixels(image))


def test_what_somebody_else_opened_is_read_to_its_end() -> None:
    content = encoded(Image.effect_noise((64, 64), 50))
    with Image.open(io.BytesIO(content[:-2000])) as cut, pytest.raises(ImageError, match="not a readable image"):
        picture_rgb(cut)


@pytest.mark.parametrize("mode", ["RGBA", "RGBa", "LA", "La"])
def test_what_is_transparent_is_white_however_it_is_kept(mode: str) -> None:
    image = Image.new("RGBA", (2, 1), (200, 200, 200, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    if mode in ("LA", "La"):
        image = image.convert("LA")
    found = list(picture_rgb(image.convert(mode) if mode != image.mode else image).getdata())
    assert found == [(200, 200, 200), (255, 255, 255)]
