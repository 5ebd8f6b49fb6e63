"""Gradio's ways to take files, made to hand over the file as it was sent: before our reader has it nothing is decoded, and no address fetched."""

from __future__ import annotations

from abc import ABCMeta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import gradio
from gradio.component_meta import ComponentMeta

_ADDRESSES = ("http://", "https://", "ftp://", "data:")
_UPLOADED = "/gradio_api/file="


class _WithoutStubs(ComponentMeta):
    """Gradio's own metaclass writes a .pyi file beside the source of each class. (Classes they must be: of a component that changes gradio makes
    another one of its class.)"""

    def __new__(cls, name: str, bases: tuple[type, ...], attributes: dict[str, Any]) -> Any:
        return ABCMeta.__new__(cls, name, bases, attributes)


class PictureInput(gradio.Image, metaclass=_WithoutStubs):
    """Gives the path of what was sent."""

    is_template = True  # shown as its base class is

    def preprocess(self, payload: Any) -> Any:
        return None if payload is None or payload.path is None else _sent(payload.path, self)

    def move_resource_to_block_cache(self, url_or_file_path: Any) -> str | None:
        return super().move_resource_to_block_cache(_checked(url_or_file_path, self))

    async def async_move_resource_to_block_cache(self, url_or_file_path: Any) -> str | None:
        return await super().async_move_resource_to_block_cache(_checked(url_or_file_path, self))


class FilesInput(gradio.File, metaclass=_WithoutStubs):
    """Gives the path of each file and the name it was sent under."""

    is_template = True

    def preprocess(self, payload: Any) -> Any:
        files = [] if payload is None else getattr(payload, "root", payload)
        return [(_sent(file.path, self), Path(file.orig_name or file.path).name) for file in (files if isinstance(files, list) else [files])]

    def move_resource_to_block_cache(self, url_or_file_path: Any) -> str | None:
        return super().move_resource_to_block_cache(_checked(url_or_file_path, self))

    async def async_move_resource_to_block_cache(self, url_or_file_path: Any) -> str | None:
        return await super().async_move_resource_to_block_cache(_checked(url_or_file_path, self))


class WordsInput(gradio.Radio, metaclass=_WithoutStubs):
    """Gives any number that is asked for: callers of the API have seen no choices."""

    is_template = True

    def preprocess(self, payload: Any) -> Any:
        return payload

    def api_info(self) -> dict[str, Any]:
        return {"type": "integer", "title": "Word"}


def picture_input(**options: Any) -> PictureInput:
    return PictureInput(type="filepath", image_mode=None, sources=["upload", "clipboard"], buttons=["fullscreen"], **options)


def _sent(path: str, component: Any) -> str:
    """Gradio looks only at what says of itself that it is a file."""
    if not Path(path).resolve().is_relative_to(Path(component.GRADIO_CACHE).resolve()):
        raise gradio.Error("This page reads no files of its machine: send the picture itself.", print_exception=False)
    return path


def _checked(source: Any, component: Any) -> Any:
    """Gradio would fetch addresses for whoever asks. That of an upload is taken for its path: agents are told to send it."""
    if source is None or not str(source).strip().lower().startswith(_ADDRESSES):
        return source
    if _UPLOADED not in str(source):
        raise gradio.Error("This page fetches no addresses: send the picture itself.", print_exception=False)
    return _sent(unquote(str(source).partition(_UPLOADED)[2]), component)
