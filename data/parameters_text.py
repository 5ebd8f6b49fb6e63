"""The text in which AUTOMATIC1111's web UI and its forks note how an image was made:

    a castle on a hill
    Negative prompt: blurry, (deformed:1.2)
    Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 512x768, Lora hashes: "one: 1234, two: 5678"

Reading follows the web UI's own rules (`infotext_utils.py`): the last line holds the parameters if there are three or more of them; a value with a
comma, a colon or a line break is quoted as JSON; the negative prompt begins at the first line that says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_FEWEST = 3  # parameters that make a line one of them
_NEGATIVE = "Negative prompt:"
_NAME = re.compile(r"\s*(\w[\w /\-]{0,60}):\s*")
_PLAIN = re.compile(r"[^,\n]*")
_SIZE = re.compile(r"(\d{1,6})x(\d{1,6})")
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
    """A text without a line of parameters is a prompt (and a negative prompt) alone."""
    lines = text.strip().split("\n")
    parameters = _parameters(lines[-1])
    if len(parameters) >= _FEWEST:
        lines.pop()
    else:
        parameters = {}
    start = next((number for number, line in enumerate(lines) if line.strip().startswith(_NEGATIVE)), len(lines))
    negative = "\n".join(lines[start:]).strip().removeprefix(_NEGATIVE)
    return ParametersText(prompt="\n".join(lines[:start]).strip(), negative_prompt=negative.strip(), parameters=parameters)


def common_parameters(parameters: Mapping[str, str]) -> dict[str, Any]:
    """Those that every tool has, under the names of our metadata, numbers as numbers."""
    common: dict[str, Any] = {ours: _number(parameters[theirs]) for theirs, ours in NAMES.items() if theirs in parameters}
    if size := _SIZE.fullmatch(parameters.get("Size", "")):
        common |= {"width": int(size[1]), "height": int(size[2])}
    for name in ("sampler", "model"):
        if name in common:
            common[name] = str(parameters[{"sampler": "Sampler", "model": "Model"}[name]])
    return common


def _parameters(line: str) -> dict[str, str]:
    """`name: value` after `name: value`, from the beginning of a line; up to the first that is neither."""
    found: dict[str, str] = {}
    place = 0
    while place < len(line) and (name := _NAME.match(line, place)):
        value, place = _value(line, name.end())
        found[name[1]] = value
        comma = re.compile(r"\s*(,|$)").match(line, place)
        if comma is None:
            break
        place = comma.end()
    return found


def _value(line: str, place: int) -> tuple[str, int]:
    """A value and where it ends: quoted as JSON, JSON itself (the `Hashes` of some versions), or all up to the comma."""
    if line[place : place + 1] in ('"', "{", "["):
        try:
            value, end = json.JSONDecoder().raw_decode(line, place)
            return (value if isinstance(value, str) else line[place:end]), end
        except (ValueError, RecursionError):
            pass
    plain = _PLAIN.match(line, place)
    end = plain.end() if plain is not None else place
    return line[place:end].strip(), end


def _quoted(value: str) -> str:
    plain = value == value.strip() and not value.startswith(('"', "{", "[")) and not any(sign in value for sign in ",:\n")
    return value if plain and value else json.dumps(value, ensure_ascii=False)


def _number(value: str) -> Any:
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value
