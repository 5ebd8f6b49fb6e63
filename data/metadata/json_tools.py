"""Readers of the tools that note how an image was made as JSON, or as one text chunk a value. Each returns None where the texts are not its tool's.

They raise ValueError, KeyError, TypeError, AttributeError or IndexError where they are, in a form that is not known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from data.metadata.found import ImageMetadata
from data.metadata.lenient import json_object, looks_like_json, number, perhaps_json

_NUMBERS: dict[str, type[int] | type[float] | None] = {"seed": int, "steps": int, "guidance_scale": None, "width": int, "height": int}
# values under the names that one tool or another gives them (without signs, in small letters), in our names
_COMMON = {
    "seed": "seed", "steps": "steps", "numinferencesteps": "steps", "samplingsteps": "steps", "guidancescale": "guidance_scale",
    "cfgscale": "guidance_scale", "cfg": "guidance_scale", "guidance": "guidance_scale", "sampler": "sampler", "samplername": "sampler",
    "scheduler": "sampler", "model": "model", "basemodel": "model", "basemodelname": "model", "modelname": "model",
    "width": "width", "height": "height",
}  # fmt: skip
_PROMPTS = ("prompt", "positiveprompt", "positive", "textprompt")
_NEGATIVES = ("negativeprompt", "negative", "uc")


def swarm(texts: Mapping[str, str]) -> ImageMetadata | None:
    for name in ("parameters", "UserComment", "comment", "Comment", "ImageDescription"):
        content = perhaps_json(texts.get(name)).get("sui_image_params")
        if isinstance(content, dict):
            names = {"seed": "seed", "steps": "steps", "cfgscale": "guidance_scale", "sampler": "sampler", "model": "model"}
            return _metadata("SwarmUI", content, names | _SIDES, ("prompt",), ("negativeprompt",))
    return None


def fooocus(texts: Mapping[str, str]) -> ImageMetadata | None:
    content = perhaps_json(first(texts, "parameters", "UserComment", "Comment", "comment"))
    software = str(content.get("software", content.get("version", content.get("Version", ""))))
    if not ("base_model" in content or software.startswith(("Fooocus", "RuinedFooocus")) or "Fooocus V2 Expansion" in content):
        return None
    names = {"seed": "seed", "steps": "steps", "guidance_scale": "guidance_scale", "cfg": "guidance_scale", "sampler": "sampler"}
    names |= {"sampler_name": "sampler", "base_model": "model", "base_model_name": "model", "Seed": "seed", "Base Model": "model"}
    names |= {"Guidance Scale": "guidance_scale", "Sampler": "sampler"}
    tool = "RuinedFooocus" if software.startswith("Ruined") else "Fooocus"
    return _metadata(tool, content, names | _SIDES, ("prompt", "Prompt"), ("negative_prompt", "Negative", "Negative Prompt"))


def tensor_art(texts: Mapping[str, str]) -> ImageMetadata | None:
    content = json_object(texts.get("generation_data"))
    if not content:
        return None
    base = content.get("baseModel")
    content["baseModel"] = base.get("modelFileName") if isinstance(base, dict) else base
    names = {"seed": "seed", "steps": "steps", "cfgScale": "guidance_scale", "samplerName": "sampler", "baseModel": "model"}
    return _metadata("TensorArt", content, names | _SIDES, ("prompt",), ("negativePrompt",))


def stability_matrix(texts: Mapping[str, str]) -> ImageMetadata | None:
    content = json_object(texts.get("parameters-json"))
    if not content:
        return None
    names = {"Seed": "seed", "Steps": "steps", "CfgScale": "guidance_scale", "Sampler": "sampler", "ModelName": "model"}
    return _metadata("Stability Matrix", content, names | {"Width": "width", "Height": "height"}, ("PositivePrompt",), ("NegativePrompt",))


def civitai(content: Mapping[str, Any]) -> ImageMetadata | None:
    """What Civitai's generator adds to the graph that it runs."""
    extra = content.get("extraMetadata")
    found = extra if isinstance(extra, dict) else perhaps_json(extra if isinstance(extra, str) else None)
    if not isinstance(found.get("prompt"), str) or not found["prompt"].strip():
        return None
    names = {"seed": "seed", "steps": "steps", "cfgScale": "guidance_scale", "sampler": "sampler", "baseModel": "model"}
    return _metadata("Civitai", found, names | _SIDES, ("prompt",), ("negativePrompt",))


def invokeai(texts: Mapping[str, str]) -> ImageMetadata | None:
    names = {"seed": "seed", "steps": "steps", "cfg_scale": "guidance_scale"} | _SIDES
    if "invokeai_metadata" in texts:
        content = json_object(texts["invokeai_metadata"])
        model = content.get("model")
        if isinstance(model, dict):
            content["model"] = model.get("model_name", model.get("name"))
        for side in ("positive", "negative"):
            content[f"{side}_prompt"] = _with_style(content.get(f"{side}_prompt"), content.get(f"{side}_style_prompt"))
        return _metadata("InvokeAI", content, names | {"scheduler": "sampler", "model": "model"}, ("positive_prompt",), ("negative_prompt",))
    if "sd-metadata" in texts:
        content = json_object(texts["sd-metadata"])
        image = content["image"]
        prompts = image["prompt"]
        parts = [prompts] if isinstance(prompts, str) else [_text_of(part, ("prompt",)) for part in prompts]
        parameters, others = _picked(image, names | {"sampler": "sampler"})
        if isinstance(content.get("model_weights"), str):
            parameters["model"] = content["model_weights"]
        return _with_brackets("InvokeAI", ", ".join(parts), parameters, others)
    if "Dream" not in texts:
        return None
    dream = re.match(r'\s*"((?:[^"\\]|\\.)*)"(.*)', texts["Dream"], re.DOTALL)
    if dream is None:
        raise ValueError("a Dream without a prompt in quotes")
    switches = dict(re.findall(r"(?:^|(?<=\s))-(\w)\s*((?!-[A-Za-z-])\S*)", dream[2]))  # a switch may have no value
    letters = {"s": "steps", "S": "seed", "C": "guidance_scale", "A": "sampler", "W": "width", "H": "height"}
    parameters, _ = _picked({letter: value for letter, value in switches.items() if value}, letters)
    return _with_brackets("InvokeAI", dream[1].replace('\\"', '"'), parameters, {})


def novelai(texts: Mapping[str, str]) -> ImageMetadata | None:
    if "NovelAI" not in texts.get("Software", "") and "NovelAI" not in texts.get("Title", ""):
        return None
    content = json_object(texts.get("Comment"))
    parameters, others = _picked(content, {"seed": "seed", "steps": "steps", "scale": "guidance_scale", "sampler": "sampler"} | _SIDES)
    if texts.get("Source"):
        parameters["model"] = texts["Source"]
    prompt = content.get("prompt") if isinstance(content.get("prompt"), str) else texts.get("Description")
    if not isinstance(prompt, str):
        raise ValueError("no prompt")
    # the characters of version 4 have prompts of their own
    captions = content.get("v4_prompt")
    characters = captions.get("caption", {}).get("char_captions", []) if isinstance(captions, dict) else []
    prompt = ", ".join([prompt, *(_text_of(character, ("char_caption",)) for character in characters)])
    negative = content.get("uc") if isinstance(content.get("uc"), str) else ""
    others = {name: value for name, value in others.items() if name not in ("prompt", "uc")}
    return ImageMetadata(tool="NovelAI", prompt=prompt.strip(), negative_prompt=str(negative), parameters=parameters, others=others)


def draw_things(texts: Mapping[str, str]) -> ImageMetadata | None:
    content = perhaps_json(first(texts, "xmp UserComment", "UserComment"))
    if not isinstance(content.get("c"), str):
        return None
    if size := re.fullmatch(r"(\d+)x(\d+)", str(content.pop("size", ""))):
        content |= {"width": int(size[1]), "height": int(size[2])}
    names = {"seed": "seed", "steps": "steps", "scale": "guidance_scale", "sampler": "sampler", "model": "model"}
    return _metadata("Draw Things", content, names | _SIDES, ("c",), ("uc",))


def easy_diffusion(texts: Mapping[str, str]) -> ImageMetadata | None:
    """A text chunk for each value, or all in one JSON comment; under new names or older, spoken ones."""
    content: Mapping[str, Any] = perhaps_json(first(texts, "UserComment")) or texts
    low = {name.lower().replace(" ", "_"): value for name, value in content.items()}
    if not any(name in low for name in ("use_stable_diffusion_model", "stable_diffusion_model", "num_inference_steps")):
        return None
    names = {"seed": "seed", "num_inference_steps": "steps", "steps": "steps", "guidance_scale": "guidance_scale", "sampler_name": "sampler"}
    names |= {"sampler": "sampler", "use_stable_diffusion_model": "model", "stable_diffusion_model": "model"} | _SIDES
    return _metadata("Easy Diffusion", low, names, ("prompt",), ("negative_prompt",))


def any_json(texts: Mapping[str, str]) -> ImageMetadata | None:
    """Of one of the many small tools and Hugging Face spaces: JSON under `parameters`, with a prompt and at least one setting of those that all have.

    Raises:
        ValueError: JSON in which that is not found.
    """
    text = texts.get("parameters", "")
    if not looks_like_json(text):
        return None
    content = json_object(text)
    low = {re.sub(r"[^a-z0-9]", "", name.lower()): value for name, value in content.items()}
    if size := re.fullmatch(r"\s*(\d{1,6})\s*[x×*,]\s*(\d{1,6})\s*", str(low.get("resolution", low.get("size", "")))):
        low |= {"width": int(size[1]), "height": int(size[2])}
    prompts = [name for name in _PROMPTS if isinstance(low.get(name), str)]
    parameters, _ = _picked(low, _COMMON)
    if not prompts or not parameters.keys() & {"seed", "steps", "guidance_scale", "sampler"}:
        raise ValueError("JSON of a tool that is not known")
    return _metadata("JSON", low, _COMMON, _PROMPTS, _NEGATIVES)


def first(texts: Mapping[str, str], *names: str) -> str | None:
    return next((texts[name] for name in names if texts.get(name)), None)


_SIDES = {"width": "width", "height": "height"}


def _metadata(tool: str, content: Mapping[str, Any], names: Mapping[str, str], prompts: tuple[str, ...], negatives: tuple[str, ...]) -> ImageMetadata:
    parameters, others = _picked(content, names)
    negative = next((content[name] for name in negatives if isinstance(content.get(name), str)), "")
    others = {name: value for name, value in others.items() if name not in (*prompts, *negatives)}
    return ImageMetadata(tool=tool, prompt=_text_of(content, prompts), negative_prompt=negative, parameters=parameters, others=others)


def _picked(content: Mapping[str, Any], names: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values under our names, and the rest. What should be a number or a word and is none is left out."""
    parameters: dict[str, Any] = {}
    for theirs, ours in names.items():
        value = content.get(theirs)
        read = number(value, _NUMBERS[ours]) if ours in _NUMBERS else (value if isinstance(value, str) and value else None)
        if read is not None:
            parameters.setdefault(ours, read)
    return parameters, {name: value for name, value in content.items() if name not in names}


def _text_of(content: Mapping[str, Any], names: tuple[str, ...]) -> str:
    for name in names:
        if isinstance(content.get(name), str):
            return str(content[name])
    raise ValueError(f"no text under {names[0]!r}")


def _with_style(text: Any, style: Any) -> Any:
    """InvokeAI's prompt for SDXL and the style that goes with it, joined; some versions have joined them already."""
    if not isinstance(text, str) or not isinstance(style, str):
        return text
    style = style.strip().removeprefix(text.strip()).strip(" ,")
    return ", ".join(part for part in (text.strip(), style) if part)


def _with_brackets(tool: str, text: str, parameters: dict[str, Any], others: dict[str, Any]) -> ImageMetadata:
    """Older InvokeAI notes negative words inside the prompt, [in brackets]."""
    negative = ", ".join(part.strip() for part in re.findall(r"\[([^\[\]]*)\]", text) if part.strip())
    positive = re.sub(r"\s*\[[^\[\]]*\]", "", text).strip()
    return ImageMetadata(tool=tool, prompt=positive, negative_prompt=negative, parameters=parameters, others=others)
