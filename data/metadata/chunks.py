"""Every text of an image file, by name: PNG's text chunks, EXIF's descriptions and comments, XMP's, and the comments of JPEG and GIF.

Encodings are said wrongly as often as rightly: UTF-8 stands in PNG's Latin-1 chunks, big endian and little endian UTF-16 in the same EXIF field. A
damaged text is left out or read as far as it goes, and never stops the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from PIL import ExifTags, Image
from PIL.PngImagePlugin import iTXt

LONGEST = 16_000_000  # characters of any one text that is read: graphs of some millions are real
_EXIF_TEXTS = (ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.Software, ExifTags.Base.XPComment)
_XMP_NAMES = ("UserComment", "description", "ImageDescription", "parameters")
_MOST_XMP = 100  # elements whose whole contents are looked at: they may stand in each other
# ComfyUI and its nodes put chunks into EXIF fields of WebP and JPEG, each with its name before it
_NAMED = re.compile(r"\s*(prompt|workflow|parameters|generation_data)\s*:(?=\s*\{)", re.IGNORECASE)


def file_texts(image: Image.Image) -> dict[str, str]:
    """
    Args:
        image: as Pillow opened it, before anything was done to it.

    Returns:
        Texts under the names of their chunks, of EXIF's fields (UserComment, ImageDescription, ...), as "comment", and as "xmp UserComment",
        "xmp description"; those of EXIF that say themselves which chunk they are, under that chunk's name too.
    """
    exif = dict(_exif_texts(image))  # first, since of a PNG it reads to the end of the file, where texts may stand too
    texts: dict[str, str] = {}
    for name, value in list(image.info.items()):
        if not isinstance(name, str):
            continue
        if isinstance(value, str):
            texts[name] = str(value[:LONGEST]) if isinstance(value, iTXt) else _latin(value[:LONGEST])
        elif name.lower() == "comment" and isinstance(value, bytes):
            texts[name] = decoded(value)
    texts |= {name: text for name, text in exif.items() if text}
    for text in exif.values():
        if named := _NAMED.match(text):
            texts.setdefault(named[1].lower(), text[named.end() :].strip())
    for name in ("xmp", "XML:com.adobe.xmp"):
        xmp = image.info.get(name)
        if isinstance(xmp, str | bytes):
            texts = _xmp_texts(xmp[: 4 * LONGEST]) | texts
    return texts


def decoded(raw: bytes) -> str:
    """Text of bytes that do not say how they are written: UTF-16 by its mark or its zeros, UTF-8, or else Windows' Latin-1."""
    raw = raw[: 2 * LONGEST]
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16", "replace").strip("\0 ")
    for order, zeros in (("utf-16-le", raw[1:200:2]), ("utf-16-be", raw[0:200:2])):
        if len(zeros) > 1 and 2 * zeros.count(0) > len(zeros) and raw[:200].count(0) == zeros.count(0):
            return raw.decode(order, "replace").strip("\0 ")
    try:
        return raw.decode("utf-8-sig").strip("\0 ")[:LONGEST]
    except UnicodeDecodeError:
        return _latin(raw.decode("latin-1")).strip("\0 ")[:LONGEST]


def _latin(text: str) -> str:
    """A text that was read as Latin-1, as PNG says, though many write UTF-8 and some Windows' characters there."""
    if text.isascii():
        return text
    try:
        raw = text.encode("latin-1")
    except UnicodeEncodeError:
        return text
    for encoding in ("utf-8", "cp1252"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return text


def _exif_texts(image: Image.Image) -> Iterator[tuple[str, str]]:
    try:
        exif = image.getexif()
        fields = {tag.name: exif.get(tag) for tag in _EXIF_TEXTS}
    except Exception:  # damaged EXIF raises anything: struct.error, TypeError, SyntaxError, ...
        return
    try:
        fields["UserComment"] = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    except Exception:  # only the part with the comment is damaged
        fields["UserComment"] = None
    for name, value in fields.items():
        try:
            text = _exif_text(value, name)
        except (ValueError, TypeError):
            continue
        if text:
            yield name, text


def _exif_text(value: Any, name: str) -> str:
    """Text of EXIF; a UserComment says by its first eight bytes how the rest is written."""
    if isinstance(value, str):
        return _latin(value[:LONGEST]).strip("\0 ")
    if isinstance(value, tuple) and value and all(isinstance(part, int) and 0 <= part < 256 for part in value):
        value = bytes(value)
    if not isinstance(value, bytes):
        return ""
    if name == ExifTags.Base.XPComment.name:
        return value[: 2 * LONGEST].decode("utf-16-le", "replace").strip("\0 ")
    code, body = value[:8], value[8 : 8 + 2 * LONGEST]
    if code.upper() == b"UNICODE\0":
        return _utf16(body).strip("\0 ")
    if code.upper() in (b"ASCII\0\0\0", b"\0" * 8, b"JIS\0\0\0\0\0"):
        return decoded(body)
    return decoded(value)


def _utf16(body: bytes) -> str:
    """UTF-16 whose byte order is nowhere said, and tools differ: prompts are mostly ASCII, whose high bytes are zero. Some write UTF-8 there."""
    if body[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return body.decode("utf-16", "replace")
    if body and 0 not in body.rstrip(b"\0"):
        try:
            text = body.decode("utf-8")
        except UnicodeDecodeError:
            text = ""
        if text.isascii() and text:
            return text
    order = "utf-16-le" if body[1::2].count(0) > body[0::2].count(0) else "utf-16-be"
    return body.decode(order, "replace")


def _xmp_texts(xmp: str | bytes) -> dict[str, str]:
    """Draw Things' comment, descriptions and the like: the first text of each name, written as an element or as an attribute."""
    root = _xml(xmp)
    found: dict[str, str] = {}
    looked_at = 0
    for element in root.iter() if root is not None else ():
        name = element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""
        if name in _XMP_NAMES and f"xmp {name}" not in found and looked_at < _MOST_XMP:
            looked_at += 1
            entry = next((one for one in element.iter() if isinstance(one.tag, str) and one.tag.endswith("}li")), element)  # one language of several
            if text := "".join(entry.itertext()).strip():
                found.setdefault(f"xmp {name}", text[:LONGEST])
        for attribute, value in element.attrib.items():
            if attribute.rpartition("}")[2] in _XMP_NAMES and value.strip():
                found.setdefault(f"xmp {attribute.rpartition('}')[2]}", value.strip()[:LONGEST])
    return found


def _xml(xmp: str | bytes) -> ElementTree.Element | None:
    """Parsed, in the encoding that it names or, where there is none of that name, in the one that it has."""
    attempts: list[str | bytes] = [xmp.strip(b"\0 \r\n") if isinstance(xmp, bytes) else xmp.strip("\0 \r\n\ufeff")]
    if isinstance(xmp, bytes):
        text = xmp.decode("utf-16", "replace") if xmp[:2] in (b"\xff\xfe", b"\xfe\xff") else decoded(xmp)
        attempts.append(re.sub(r"^\s*<\?xml[^>]*\?>", "", text.strip("\0 \r\n\ufeff")))
    for attempt in attempts:
        if ("<!ENTITY" if isinstance(attempt, str) else b"<!ENTITY") in attempt:  # type: ignore[operator]
            return None  # XMP has none; they can be made to grow without bound
        try:
            return ElementTree.fromstring(attempt)
        except (ElementTree.ParseError, ValueError, LookupError, RecursionError):
            continue
    return None
