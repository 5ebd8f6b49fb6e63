"""What image files say about how they were made: the prompt, as AUTOMATIC1111 and its forks, ComfyUI, InvokeAI, NovelAI, Fooocus, SwarmUI, Easy
Diffusion and Draw Things write it into PNG, JPEG and WebP, and DiffusionDB beside its images.

`sd-parsers`, the library for this, splits AUTOMATIC1111's parameters at every comma, quoted or not, and follows neither primitives nor strings of
ComfyUI's graphs, so the reading is ours.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import ExifTags, Image

from data.comfyui import read_graph
from data.comfyui_workflow import GraphError
from data.parameters_text import common_parameters, parse_parameters_text

LONGEST = 1_000_000  # characters of any text that is read


class MetadataError(ValueError):
    """Metadata of a tool that is known, but which cannot be understood; says what is the matter. `kind` is the tool, for counting."""

    def __init__(self, message: str, kind: str = "unknown metadata") -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, kw_only=True)
class ImageMetadata:
    """How an image was made. `parameters` have our names (seed, steps, guidance_scale, sampler, model, width, height) where the tool says
    them; `others` what else it says, under its own names."""

    tool: str
    prompt: str
    negative_prompt: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    others: Mapping[str, Any] = field(default_factory=dict)


def read_image_metadata(image: Image.Image) -> ImageMetadata | None:
    """
    Args:
        image: as Pillow opened it, before anything was done to it.

    Returns:
        None where no known tool has left a prompt.

    Raises:
        MetadataError: a known tool has, in a form that is not understood.
    """
    texts = _texts(image)
    for tool, names, read in _READERS:
        if any(texts.get(name) for name in names):
            try:
                found = read(texts)
            except GraphError as error:
                raise MetadataError(f"{tool}: {error}", tool) from error
            except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
                raise MetadataError(f"{tool}: not in the form that is known ({type(error).__name__}: {str(error)[:100]})", tool) from error
            if found is not None:
                return found
    hidden = _hidden_text(image)
    return _of_hidden(hidden) if hidden is not None else None


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


def _texts(image: Image.Image) -> dict[str, str]:
    """Every text of a file by name: PNG's text chunks, EXIF's comment and description, XMP's comment, JPEG's comment."""
    try:  # first, since of a PNG it reads to the end of the file, where texts may stand too
        exif = image.getexif()
        details = exif.get_ifd(ExifTags.IFD.Exif)
        entries = {"UserComment": details.get(ExifTags.Base.UserComment)}
        entries |= {tag.name: exif.get(tag) for tag in (ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model)}
    except Exception:  # damaged EXIF raises anything: struct.error, TypeError, SyntaxError, ...
        entries = {}
    texts = {name: value[:LONGEST] for name, value in image.info.items() if isinstance(name, str) and isinstance(value, str)}
    comment = image.info.get("comment")
    if isinstance(comment, bytes):
        texts["comment"] = comment[:LONGEST].decode("utf-8", "replace")
    for name, value in entries.items():
        text = _exif_text(value)
        if text:
            texts[name] = text
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    if isinstance(xmp, str | bytes):
        texts |= _xmp_texts(xmp[:LONGEST])
    return texts


def _exif_text(value: Any) -> str:
    """Text of EXIF; a UserComment says by its first eight bytes how the rest is written."""
    if isinstance(value, str):
        return value[:LONGEST].strip("\0 ")
    if not isinstance(value, bytes):
        return ""
    code, body = value[:8], value[8 : 8 + 2 * LONGEST]
    if code == b"UNICODE\0":
        # the byte order is nowhere said, and tools differ: prompts are mostly ASCII, whose high bytes are zero
        if body[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return body.decode("utf-16", "replace").strip("\0 ")
        order = "utf-16-le" if body[1::2].count(0) > body[0::2].count(0) else "utf-16-be"
        return body.decode(order, "replace").strip("\0 ")
    if code in (b"ASCII\0\0\0", b"\0" * 8):
        return body.decode("utf-8", "replace").strip("\0 ")
    return value[:LONGEST].decode("utf-8", "replace").strip("\0 ")


def _xmp_texts(xmp: str | bytes) -> dict[str, str]:
    """Draw Things' comment, and descriptions: the first text of exif:UserComment and dc:description."""
    try:
        root = ElementTree.fromstring(xmp.strip(b"\0 \n") if isinstance(xmp, bytes) else xmp.strip("\0 \n"))
    except (ElementTree.ParseError, ValueError, RecursionError):
        return {}
    found: dict[str, str] = {}
    for element in root.iter():
        name = element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""
        if name in ("UserComment", "description"):
            text = "".join(element.itertext()).strip()
            if text:
                found.setdefault(f"xmp {name}", text[:LONGEST])
        for attribute, value in element.attrib.items():
            if attribute.endswith("}UserComment"):
                found.setdefault("xmp UserComment", value[:LONGEST])
    return found


def _json(text: str | None) -> dict[str, Any]:
    """A JSON object; empty where the text is none."""
    if text is None or not text.lstrip().startswith("{"):
        return {}
    content = json.loads(text, parse_constant=lambda name: None)  # NaN, which ComfyUI writes
    return content if isinstance(content, dict) else {}


def _perhaps_json(text: str | None) -> dict[str, Any]:
    """The same of a text that several tools write, some as JSON, some not (a prompt may begin with a brace)."""
    try:
        return _json(text)
    except (ValueError, RecursionError):
        return {}


def _picked(content: Mapping[str, Any], names: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values under our names, and the rest."""
    parameters = {ours: content[theirs] for theirs, ours in names.items() if content.get(theirs) is not None}
    return parameters, {name: value for name, value in content.items() if name not in names}


def _text_of(content: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = content.get(name, default)
    if not isinstance(value, str):
        raise ValueError(f"no text under {name!r}")
    return value


def _swarm(texts: Mapping[str, str]) -> ImageMetadata | None:
    content = _perhaps_json(_first(texts, "parameters", "UserComment")).get("sui_image_params")
    if not isinstance(content, dict):
        return None
    names = {"seed": "seed", "steps": "steps", "cfgscale": "guidance_scale", "sampler": "sampler", "model": "model", "width": "width"}
    parameters, others = _picked(content, names | {"height": "height", "prompt": "", "negativeprompt": ""})
    parameters.pop("", None)
    return ImageMetadata(
        tool="SwarmUI",
        prompt=_text_of(content, "prompt"),
        negative_prompt=_text_of(content, "negativeprompt", ""),
        parameters=parameters,
        others=others,
    )


def _fooocus(texts: Mapping[str, str]) -> ImageMetadata | None:
    content = _perhaps_json(_first(texts, "parameters", "UserComment", "Comment", "comment"))
    if not ("base_model" in content or str(content.get("software", content.get("version", ""))).startswith("Fooocus")):
        return None
    names = {"seed": "seed", "steps": "steps", "guidance_scale": "guidance_scale", "cfg": "guidance_scale", "sampler": "sampler"}
    parameters, others = _picked(content, names | {"sampler_name": "sampler", "base_model": "model", "width": "width", "height": "height"})
    return ImageMetadata(
        tool="Fooocus",
        prompt=_text_of(content, "prompt"),
        negative_prompt=_text_of(content, "negative_prompt", ""),
        parameters=parameters,
        others={name: value for name, value in others.items() if name not in ("prompt", "negative_prompt")},
    )


def _comfyui(texts: Mapping[str, str]) -> ImageMetadata | None:
    for name in ("prompt", "Model", "workflow", "Make"):  # the executed graph first; the EXIF of WebP has "prompt:{...}" under Model
        text = texts.get(name, "")
        content = _json(text.partition(":")[2] if name in ("Model", "Make") else text)
        if content:
            graph = read_graph(content)
            return ImageMetadata(tool="ComfyUI", prompt=graph.prompt, negative_prompt=graph.negative_prompt, parameters=graph.parameters)
    return None


def _invokeai(texts: Mapping[str, str]) -> ImageMetadata | None:
    names = {"seed": "seed", "steps": "steps", "cfg_scale": "guidance_scale", "width": "width", "height": "height"}
    if "invokeai_metadata" in texts:
        content = _json(texts["invokeai_metadata"])
        parameters, others = _picked(content, names | {"scheduler": "sampler"})
        model = content.get("model")
        if isinstance(model, dict) and isinstance(model.get("model_name", model.get("name")), str):
            parameters["model"] = model.get("model_name", model.get("name"))
        prompt, negative = _text_of(content, "positive_prompt"), content.get("negative_prompt") or ""
        return ImageMetadata(tool="InvokeAI", prompt=prompt, negative_prompt=str(negative), parameters=parameters, others=others)
    if "sd-metadata" in texts:
        content = _json(texts["sd-metadata"])
        image = content["image"]
        prompts = image["prompt"]
        parts = [prompts] if isinstance(prompts, str) else [_text_of(part, "prompt") for part in prompts]
        parameters, others = _picked(image, names | {"sampler": "sampler"})
        if isinstance(content.get("model_weights"), str):
            parameters["model"] = content["model_weights"]
        return _with_brackets("InvokeAI", ", ".join(parts), parameters, others)
    dream = re.match(r'\s*"((?:[^"\\]|\\.)*)"(.*)', texts["Dream"], re.DOTALL)
    if dream is None:
        raise ValueError("a Dream without a prompt in quotes")
    switches = dict(re.findall(r"(?:^|\s)-(\w)\s*(\S+)", dream[2]))
    kinds: dict[str, tuple[str, Callable[[str], Any]]] = {"s": ("steps", int), "S": ("seed", int), "C": ("guidance_scale", float)}
    kinds |= {"A": ("sampler", str), "W": ("width", int), "H": ("height", int)}
    parameters = {name: kind(switches[letter]) for letter, (name, kind) in kinds.items() if letter in switches}
    return _with_brackets("InvokeAI", dream[1].replace('\\"', '"'), parameters, {})


def _with_brackets(tool: str, text: str, parameters: dict[str, Any], others: dict[str, Any]) -> ImageMetadata:
    """Older InvokeAI notes negative words inside the prompt, [in brackets]."""
    negative = ", ".join(part.strip() for part in re.findall(r"\[([^\[\]]*)\]", text) if part.strip())
    positive = re.sub(r"\s*\[[^\[\]]*\]", "", text).strip()
    return ImageMetadata(tool=tool, prompt=positive, negative_prompt=negative, parameters=parameters, others=others)


def _novelai(texts: Mapping[str, str]) -> ImageMetadata | None:
    if "NovelAI" not in texts.get("Software", "") and "NovelAI" not in texts.get("Title", ""):
        return None
    content = _json(texts.get("Comment"))
    names = {"seed": "seed", "steps": "steps", "scale": "guidance_scale", "sampler": "sampler", "width": "width", "height": "height"}
    parameters, others = _picked(content, names)
    if texts.get("Source"):
        parameters["model"] = texts["Source"]
    prompt = content.get("prompt") if isinstance(content.get("prompt"), str) else texts.get("Description")
    if not isinstance(prompt, str):
        raise ValueError("no prompt")
    # the characters of version 4 have prompts of their own
    captions = content.get("v4_prompt")
    characters = captions.get("caption", {}).get("char_captions", []) if isinstance(captions, dict) else []
    prompt = ", ".join([prompt, *(_text_of(character, "char_caption") for character in characters)])
    negative = content.get("uc") if isinstance(content.get("uc"), str) else ""
    others = {name: value for name, value in others.items() if name not in ("prompt", "uc")}
    return ImageMetadata(tool="NovelAI", prompt=prompt.strip(), negative_prompt=str(negative), parameters=parameters, others=others)


def _draw_things(texts: Mapping[str, str]) -> ImageMetadata | None:
    content = _perhaps_json(_first(texts, "xmp UserComment", "UserComment"))
    if not isinstance(content.get("c"), str):
        return None
    names = {"seed": "seed", "steps": "steps", "scale": "guidance_scale", "sampler": "sampler", "model": "model"}
    parameters, others = _picked(content, names)
    if size := re.fullmatch(r"(\d+)x(\d+)", str(content.get("size", ""))):
        parameters |= {"width": int(size[1]), "height": int(size[2])}
    others = {name: value for name, value in others.items() if name not in ("c", "uc", "size")}
    return ImageMetadata(tool="Draw Things", prompt=content["c"], negative_prompt=str(content.get("uc") or ""), parameters=parameters, others=others)


def _easy_diffusion(texts: Mapping[str, str]) -> ImageMetadata | None:
    """A text chunk for each value, or all in one JSON comment; under new names or older, spoken ones."""
    content: Mapping[str, Any] = _perhaps_json(_first(texts, "UserComment")) or texts
    low = {name.lower().replace(" ", "_"): value for name, value in content.items()}
    if not any(name in low for name in ("use_stable_diffusion_model", "stable_diffusion_model", "num_inference_steps")):
        return None
    names = {"seed": "seed", "num_inference_steps": "steps", "steps": "steps", "guidance_scale": "guidance_scale", "sampler_name": "sampler"}
    names |= {"sampler": "sampler", "use_stable_diffusion_model": "model", "stable_diffusion_model": "model", "width": "width", "height": "height"}
    parameters, others = _picked(low, names)
    numbers = {"seed": int, "steps": int, "guidance_scale": float, "width": int, "height": int}
    parameters = {name: numbers[name](value) if name in numbers else value for name, value in parameters.items()}
    others = {name: value for name, value in others.items() if name not in ("prompt", "negative_prompt")}
    prompt, negative = _text_of(low, "prompt"), str(low.get("negative_prompt") or "")
    return ImageMetadata(tool="Easy Diffusion", prompt=prompt, negative_prompt=negative, parameters=parameters, others=others)


def _automatic(texts: Mapping[str, str]) -> ImageMetadata | None:
    text = texts.get("parameters")
    if text is None:  # a comment may be of anything; it is theirs if it says the steps
        text = _first(texts, "UserComment", "ImageDescription", "xmp UserComment")
        if text is None or not re.search(r"(^|\n|, )Steps: \d+", text):
            return None
    if _perhaps_json(text):
        raise ValueError("JSON of a tool that is not known")
    found = parse_parameters_text(text)
    common = common_parameters(found.parameters)
    return ImageMetadata(
        tool="AUTOMATIC1111",
        prompt=found.prompt,
        negative_prompt=found.negative_prompt,
        parameters=common,
        others={name: value for name, value in found.parameters.items() if name not in ("Steps", "Sampler", "CFG scale", "Seed", "Model", "Size")},
    )


def _first(texts: Mapping[str, str], *names: str) -> str | None:
    return next((texts[name] for name in names if texts.get(name)), None)


_Reader = Callable[[Mapping[str, str]], ImageMetadata | None]
# in an order in which what one tool writes is not taken for another's: by what is theirs alone first
_READERS: list[tuple[str, tuple[str, ...], _Reader]] = [
    ("SwarmUI", ("parameters", "UserComment"), _swarm),
    ("Fooocus", ("parameters", "UserComment", "Comment", "comment"), _fooocus),
    ("InvokeAI", ("invokeai_metadata", "sd-metadata", "Dream"), _invokeai),
    ("NovelAI", ("Software", "Title"), _novelai),
    ("Easy Diffusion", ("prompt", "Prompt", "UserComment"), _easy_diffusion),
    ("AUTOMATIC1111", ("parameters",), _automatic),  # nodes of ComfyUI write it beside the graph, made for being read
    ("ComfyUI", ("prompt", "workflow", "Model", "Make"), _comfyui),
    ("Draw Things", ("xmp UserComment", "UserComment"), _draw_things),
    ("AUTOMATIC1111", ("UserComment", "ImageDescription", "xmp UserComment"), _automatic),
]


def _hidden_text(image: Image.Image) -> str | None:
    """What NovelAI, and an extension of AUTOMATIC1111, hide in the lowest bits of the alpha channel, column by column: a name, a length in
    bits, and a text, compressed or not."""
    if image.mode != "RGBA" or image.width * image.height < 200:
        return None
    try:
        alpha = np.asarray(image.getchannel("A"))
    except (OSError, SyntaxError, ValueError):
        return None  # reading the picture itself will say what is wrong with it
    bits = (alpha.T.reshape(-1) & 1).astype(np.uint8)
    name = np.packbits(bits[:120]).tobytes()
    if name not in (b"stealth_pnginfo", b"stealth_pngcomp"):
        return None
    length = int.from_bytes(np.packbits(bits[120:152]).tobytes(), "big")
    body = np.packbits(bits[152 : 152 + min(length, 8 * LONGEST)]).tobytes()
    try:
        if name == b"stealth_pngcomp":
            with gzip.open(io.BytesIO(body)) as file:
                body = file.read(LONGEST)
        return body.decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise MetadataError(f"the text hidden in the alpha channel is damaged ({error})", "hidden text") from error


def _of_hidden(text: str) -> ImageMetadata | None:
    try:
        content = _perhaps_json(text)
        if content:
            return _novelai({"Software": "NovelAI"} | {name: value for name, value in content.items() if isinstance(value, str)})
        return _automatic({"parameters": text})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MetadataError(f"the text hidden in the alpha channel is not in a form that is known ({error})", "hidden text") from error
