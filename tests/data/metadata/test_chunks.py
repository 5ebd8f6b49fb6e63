"""Texts of files, in whatever encoding."""

import io
from typing import Any

import pytest
from graphs import SETTINGS, png, png_of_bytes, with_comment
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from data.metadata.chunks import LONGEST, decoded, file_texts

FRENCH = "un phare rouge à la côte"
TEXT = f"{FRENCH}\n{SETTINGS}"


def texts(content: bytes) -> dict[str, str]:
    with Image.open(io.BytesIO(content)) as image:
        return file_texts(image)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (FRENCH.encode("utf-8"), FRENCH),
        (FRENCH.encode("latin-1"), FRENCH),
        ("灯台、嵐".encode(), "灯台、嵐"),
        ("маяк на скале".encode(), "маяк на скале"),
        ("🗼 by night".encode(), "🗼 by night"),
        ("it’s “red”".encode("cp1252"), "it’s “red”"),
        (b"plain", "plain"),
        ("Ã la carte".encode("latin-1"), "Ã la carte"),
    ],
)
def test_latin_1_and_what_only_stands_where_latin_1_should(raw: bytes, text: str) -> None:
    assert texts(png_of_bytes("parameters", raw))["parameters"] == text


def test_international_chunks_are_as_they_say() -> None:
    assert texts(png({"parameters": "Ã©, 灯台"}, international=True))["parameters"] == "Ã©, 灯台"


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize(
    "comment",
    [
        b"UNICODE\0" + TEXT.encode("utf-16-be"),
        b"UNICODE\0" + TEXT.encode("utf-16-le"),
        b"UNICODE\0" + TEXT.encode("utf-16"),
        b"Unicode\0" + TEXT.encode("utf-16-le") + b"\0\0",
        b"ASCII\0\0\0" + TEXT.encode(),
        b"ASCII\0\0\0" + TEXT.encode("latin-1"),
        b"\0" * 8 + TEXT.encode(),
        TEXT.encode(),
    ],
)
def test_comments_of_exif(kind: str, comment: bytes) -> None:
    assert texts(with_comment(kind, comment))["UserComment"] == TEXT


def test_utf_8_where_utf_16_is_promised() -> None:
    assert texts(with_comment("JPEG", b"UNICODE\0" + SETTINGS.encode()))["UserComment"] == SETTINGS


@pytest.mark.parametrize(
    ("tag", "text", "name"),
    [
        (ExifTags.Base.Model, 'prompt:{"1": {}}', "prompt"),
        (ExifTags.Base.Make, 'Workflow: {"nodes": []}', "workflow"),
        (ExifTags.Base.ImageDescription, 'Prompt:{"1": {}}', "prompt"),
    ],
)
def test_chunks_in_fields_of_exif(tag: int, text: str, name: str) -> None:
    assert texts(with_comment("WEBP", text, tag))[name] == text.partition(":")[2].strip()


def test_an_ordinary_field_is_no_chunk() -> None:
    assert "prompt" not in texts(with_comment("JPEG", "Prompt: smile please", ExifTags.Base.ImageDescription))


def test_comments_of_jpeg_and_gif() -> None:
    for raw, text in ((TEXT.encode(), TEXT), (TEXT.encode("latin-1"), TEXT), (TEXT.encode("utf-16"), TEXT)):
        file = io.BytesIO()
        Image.new("RGB", (8, 8)).save(file, "JPEG", comment=raw)
        assert texts(file.getvalue())["comment"] == text
    file = io.BytesIO()
    Image.new("P", (8, 8)).save(file, "GIF", comment=TEXT.encode())
    assert texts(file.getvalue())["comment"] == TEXT


XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/">{}</rdf:Description></rdf:RDF></x:xmpmeta>'
)
DESCRIPTION = f"<dc:description><rdf:Alt><rdf:li>{TEXT}</rdf:li><rdf:li>another</rdf:li></rdf:Alt></dc:description>"


@pytest.mark.parametrize(
    "xmp",
    [
        XMP.format(DESCRIPTION).encode(),
        b'<?xpacket begin="\xef\xbb\xbf"?>' + XMP.format(DESCRIPTION).encode() + b'<?xpacket end="w"?>\0\0',
        XMP.format(DESCRIPTION).encode("utf-16"),
        b'<?xml version="1.0" encoding="latin-1"?>' + XMP.format(DESCRIPTION).encode("latin-1"),
        b'<?xml version="1.0" encoding="klingon"?>' + XMP.format(DESCRIPTION).encode(),
        b'<?xml version="1.0" encoding="utf-8"?>' + XMP.format(DESCRIPTION).encode("latin-1"),
        XMP.format(f"<dc:description>{TEXT}</dc:description>").encode(),
        XMP.format("<x/>").replace("<rdf:Description", f'<rdf:Description dc:description="{TEXT}"').replace("\n", "&#10;").encode(),
    ],
)
def test_xmp_of_any_encoding(xmp: bytes) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", xmp=xmp)
    assert texts(file.getvalue())["xmp description"] == TEXT


@pytest.mark.parametrize(
    "xmp",
    [
        b"<a",
        b"\xff\xfe<",
        b"<a>" * 200_000,
        b"<r>" + b"<description>" * 20_000 + b"</description>" * 20_000 + b"</r>",
        b'<!DOCTYPE a [<!ENTITY b "ccccc"><!ENTITY d "&b;&b;">]><description>&d;</description>',
        b'<?xml version="1.0" encoding="utf-32"?><a/>',
    ],
)
def test_damaged_xmp_stops_nothing(xmp: bytes) -> None:
    image = Image.new("RGB", (8, 8))
    image.info.update({"xmp": xmp, "parameters": "a cat"})
    assert file_texts(image)["parameters"] == "a cat"


def test_damaged_exif_stops_nothing() -> None:
    content = with_comment("JPEG", b"ASCII\0\0\0" + SETTINGS.encode())
    start = content.index(b"Exif\0\0")
    for place in range(start + 6, start + 60):
        broken = content[:place] + b"\xff" + content[place + 1 :]
        with Image.open(io.BytesIO(broken)) as image:
            image.info["parameters"] = "a cat"
            assert file_texts(image)["parameters"] == "a cat"


def test_texts_of_some_millions_of_characters_are_read_and_longer_ones_cut() -> None:
    assert len(texts(png_of_bytes("workflow", b"x" * 3_000_000))["workflow"]) == 3_000_000
    image = Image.new("RGB", (8, 8))
    image.info["parameters"] = "x" * (LONGEST + 5)
    assert len(file_texts(image)["parameters"]) == LONGEST


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=50).filter(lambda text: text.strip() == text))
@settings(max_examples=200)
def test_utf_8_always_reads_back(text: str) -> None:
    assert texts(png_of_bytes("parameters", text.encode()))["parameters"] == text
    assert decoded(text.encode()) == text.removeprefix("\ufeff")


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_bytes_anywhere_stop_nothing(raw: bytes) -> None:
    image = Image.new("RGB", (8, 8))
    info: dict[Any, Any] = {"xmp": raw, "XML:com.adobe.xmp": raw, "comment": raw, "exif": raw, 3: raw, "parameters": "a cat"}
    image.info.update(info)
    assert file_texts(image)["parameters"] == "a cat"
