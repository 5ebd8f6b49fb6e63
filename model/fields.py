"""Checks that a configuration holds what its fields say, whoever wrote it."""

from __future__ import annotations

import math
import types
import typing
from dataclasses import fields
from typing import Any, Literal, Union


def check_types(config: Any) -> None:
    """
    Raises:
        ValueError: a field of this dataclass holds another kind of value than its annotation says; names the field.
    """
    hints = typing.get_type_hints(type(config))
    for field in fields(config):
        value = getattr(config, field.name)
        if not _is(value, hints[field.name]):
            raise ValueError(f"{field.name} must be {_words(hints[field.name])}, not {value!r}")


def check_range(name: str, value: float, least: float, below: float = math.inf) -> None:
    """
    Raises:
        ValueError: a number is under `least`, or not under `below`.
    """
    if not least <= value < below:
        raise ValueError(f"{name} must be {least} or more" + (f" and below {below}" if below < math.inf else "") + f", not {value}")


def _is(value: Any, hint: Any) -> bool:
    kind, parts = typing.get_origin(hint), typing.get_args(hint)
    if kind in (Union, types.UnionType):
        return any(_is(value, part) for part in parts)
    if kind is Literal:
        return value in parts
    if kind is tuple:
        return isinstance(value, tuple) and len(value) == len(parts) and all(map(_is, value, parts))
    if kind is not None:
        return isinstance(value, kind)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _words(hint: Any) -> str:
    kind, parts = typing.get_origin(hint), typing.get_args(hint)
    if kind in (Union, types.UnionType):
        return " or ".join(map(_words, parts))
    if kind is Literal:
        return " or ".join(map(repr, parts))
    if kind is tuple:
        return f"{len(parts)} numbers"
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", dict: "an object", types.NoneType: "nothing"}
    return names.get(kind or hint, getattr(hint, "__name__", str(hint)))
