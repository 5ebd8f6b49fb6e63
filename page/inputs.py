"""Gradio's ways to take files, made to hand over the file as it was sent: before our reader has it nothing is decoded, and no address fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio

_ADDRESSES = ("http://", "https://", "ftp://", "data:")


def picture_input(**options: Any) -> Any:
    """A `gradio.Image` that gives the path of what was sent."""
    component = _without_addresses(gradio.Image(type="filepath", image_mode=None, sources=["upload", "clipboard"], buttons=["fullscreen"], **options))
    component.preprocess = lambda payload: None if payload is None else payload.path
    return component


def files_input(**options: Any) -> Any:
    """A `gradio.File` that gives the path of each file and the name it was sent under."""
    component = _without_addresses(gradio.File(file_count="multiple", **options))

    def named(payload: Any) -> list[tuple[str, str]]:
        files = [] if payload is None else getattr(payload, "root", payload)
        return [(file.path, Path(file.orig_name or file.path).name) for file in (files if isinstance(files, list) else [files])]

    component.preprocess = named
    return component


def _without_addresses(component: Any) -> Any:
    """Gradio would fetch them for whoever asks. (Methods are replaced, since of every subclass gradio writes a .pyi file beside its source.)"""
    move, move_later = component.move_resource_to_block_cache, component.async_move_resource_to_block_cache

    def moved(source: str | Path | None) -> str | None:
        return move(_checked(source))

    async def moved_later(source: str | Path | None) -> str | None:
        return await move_later(_checked(source))

    component.move_resource_to_block_cache, component.async_move_resource_to_block_cache = moved, moved_later
    return component


def _checked(source: str | Path | None) -> str | Path | None:
    if source is not None and str(source).strip().lower().startswith(_ADDRESSES):
        raise gradio.Error("This page fetches no addresses: send the picture itself.", print_exception=False)
    return source
