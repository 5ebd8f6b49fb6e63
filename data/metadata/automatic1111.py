"""The text in which AUTOMATIC1111's web UI and its forks note how an image was made:

    a castle on a hill
    Negative prompt: blurry, (deformed:1.2)
    Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 512x768, Lora hashes: "one: 1234, two: 5678"

The settings begin at the last line that begins with `Steps: <number>`, whatever follows: extensions write templates and settings of their own on
lines after it. A value with a comma, a colon or a line break is quoted as JSON, mostly; the negative prompt begins at the first line that says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from data.metadata.lenient import number

_FEWEST = 3  # settings that make a line without steps one of them
_MOST_STEPS = 20  # lines that begin like settings and are looked at
_NEGATIVE = "Negative prompt:"
_NEGATIVE_LINE = re.compile(r"\s*negative prompt\s*:", re.IGNORECASE)
_STEPS_LINE = re.compile(r"[ \t]*Steps\s*:\s*\d+", re.IGNORECASE)
_TEMPLATE_LINE = re.compile(r"(?<=\n)[ \t]*((?:Negative )?Template)\s*:", re.IGNORECASE)  # of Dynamic Prompts: commas and all, to the end
_NAME = re.compile(r"\s*(\w[\w /\-]{0,60}):\s*")
_PLAIN = re.compile(r"[^,\n]*")
_PIPED = re.compile(r"[^|\n]*")
_BARS = re.compile(r"\s*Steps\s*:\s*\d+\s*\|", re.IGNORECASE)
_GAP = {sign: re.compile(rf"[\s{re.escape(sign)}]*") for sign in ",|"}
_SIZE = re.compile(r"(\d{1,6})\s*x\s*(\d{1,6})")
_WELL_KNOWN = ("sampler", "cfg scale", "seed", "size", "model", "model hash", "guidance", "distilled cfg scale", "schedule type", "version")
# all on one line, as texts are that were pasted from web pages
_INLINE = re.compile(r"(?<![^\s,.])Steps\s*:\s*\d+\s*[,|]\s*(?:Sampler|CFG scale|Seed|Size|Schedule type|Model|Guidance)\s*:", re.IGNORECASE)
_INLINE_NEGATIVE = re.compile(r"(?<![^\s,.])Negative prompt\s*:", re.IGNORECASE)
NAMES = {"Steps": "steps", "Sampler": "sampler", "CFG scale": "guidance_scale", "Seed": "seed", "Model": "model"}


@dataclass(frozen=True, kw_only=True)
class ParametersText:
    """What such a text says; `parameters` under the web UI's names, as text, in order."""

    prompt: str
    negative_prompt: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """The text again. It reads back as it was unless a line of the prompt looks like one of the other parts."""
        lines = [self.prompt]
        if self.negative_prompt:
            lines.append(f"{_NEGATIVE} {self.negative_prompt}")
        if self.parameters:
            lines.append(", ".join(f"{name}: {_quoted(value)}" for name, value in self.parameters.items()))
        return "\n".join(lines)


def parameters_text(metadata: Mapping[str, Any]) -> ParametersText:
    """The text for one of our pairs."""
    values = {theirs: metadata.get(ours) for theirs, ours in NAMES.items()}
    if metadata.get("width") and metadata.get("height"):
        values["Size"] = f"{metadata['width']}x{metadata['height']}"
    return ParametersText(
        prompt=str(metadata["prompt"]),
        negative_prompt=str(metadata.get("negative_prompt") or ""),
        parameters={name: str(value) for name, value in values.items() if value is not None} | {"Version": "Reprompt"},
    )


def parse_parameters_text(text: str) -> ParametersText:
    """A text without settings is a prompt (and a negative prompt) alone."""
    text = text.replace("\r\n", "\n").strip("\0 \t\n\r")
    place, parameters = _settings(text)
    lines = text[:place].strip().split("\n")
    start = next((number for number, line in enumerate(lines) if _NEGATIVE_LINE.match(line)), len(lines))
    prompt, negative = "\n".join(lines[:start]).strip(), _NEGATIVE_LINE.sub("", "\n".join(lines[start:]), count=1)
    if start == len(lines) and place < len(text) and (inline := _INLINE_NEGATIVE.search(prompt)):
        prompt, negative = prompt[: inline.start()].rstrip(" ,\n\t"), prompt[inline.end() :].rstrip(" ,\n\t")
    return ParametersText(prompt=prompt, negative_prompt=negative.strip(), parameters=parameters)


def says_settings(text: str) -> bool:
    """Whether a text of unknown origin (a comment, a file beside the image) is one of these: it says the steps, where the settings stand, and one
    more of the settings that every tool has."""
    return any(name.lower() == "steps" for name in _settings(text.replace("\r\n", "\n").strip("\0 \t\n\r"))[1])


def common_parameters(parameters: Mapping[str, str]) -> dict[str, Any]:
    """Those that every tool has, under the names of our metadata, numbers as numbers; what should be a number and is none is left out."""
    low = {name.lower(): value for name, value in parameters.items()}
    common: dict[str, Any] = {}
    for theirs, ours in NAMES.items():
        value = low.get(theirs.lower())
        read = value if ours in ("sampler", "model") else number(value)
        if read is not None:
            common[ours] = read
    if size := _SIZE.fullmatch(low.get("size", "")):
        common |= {"width": int(size[1]), "height": int(size[2])}
    return common


def _settings(text: str) -> tuple[int, dict[str, str]]:
    """Where they begin, and what they are; at the end, and none, where there are none."""
    starts = [0] + [place.end() for place in re.finditer("\n", text)]
    for start in [start for start in reversed(starts) if _STEPS_LINE.match(text, start)][:_MOST_STEPS]:
        found = _parameters(text[start:])
        if _known(found):
            return start, found
    inline = list(_INLINE.finditer(text))
    if inline:
        return inline[-1].start(), _parameters(text[inline[-1].start() :])
    found = _parameters(text[starts[-1] :])
    return (starts[-1], found) if len(found) >= _FEWEST and _known(found) else (len(text), {})


def _known(parameters: Mapping[str, str]) -> bool:
    return any(name.lower() in _WELL_KNOWN for name in parameters)


def _parameters(text: str) -> dict[str, str]:
    """`name: value` after `name: value`, with commas or bars between, from the beginning of a text to its end."""
    text, templates = _without_templates(text)
    separator = "|" if _BARS.match(text) else ","
    found: dict[str, str] = {}
    last, place = "", 0
    while place < len(text):
        gap = _GAP[separator].match(text, place)
        begin = gap.end() if gap is not None else place
        if name := _NAME.match(text, begin):
            last = name[1]
            found[last], place = _value(text, name.end(), separator)
        elif not found:
            break  # it does not begin with a name
        else:  # a word alone, or what follows a line break inside a value
            value, end = _value(text, begin, separator)
            if "\n" in text[place:begin] and separator not in text[place:begin] and value:
                found[last] += f"\n{value}"
            place = max(end, begin + 1)
    return found | templates


def _without_templates(text: str) -> tuple[str, dict[str, str]]:
    """The settings before, and the templates of Dynamic Prompts, which go on over commas and lines to the next or to the end."""
    starts = list(_TEMPLATE_LINE.finditer(text)) if "emplate" in text else []
    if not starts:
        return text, {}
    ends = [*(one.start() for one in starts[1:]), len(text)]
    return text[: starts[0].start()], {one[1]: text[one.end() : end].strip() for one, end in zip(starts, ends, strict=True)}


def _value(text: str, place: int, separator: str) -> tuple[str, int]:
    """A value and where it ends: quoted as JSON, JSON itself (the `Hashes` of some versions), or all up to the comma."""
    if text[place : place + 1] in ('"', "{", "["):
        try:
            value, end = json.JSONDecoder(strict=False).raw_decode(text, place)
            return (value if isinstance(value, str) else text[place:end]), end
        except (ValueError, RecursionError):
            pass
    plain = (_PIPED if separator == "|" else _PLAIN).match(text, place)
    end = plain.end() if plain is not None else place
    return text[place:end].strip(), end


def _quoted(value: str) -> str:
    plain = value == value.strip() and not value.startswith(('"', "{", "[")) and not any(sign in value for sign in ",:\n")
    return value if plain and value else json.dumps(value, ensure_ascii=False)
