"""Picture files read ahead of the network, by several threads, in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from PIL import Image

from core.priority import step_back
from data.errors import ImageError
from data.images import decoded_rgb, opened_image
from data.metadata.tools import MetadataError, read_image_metadata

_In = TypeVar("_In")
_Out = TypeVar("_Out")
MOST_THREADS = 8


@dataclass(frozen=True, kw_only=True)
class PictureFile:
    """
    Attributes:
        images: as much of it as a network sees, one or, of a grid, several; none where nobody asked for them, or they cannot be had.
        prompt: that its metadata carry; None where they carry none.
        misread: in few words, what the metadata are that gave none.
        error: why there is nothing.
    """

    path: Path
    images: tuple[Image.Image, ...] = ()
    prompt: str | None = None
    misread: str = ""
    error: ImageError | None = None


def read_picture_file(path: Path, *, seen: Callable[[Image.Image], tuple[Image.Image, ...]], metadata: bool, always_decode: bool) -> PictureFile:
    """
    Args:
        seen: what is kept of the picture.
        metadata: look for the prompt that it carries.
        always_decode: also where it carries one.
    """
    prompt, misread = None, ""
    try:
        with opened_image(path) as image:
            if metadata:
                prompt, misread = _prompt_of(image, path)
            if prompt is not None and not always_decode:
                return PictureFile(path=path, prompt=prompt)
            return PictureFile(path=path, images=seen(decoded_rgb(image, str(path))), prompt=prompt, misread=misread)
    except ImageError as error:
        return PictureFile(path=path, error=error)


def _prompt_of(image: Image.Image, path: Path) -> tuple[str | None, str]:
    """The prompt that a picture carries; and where a known tool's metadata give none, of which kind they are."""
    try:
        found = read_image_metadata(image, name=path.name)
    except MetadataError as error:  # also where they speak of something else than this picture, or guess as we do
        return None, error.kind
    return (found.prompt.strip() or None, "") if found is not None else (None, "")


def read_ahead(work: Callable[[_In], _Out], items: Iterable[_In], *, ahead: int, threads: int | None = None) -> Iterator[_Out]:
    """`work` of each item, in order, done by threads of low priority while earlier outcomes are used; at most `ahead` outcomes wait."""
    each = iter(items)
    with ThreadPoolExecutor(threads or min(MOST_THREADS, os.cpu_count() or 1), initializer=step_back) as pool:
        waiting: deque[Future[_Out]] = deque(pool.submit(work, item) for item in islice(each, ahead))
        try:
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(work, item) for item in islice(each, 1))
        finally:  # whoever stops listening does not wait for what is left
            for future in waiting:
                future.cancel()
