"""Guesses in copies of pictures, against Pillow, against the bytes of the pictures, and against whoever might take them for prompts."""

from __future__ import annotations

import io
import json
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from archives import encoded
from graphs import graph, png, png_of_bytes, with_comment
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, PngImagePlugin

from data.importers import main, parse
from data.metadata.automatic1111 import parse_parameters_text
from data.metadata.embedding import EmbeddingError, guessed_text, is_guess, with_text
from data.metadata.tools import GuessedPromptError, MetadataError, read_image_metadata

ABOUT = {"Software": "Reprompt", "Confidence": "0.52", "Familiarity": "0.123"}
PROMPTS = [
    "a cat on a beach, soft light",
    "café",
    "猫が海で \N{FOX FACE}",
    'a "cat": black, {white}',
    "a cat\nNegative prompt: a dog\nSteps: 20, Sampler: Euler a",
    "a cat, Steps: 20, Sampler: Euler a, Seed: 5",
    "Version: 1.6, Model: x, Seed: 5",
    "",
]


def noise(mode: str = "RGB", size: tuple[int, int] = (37, 23)) -> Image.Image:
    width, height = size
    rng = np.random.default_rng(0)
    if mode in ("I;16", "I;16B"):
        return Image.frombytes(mode, size, rng.integers(0, 65536, (height, width)).astype("<u2" if mode == "I;16" else ">u2").tobytes())
    if mode == "I":
        return Image.fromarray(rng.integers(0, 65536, (height, width), dtype=np.int32))
    if mode == "F":
        return Image.fromarray(rng.random((height, width), dtype=np.float32))
    if mode == "RGBA":
        return Image.fromarray(rng.integers(0, 256, (height, width, 4), dtype=np.uint8))
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).convert(mode)


def saved(kind: str, image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def marked(content: bytes, text: str) -> bytes:
    return with_text(content, opened(content), text)[0]


def chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    """Kind and body of each, and that the checksums are right."""
    found, place = [], 8
    while place < len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        kind, body = content[place + 4 : place + 8], content[place + 8 : place + 8 + length]
        assert struct.unpack(">I", content[place + 8 + length : place + 12 + length]) == (zlib.crc32(kind + body),)
        found.append((kind, body))
        place += 12 + length
    return found


def scan(content: bytes) -> bytes:
    """All of a JPEG from where the picture begins."""
    return content[content.index(b"\xff\xda") :]


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_a_guess_is_read_back_and_by_nobody_taken_for_a_prompt(kind: str, prompt: str) -> None:
    text = guessed_text(prompt, ABOUT)
    content = marked(saved(kind, noise()), text)
    image = opened(content)
    with pytest.raises(GuessedPromptError, match=r"a guess of Reprompt's \(caption\.py --embed\)") as raised:
        read_image_metadata(image, name="a.png")
    assert raised.value.kind == "a guess of Reprompt's"
    if kind == "JPEG":
        comment = image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
        assert comment[:8] == b"UNICODE\0"
        assert comment[8:].decode("utf-16-be") == text
    else:
        assert image.info["parameters"] == text
    assert text.startswith(prompt)
    assert text.endswith("Confidence: 0.52, Familiarity: 0.123, Version: guessed by Reprompt")


def test_the_web_ui_would_read_the_prompt() -> None:
    found = parse_parameters_text(guessed_text("a cat, by night", ABOUT))
    assert found.prompt == "a cat, by night"
    assert dict(found.parameters) == ABOUT | {"Version": "guessed by Reprompt"}


@given(st.text(max_size=60), st.dictionaries(st.sampled_from(["Software", "Confidence"]), st.text(max_size=5)))
def test_any_guess_is_known(prompt: str, about: dict[str, str]) -> None:
    text = guessed_text(prompt, about)
    assert is_guess(text)
    assert not is_guess(prompt)
    with pytest.raises(GuessedPromptError):
        read_image_metadata(opened(marked(encoded("PNG"), text)))
    with pytest.raises(GuessedPromptError):
        read_image_metadata(opened(marked(encoded("JPEG"), text)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_of_a_png_every_byte_stays_but_the_earlier_text(mode: str) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "kept")
    info.add_text("parameters", "old, one")
    info.add_itxt("parameters", "old, 猫")
    info.add_text("parameters", "old, two", zip=True)
    info.add_itxt("Comment", "kept 猫")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    content = saved("PNG", noise(mode), pnginfo=info, exif=exif, dpi=(72, 72), icc_profile=b"profile")
    before = chunks(content)
    assert sum(body.startswith(b"parameters\0") for _, body in before) == 3
    after = chunks(marked(content, "new"))
    kept = [chunk for chunk in before if not chunk[1].startswith(b"parameters\0")]
    assert after == [kept[0], (b"tEXt", b"parameters\0new"), *kept[1:]]
    image = opened(marked(content, "new"))
    assert image.mode == opened(content).mode
    assert np.array_equal(np.asarray(image), np.asarray(opened(content)))
    assert (image.info["parameters"], image.info["Title"], image.info["Comment"]) == ("new", "kept", "kept 猫")
    assert image.getexif()[ExifTags.Base.Orientation] == 6


def test_a_png_says_its_text_in_the_form_that_can_hold_it() -> None:
    for text, kind in (("plain", b"tEXt"), ("café ÿ", b"tEXt"), ("猫", b"iTXt"), ("a\udc80b", b"iTXt")):
        content = marked(encoded("PNG"), text)
        assert [found for found, body in chunks(content) if body.startswith(b"parameters\0")] == [kind]
        assert opened(content).text["parameters"] == text.replace("\udc80", "?")  # type: ignore[attr-defined]


def test_a_moving_png_goes_on_moving() -> None:
    frames = [Image.new("RGB", (9, 7), colour) for colour in ("red", "green", "blue")]
    content = saved("PNG", frames[0], save_all=True, append_images=frames[1:])
    again = opened(marked(content, "new"))
    assert again.n_frames == 3  # type: ignore[attr-defined]
    again.seek(2)
    assert again.convert("RGB").getpixel((0, 0)) == (0, 0, 255)


def test_what_follows_a_png_or_is_cut_stays() -> None:
    content = encoded("PNG", size=(64, 64))
    for end in (content + b"more, as of an archive behind it", content[:-3], content[:-20]):
        kept = marked(end, "new")
        assert kept.startswith(content[:33])
        assert kept.endswith(end[33:])


@pytest.mark.parametrize("exif", [False, True])
@pytest.mark.parametrize("progressive", [False, True])
def test_of_a_jpeg_the_scan_and_the_other_segments_stay(exif: bool, progressive: bool) -> None:
    options: dict[str, Any] = {"comment": b"kept", "progressive": progressive, "icc_profile": b"profile", "xmp": b"<x:xmpmeta/>"}
    if exif:
        about = Image.Exif()
        about[ExifTags.Base.Orientation] = 6
        about[ExifTags.Base.ImageDescription] = "kept too"
        about.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"ASCII\0\0\0old"
        about.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] = 0.25
        about.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
        options["exif"] = about
    content = saved("JPEG", noise(size=(80, 60)), **options)
    after = marked(content, "new 猫")
    assert scan(after) == scan(content)
    again = opened(after)
    assert np.array_equal(np.asarray(again), np.asarray(opened(content)))
    assert (again.info["comment"], again.info["icc_profile"], again.info["xmp"]) == (b"kept", b"profile", b"<x:xmpmeta/>")
    assert after[2:4] == b"\xff\xe0"  # JFIF's segment comes first
    assert after.count(b"Exif\0\0") == 1
    read = again.getexif()
    assert read.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] == b"UNICODE\0" + "new 猫".encode("utf-16-be")
    if exif:
        assert read[ExifTags.Base.Orientation] == 6
        assert read[ExifTags.Base.ImageDescription] == "kept too"
        assert read.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] == 0.25
        assert read.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
    assert marked(after, "newer").count("newer".encode("utf-16-be")) == 1
    assert "new 猫".encode("utf-16-be") not in marked(after, "newer")


def test_a_jpeg_has_room_for_so_much_and_no_more() -> None:
    content = encoded("JPEG", size=(64, 64))
    room = 65_533 - (len(marked(content, "")) - len(content) - 4)  # bytes of the segment that an empty text leaves
    longest = "x" * (room // 2)
    after = marked(content, longest)
    comment = opened(after).getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
    assert comment == b"UNICODE\0" + longest.encode("utf-16-be")
    assert scan(after) == scan(content)
    with pytest.raises(EmbeddingError, match=r"the prompt is too long for a JPEG \(3\d,\d{3} characters\)"):
        marked(content, longest + "x")
    assert len(opened(marked(encoded("PNG"), "x" * 1_000_000)).info["parameters"]) == 1_000_000


def test_damaged_exif_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Exif, "tobytes", lambda self: struct.unpack(">H", b""))  # as Pillow fails for some
    with pytest.raises(EmbeddingError, match="its EXIF data are damaged, so that nothing can be put beside them"):
        marked(encoded("JPEG"), "new")


@pytest.mark.parametrize(
    ("content", "kind"),
    [(encoded("JPEG"), "PNG"), (encoded("PNG")[:20], "PNG"), (encoded("PNG"), "JPEG"), (encoded("JPEG")[:30], "JPEG"), (b"\xff\xd8\xff\xda", "PNG")],
)
def test_what_is_not_built_as_its_kind_is_refused(content: bytes, kind: str) -> None:
    image = opened(encoded(kind))
    with pytest.raises(EmbeddingError, match=f"not built as a {kind} is"):
        with_text(content, image, "new")


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("WEBP", "RGB", {"lossless": True}),
        ("WEBP", "RGB", {"quality": 50}),
        ("WEBP", "RGBA", {"lossless": True, "exact": True}),
        ("GIF", "P", {}),
        ("GIF", "P", {"transparency": 3}),
        ("BMP", "1", {}),
        ("BMP", "RGB", {}),
        ("TIFF", "LA", {}),
        ("TIFF", "P", {}),
        ("TIFF", "I;16", {}),
        ("TIFF", "I;16B", {}),
        ("TIFF", "I", {}),
        ("PPM", "I", {}),
        ("ICO", "RGBA", {}),
        ("TGA", "RGBA", {}),
        ("JPEG2000", "RGB", {"irreversible": False}),
        ("AVIF", "RGB", {}),
    ],
)
def test_other_kinds_become_a_png_of_the_same_pixels(kind: str, mode: str, options: dict[str, Any]) -> None:
    size = (32, 32) if kind == "ICO" else (37, 23)
    content = saved(kind, noise(mode, size), **options)
    before = opened(content)
    after, suffix = with_text(content, opened(content), "new")
    image = opened(after)
    assert (suffix, image.format, image.info["parameters"]) == (".png", "PNG", "new")
    if before.mode in ("I", "I;16", "I;16B"):
        assert np.array_equal(np.asarray(image), np.asarray(before))
    else:
        assert np.array_equal(np.asarray(image.convert("RGBA")), np.asarray(before.convert("RGBA")))


def test_greys_of_fractions_and_printers_colours_become_what_is_seen() -> None:
    floats = saved("TIFF", noise("F"))
    grey = np.asarray(opened(marked(floats, "new")).convert("L")).astype(int)
    assert np.abs(grey - np.asarray(opened(floats)) * 255).max() <= 1
    inks = saved("TIFF", noise("CMYK"), icc_profile=b"of the inks")
    image = opened(marked(inks, "new"))
    assert np.array_equal(np.asarray(image), np.asarray(opened(inks).convert("RGB")))
    assert "icc_profile" not in image.info


def test_of_a_moving_picture_the_first_frame_is_kept() -> None:
    frames = [Image.new("RGB", (9, 7), colour) for colour in ("red", "green", "blue")]
    for kind in ("GIF", "WEBP"):
        content = saved(kind, frames[0], save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {}))
        assert opened(marked(content, "new")).convert("RGB").getpixel((4, 4)) == (255, 0, 0)


def test_what_becomes_a_png_stays_turned_and_coloured_as_it_was() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 8
    content = saved("WEBP", noise(), lossless=True, exif=exif, icc_profile=b"profile")
    image = opened(marked(content, "new"))
    assert image.getexif()[ExifTags.Base.Orientation] == 8
    assert image.info["icc_profile"] == b"profile"


# who might take a guess for a prompt


def test_what_made_the_picture_is_read_beside_a_guess() -> None:
    """As in copies made with --ignore-metadata."""
    content = marked(png({"prompt": json.dumps(graph()), "parameters": "old"}), guessed_text("a guess", ABOUT))
    found = read_image_metadata(opened(content))
    assert found is not None
    assert (found.tool, found.prompt) == ("ComfyUI", "a castle")
    damaged = marked(png({"prompt": '{"1": {"class_type": "KSampler", "inputs": {}}}'}), guessed_text("a guess", ABOUT))
    with pytest.raises(GuessedPromptError):
        read_image_metadata(opened(damaged))


def test_a_guess_is_told_before_what_is_not_understood() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = 'prompt: {"1": {"class_type": "KSampler", "inputs": {}}}'
    content = saved("JPEG", noise(), exif=exif)
    with pytest.raises(MetadataError) as raised:
        read_image_metadata(opened(content))
    assert raised.value.kind == "ComfyUI"
    with pytest.raises(GuessedPromptError):
        read_image_metadata(opened(marked(content, guessed_text("a guess", ABOUT))))


def test_other_versions_are_no_guesses() -> None:
    for version in ("v1.6.0", "Reprompt", "guessed by Repromptx"):
        found = read_image_metadata(opened(png({"parameters": f"a castle\nSteps: 20, Sampler: Euler a, Seed: 5, Version: {version}"})))
        assert found is not None
        assert found.prompt == "a castle"


def test_a_guess_that_another_tool_wrote_again_is_one() -> None:
    """With its settings in another order, or in another encoding."""
    for text in (
        "a cat\nSteps: 20, Version: guessed by Reprompt, Seed: 5",
        "a cat\nVersion: guessed by Reprompt, Software: Reprompt, Confidence: 0.5\n",
    ):
        with pytest.raises(GuessedPromptError):
            read_image_metadata(opened(png({"parameters": text})))
    text = guessed_text("café", ABOUT)
    again = (
        png({"parameters": text + "\n\0"}),
        png({"parameters": text}, international=True),
        png_of_bytes("parameters", text.encode("utf-8")),
        with_comment("JPEG", b"UNICODE\0" + text.encode("utf-16-le")),
        with_comment("WEBP", b"ASCII\0\0\0" + text.encode("utf-8")),
    )
    for content in again:
        with pytest.raises(GuessedPromptError):
            read_image_metadata(opened(content))


def test_importers_leave_guesses_out_and_count_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(0)
    (tmp_path / "in").mkdir()
    for number in range(8):
        pixels = bytes(draw.choices(range(256), k=3 * 40 * 40))
        image = Image.frombytes("RGB", (40, 40), pixels)
        if number < 5:
            words = " ".join(draw.sample(["castle", "river", "fox", "lantern", "owl", "robot", "garden", "violin", "teapot"], 5))
            content = png({"parameters": f"{words} {number}\nSteps: 20, Sampler: Euler a, Seed: 5"}, image)
        else:
            content = marked(saved("JPEG" if number == 7 else "PNG", image), guessed_text(f"a guess {number}", ABOUT))
        (tmp_path / "in" / f"{number}.{'jpg' if number == 7 else 'png'}").write_bytes(content)
    main(parse(["folder", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--sentence-model", "none", "--workers", "1"]))
    out, err = capsys.readouterr()
    assert "3 x a guess of Reprompt's" in out + err
    prompts = [row["prompt"] for path in (tmp_path / "out").rglob("*.parquet") for row in pq.read_table(path).to_pylist() if row.get("prompt")]
    assert len(prompts) == 5
    assert not any("guess" in prompt for prompt in prompts)


def test_a_guess_is_metadata_that_is_understood() -> None:
    assert issubclass(GuessedPromptError, MetadataError)
    error = EmbeddingError("too long")
    assert (str(error), error.kind) == ("too long", "prompt not embedded")
