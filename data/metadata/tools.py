"""What image files say about how they were made: the prompt, as AUTOMATIC1111 and its forks, ComfyUI, InvokeAI, NovelAI, Fooocus, SwarmUI, Easy
Diffusion, Draw Things and others write it into PNG, JPEG and WebP, and DiffusionDB beside its images.

`sd-parsers`, the library for this, splits AUTOMATIC1111's parameters at every comma, quoted or not, and follows neither primitives nor strings of
ComfyUI's graphs, so the reading is ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any

from PIL import Image

from data.metadata import json_tools
from data.metadata.automatic1111 import NAMES, common_parameters, parse_parameters_text, says_settings
from data.metadata.chunks import file_texts
from data.metadata.comfyui import GraphPrompt, is_graph, read_graph
from data.metadata.comfyui_drawn import GraphError
from data.metadata.embedding import GUESS, is_guess
from data.metadata.found import GuessedPromptError, ImageMetadata, MetadataError, NotOnePictureError
from data.metadata.hidden import hidden_text
from data.metadata.lenient import json_object, looks_like_json, perhaps_json
from data.metadata.not_pictures import check_grid, check_picture_of_graph

__all__ = [
    "GuessedPromptError",
    "ImageMetadata",
    "MetadataError",
    "NotOnePictureError",
    "diffusiondb_metadata",
    "read_image_metadata",
    "read_sidecar",
]

# where a text may stand that is AUTOMATIC1111's only if it says the steps
_ANYWHERE: tuple[str, ...] = ("UserComment", "ImageDescription", "XPComment", "Comment", "comment", "Description", "description")
_ANYWHERE += ("xmp UserComment", "xmp description", "xmp ImageDescription", "xmp parameters")
_NO_GRIDS = ("prompt", "workflow", "extras", "postprocessing")  # chunks of ComfyUI, and of pictures that were enlarged afterwards
_GRAPHS = ("prompt", "workflow", "parameters", *_ANYWHERE)
_NOT_KNOWN = (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError)


@dataclass(frozen=True)
class _File:
    """What the readers look at: the texts, and by what else several pictures of one graph are told."""

    texts: Mapping[str, str]
    size: tuple[int, int]
    name: str = ""
    moving: bool = False
    is_hidden: bool = field(default=False, kw_only=True)


def read_image_metadata(image: Image.Image, *, name: str = "") -> ImageMetadata | None:
    """
    Args:
        image: as Pillow opened it, before anything was done to it.
        name: of its file, by which pictures are told that one graph saved under several names, and grids; may be empty.

    Returns:
        None where no known tool has left a prompt.

    Raises:
        MetadataError: a known tool has, in a form that is not understood.
        NotOnePictureError: it has, but the file shows a graph, or several pictures.
    """
    try:
        moving = bool(getattr(image, "is_animated", False))
    except Exception:  # a damaged animation raises anything
        moving = False
    file = _File(file_texts(image), image.size, PurePath(name.replace("\\", "/")).name, moving)
    found = _read(file)
    if found is None:
        hidden = hidden_text(image)
        found = _read_hidden(hidden, file) if hidden is not None else None
    if found is not None and found.tool == "AUTOMATIC1111" and not any(name in file.texts for name in _NO_GRIDS):
        check_grid(image.size, found, file.name)
    return found


def read_sidecar(text: str) -> ImageMetadata | None:
    """
    Args:
        text: of a text file beside an image.

    Returns:
        What AUTOMATIC1111 wrote into it, or else all of it as the prompt; None where there is none.
    """
    text = text.removeprefix("\ufeff").strip("\0 \t\r\n")
    if says_settings(text):
        return _from_parameters(text)
    return ImageMetadata(tool="sidecar", prompt=text) if text else None


def diffusiondb_metadata(entry: Mapping[str, Any]) -> ImageMetadata:
    """An entry of one of DiffusionDB's JSON files (arXiv 2210.14896): p prompt, se seed, c guidance, st steps, sa sampler.

    Raises:
        MetadataError: no prompt in it.
    """
    if not isinstance(entry.get("p"), str):
        raise MetadataError("DiffusionDB: an entry without a prompt", "DiffusionDB")
    names = {"se": "seed", "st": "steps", "c": "guidance_scale", "sa": "sampler"}
    parameters = {ours: entry[theirs] for theirs, ours in names.items() if entry.get(theirs) is not None}
    return ImageMetadata(tool="DiffusionDB", prompt=entry["p"], parameters=parameters)


def _read(file: _File) -> ImageMetadata | None:
    """By the first reader that finds a prompt; without one, the first that found its tool's mark and could not read it says why."""
    failed: MetadataError | None = None
    for tool, read in _READERS:
        try:
            found = read(file)
        except MetadataError as error:
            if isinstance(error, NotOnePictureError):
                raise
            failed = error if isinstance(error, GuessedPromptError) else failed or error  # what made the picture may stand beside a guess
        except GraphError as error:
            failed = failed or MetadataError(f"{tool}: {error}", tool)
        except _NOT_KNOWN as error:
            failed = failed or MetadataError(f"{tool}: not in the form that is known ({type(error).__name__}: {str(error)[:100]})", tool)
        else:
            if found is not None:
                return found
    if failed is not None:
        raise failed
    return None


def _read_hidden(text: str, file: _File) -> ImageMetadata | None:
    """Texts by name in JSON, a graph alone, or AUTOMATIC1111's text: what the tools write into chunks, hidden in the pixels."""
    content = perhaps_json(text)
    if "sui_image_params" in content or not content:
        texts = {"parameters": text}
    elif is_graph(content) or isinstance(content.get("nodes"), list):
        texts = {"prompt": text}
    else:
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in content.items() if value is not None}
        if "Comment" in texts or "Description" in texts:
            texts.setdefault("Software", "NovelAI")
        if "prompt" in texts and not json_object(texts["prompt"]):  # a JSON of values, not of chunks
            texts = {"parameters": text}
    try:
        found = _read(_File(texts, file.size, file.name, file.moving, is_hidden=True))
    except MetadataError as error:
        raise MetadataError(f"the text hidden in the picture is not in a form that is known ({error})", "hidden text") from error
    if found is None:
        raise MetadataError("the text hidden in the picture is of a tool that is not known", "hidden text")
    return found


def _automatic(file: _File) -> ImageMetadata | None:
    text = file.texts.get("parameters")
    if text is None or looks_like_json(text):
        return None
    found = _from_parameters(text)
    has_graph = bool(file.texts.get("prompt") or file.texts.get("workflow"))
    if found.prompt.lower() == "unknown" and (has_graph or found.negative_prompt.lower() == "unknown"):
        raise MetadataError("AUTOMATIC1111: the node that saved the picture was not told its prompt", "AUTOMATIC1111")
    return None if has_graph and not found.prompt else found


def _automatic_anywhere(file: _File) -> ImageMetadata | None:
    texts = (file.texts[name] for name in _ANYWHERE if name in file.texts)
    return next((_from_parameters(text) for text in texts if says_settings(text) or is_guess(text)), None)


def _from_parameters(text: str) -> ImageMetadata:
    found = parse_parameters_text(text)
    if found.parameters.get("Version") == GUESS or is_guess(text):
        raise GuessedPromptError("the prompt in it is a guess of Reprompt's (caption.py --embed), and not what made the picture")
    others = {name: value for name, value in found.parameters.items() if name not in (*NAMES, "Size")}
    common = common_parameters(found.parameters)
    return ImageMetadata(tool="AUTOMATIC1111", prompt=found.prompt, negative_prompt=found.negative_prompt, parameters=common, others=others)


def _comfyui(file: _File) -> ImageMetadata | None:
    executed, workflow = _graphs(file.texts)
    if executed is not None and (added := json_tools.civitai(executed)) is not None:
        try:
            parameters = read_graph(executed, size=file.size, name=file.name).parameters
        except (GraphError, *_NOT_KNOWN):
            parameters = {}
        return replace(added, parameters={**parameters, **added.parameters})
    if executed is None and workflow is None:
        return None
    try:
        content = executed if executed is not None else workflow
        graph = read_graph(content, workflow if executed is not None else None, size=file.size, name=file.name, moving=file.moving)
    except (GraphError, *_NOT_KNOWN):
        if executed is None and not file.is_hidden:
            check_picture_of_graph(file.size, None, None, is_drawn_alone=True)
        raise
    found = _of_graph(graph)
    if workflow is not None and not file.is_hidden:
        check_picture_of_graph(file.size, graph, found, is_drawn_alone=executed is None)
    return found


def _of_graph(graph: GraphPrompt) -> ImageMetadata:
    return ImageMetadata(tool="ComfyUI", prompt=graph.prompt, negative_prompt=graph.negative_prompt, parameters=graph.parameters)


def _graphs(texts: Mapping[str, str]) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The executed graph and the drawn one, from chunks of their own, or both in one JSON.

    Raises:
        ValueError, RecursionError: neither, and a chunk that is a graph's by its name is damaged.
    """
    executed: dict[str, Any] | None = None
    workflow: dict[str, Any] | None = None
    damaged: Exception | None = None
    for name in _GRAPHS:
        if "{" not in texts.get(name, ""):
            continue
        try:
            content = json_object(texts[name])
        except (ValueError, RecursionError) as error:
            damaged = damaged or (error if name in ("prompt", "workflow") else None)
            continue
        both = {"prompt": content.get("prompt"), "workflow": content.get("workflow")} if not is_graph(content) else {"prompt": content}
        for key, graph in both.items():
            graph = perhaps_json(graph) if isinstance(graph, str) else graph
            if isinstance(graph, dict) and isinstance(graph.get("nodes"), list):
                workflow = workflow or graph
            elif key == "prompt" and is_graph(graph):
                executed = executed or graph
        if isinstance(content.get("nodes"), list):
            workflow = workflow or content
        elif name == "prompt" and content and executed is None and workflow is None:
            damaged = damaged or GraphError("not a graph of nodes")
    if executed is None and workflow is None and damaged is not None:
        raise damaged
    return executed, workflow


def _by_texts(read: Callable[[Mapping[str, str]], ImageMetadata | None]) -> Callable[[_File], ImageMetadata | None]:
    return lambda file: read(file.texts)


# in an order in which what one tool writes is not taken for another's: by what is theirs alone first
_READERS: list[tuple[str, Callable[[_File], ImageMetadata | None]]] = [
    ("SwarmUI", _by_texts(json_tools.swarm)),
    ("Fooocus", _by_texts(json_tools.fooocus)),
    ("InvokeAI", _by_texts(json_tools.invokeai)),
    ("NovelAI", _by_texts(json_tools.novelai)),
    ("TensorArt", _by_texts(json_tools.tensor_art)),
    ("Easy Diffusion", _by_texts(json_tools.easy_diffusion)),
    ("AUTOMATIC1111", _automatic),  # nodes of ComfyUI write it beside the graph, made for being read
    ("Stability Matrix", _by_texts(json_tools.stability_matrix)),
    ("ComfyUI", _comfyui),
    ("Draw Things", _by_texts(json_tools.draw_things)),
    ("AUTOMATIC1111", _automatic_anywhere),
    ("JSON", _by_texts(json_tools.any_json)),
]
