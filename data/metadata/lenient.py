"""JSON as image files have it: with NaN, numbers that are none, line breaks inside texts and zeros after the end."""

from __future__ import annotations

import json
import re
from typing import Any

_LONGEST_NUMBER = 400  # digits; Python refuses to convert some thousands
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s\[\]{}:,"]+', re.DOTALL)
_TWICE = re.compile(r'"\s*\{\s*\\"')
_JSON = re.compile(r'[\0\ufeff\s]*(?:"\s*\{\s*\\"|\{\s*"|\{\s*\}|\[\s*[{\["])')


def json_object(text: str | None) -> dict[str, Any]:
    """
    Returns:
        A JSON object; empty where the text does not begin like one, or is one of another kind.

    Raises:
        ValueError, RecursionError: it begins like one and is none. A bad number alone is read as nothing.
    """
    text = (text or "").strip("\0\ufeff \t\r\n")
    if _TWICE.match(text):  # written as JSON twice over
        text = str(json.loads(text, strict=False)).strip()
    if not text.startswith("{"):
        return {}
    try:
        content = _loaded(text)
    except ValueError:
        content = _loaded(_TOKEN.sub(_without_what_is_no_value, text))
    return content if isinstance(content, dict) else {}


def perhaps_json(text: str | None) -> dict[str, Any]:
    """The same of a text that several tools write, some as JSON, some not (a prompt may begin with a brace)."""
    try:
        return json_object(text)
    except (ValueError, RecursionError):
        return {}


def looks_like_json(text: str) -> bool:
    """Whether a text begins like JSON with names or texts in it, whole or cut off, and unlike a prompt with {one|other} in it."""
    return _JSON.match(text) is not None


def number(value: Any, kind: type[int] | type[float] | None = None) -> int | float | None:
    """A number, or a text that is one; None where it is neither, or not finite. `kind` rounds towards zero or makes it a fraction."""
    if isinstance(value, str):
        value = value.strip()
        try:
            value = int(value) if len(value) < _LONGEST_NUMBER else None
        except ValueError:
            try:
                value = float(value)
            except ValueError:
                return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or value in (float("inf"), float("-inf")):
        return None
    try:
        return value if kind is None else kind(value)
    except OverflowError:
        return None


def _loaded(text: str) -> Any:
    return json.loads(text, parse_constant=lambda name: None, parse_int=_integer, strict=False)


def _integer(digits: str) -> int | None:
    return int(digits) if len(digits) < _LONGEST_NUMBER else None


def _without_what_is_no_value(token: re.Match[str]) -> str:
    text = token[0]
    if text.startswith('"'):
        return text
    try:
        json.loads(text)
    except ValueError:
        return "null"
    return text
