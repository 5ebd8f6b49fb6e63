"""What the originals of an import are: each is decoded once, its prompt found, and a line of survey.jsonl written about it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from data.errors import ImageError
from data.groups.pictures import picture_hash
from data.images import decoded_rgb, opened_image
from data.imports import Also
from data.imports.listing import Original, OriginalError, problem_kind
from data.metadata.tools import GuessedPromptError, ImageMetadata, MetadataError, NotOnePictureError, read_image_metadata, read_sidecar
from data.splits import Split
from data.text import Step, cleaned, normalise

_ALSO: dict[str, Also] = {"grid of pictures": "grids", "picture of a node graph": "graphs"}


@dataclass(frozen=True)
class Survey:
    """What one original is: a line of survey.jsonl. `kind` says why it cannot be used, and is empty where it can."""

    name: str
    file: str
    part: tuple[int, int] | str | None
    kind: str = ""
    message: str = ""
    prompt: str = ""
    picture: str = ""
    width: int = 0
    height: int = 0
    format: str = ""
    digest: str = ""
    split: Split | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


def examine_original(original: Original, steps: Sequence[Step], words: Sequence[str], also: Sequence[Also] = ()) -> Survey:
    """Decode an original, find its prompt, and say what it is.

    Args:
        also: take files that are no single picture all the same.
    """
    place = (original.name, str(original.file), original.part)
    if original.problem is not None:
        return Survey(*place, kind=problem_kind(original.problem), message=original.problem)
    try:
        content = original.read()
        with opened_image(content, name=original.name) as file:
            image = decoded_rgb(file, original.name)  # to the end, where a PNG may have texts too
            written, format_name = _written_in(file, original.name) if original.prompt is None else None, file.format or ""
        metadata = _metadata_of(original, written, also)
        if metadata is None:
            return Survey(*place, kind="no prompt", message="no prompt in its metadata, and no text file beside it")
        prompt = cleaned(normalise(metadata.prompt, steps, words))
        if not prompt:
            return Survey(*place, kind="empty prompt", message=f"nothing is left of {metadata.prompt[:80]!r}" if metadata.prompt else "")
        picture = f"{picture_hash(image):064x}"
    except (ImageError, MetadataError, OriginalError) as error:
        known = isinstance(error, NotOnePictureError | GuessedPromptError) or not isinstance(error, MetadataError)
        return Survey(*place, kind=error.kind if known else f"metadata of {error.kind}", message=str(error))
    others = {"others": dict(metadata.others)} if metadata.others else {}
    raw = {"original_prompt": metadata.prompt} if prompt != metadata.prompt else {}
    facts = dict(metadata.parameters) | {"negative_prompt": metadata.negative_prompt, "tool": metadata.tool} | raw | others
    width, height = image.size
    found = Survey(*place, prompt=prompt, picture=picture, width=width, height=height, format=format_name, digest=digest_of(content))
    return replace(found, split=original.split, metadata=_plain(facts))


def digest_of(content: bytes) -> str:
    """By which a file is known again."""
    return hashlib.sha256(content).hexdigest()[:16]


def _written_in(image: Image.Image, name: str) -> ImageMetadata | MetadataError | None:
    """The metadata of a file. An error is given back, since raised it would be taken for one of the picture."""
    try:
        return read_image_metadata(image, name=name)
    except MetadataError as error:
        return error


def _metadata_of(original: Original, written: ImageMetadata | MetadataError | None, also: Sequence[Also]) -> ImageMetadata | None:
    """The prompt of the listing, else what is written in the file, else in the file beside it.

    Raises:
        MetadataError: the file has metadata that is not understood, or is no single picture, and nothing is beside it.
        OriginalError: the file beside it cannot be read.
    """
    if original.prompt is not None:
        given = dict(original.metadata)
        known = {name: given.pop(name) for name in _KNOWN if name in given}
        tool, negative = str(given.pop("tool", "listing")), given.pop("negative_prompt", "")
        given.pop("prompt", None)
        return ImageMetadata(tool=tool, prompt=original.prompt, negative_prompt=str(negative or ""), parameters=known, others=given)
    if isinstance(written, NotOnePictureError) and _ALSO.get(written.kind) in also and written.metadata is not None:
        return written.metadata
    if isinstance(written, NotOnePictureError):
        raise written
    if isinstance(written, ImageMetadata):
        return written
    text = original.sidecar()
    if text is None and written is not None:
        raise written
    return read_sidecar(text) if text is not None else None


_KNOWN = ("seed", "steps", "guidance_scale", "sampler", "model", "width", "height")


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """(place, line) of every line."""
    place = 0
    with open(path, "rb") as file:
        for line in file:
            yield place, line
            place += len(line)


def surveyed_names(path: Path) -> list[str]:
    """The names in a survey so far; a line that was cut off at its end is taken away."""
    if not path.exists():
        return []
    names, end = [], 0
    for place, line in lines_of(path):
        try:
            names.append(json.loads(line)["name"])
        except (ValueError, KeyError, TypeError):
            break
        if not line.endswith(b"\n"):
            names.pop()
            break
        end = place + len(line)
    os.truncate(path, end)
    return names


def _plain(content: Any) -> Any:
    """What JSON can hold, with texts that UTF-8 can."""
    return json.loads(json.dumps(content, default=str, allow_nan=True).encode("utf-8", "replace"), parse_constant=lambda name: None)
