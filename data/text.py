"""The text of prompts: how bytes become text, which columns hold prompts, and steps that make the prompts of different people and tools alike."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from data.errors import PairError, TableError

PROMPT_NAMES = ("prompt", "text", "caption", "captions", "prompts")
_MARKS = (  # of the four bytes before the two that they begin with
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MOST_FOREIGN = 0.3  # of a text's letters outside ASCII; more are another alphabet, read wrongly
_WESTERN = re.compile(r"[\x09\x0a\x0d\x20-\x7e\u00a0-\u00ff\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u2013\u2014\u2018-\u201e\u2026\u20ac\u2122]*")

Step = Literal["loras", "weights", "spaces"]
_NETWORK = re.compile(r"<(?:lora|lyco|hypernet|lora_block|embedding):[^<>]*>")
_WEIGHT = re.compile(r":\s*[+-]?\d*\.?\d+\s*$")
_BRACKETS = {"(": ")", "[": "]", "{": "}"}


def encoding_of(content: bytes) -> str:
    """How a text was written: as its byte order mark says, UTF-16 by its zeros, UTF-8, or else Windows' Western code page, where what that gives is
    Western text.

    Raises:
        UnicodeDecodeError: none of these; says where UTF-8 ends.
    """
    for mark, name in _MARKS:
        if content.startswith(mark):
            return name
    head = content[:4096]
    if len(content) >= 4 and len(content) % 2 == 0 and b"\0" in head:  # ASCII in UTF-16 is every second byte a zero
        odd, even = head[1::2].count(0), head[0::2].count(0)
        if min(odd, even) == 0 and max(odd, even) >= len(head) // 4:
            return "utf-16-le" if odd else "utf-16-be"
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        if _is_western(content):
            return "cp1252"
        raise
    return "utf-8"


def decoded(content: bytes) -> str:
    """Text from bytes, as `encoding_of` finds them written.

    Raises:
        UnicodeDecodeError: it cannot be told, or is cut in the middle of a character.
    """
    return content.decode(encoding_of(content))


def _is_western(content: bytes) -> bool:
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError:
        return False
    letters = [sign for sign in text if sign.isalpha()]
    foreign = sum(not sign.isascii() for sign in letters)
    return _WESTERN.fullmatch(text) is not None and foreign <= _MOST_FOREIGN * len(letters)


def cleaned(prompt: str) -> str:
    """A prompt as it is kept, wherever it comes from: without a byte order mark and space at its ends, lines ended by \\n alone, and question marks
    for lone surrogates, halves of a character that JSON can hold and UTF-8 can not."""
    text = prompt.encode("utf-8", "replace").decode("utf-8")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").strip()


def prompts_of(row: Mapping[str, Any], names: Sequence[str], label: str) -> list[str]:
    """The prompts under the first of `names` that a row has a text, or a list of texts, under.

    Raises:
        PairError: none; names the columns there are.
    """
    low = {str(column).strip().casefold(): value for column, value in reversed(list(row.items()))}
    for name in names:
        value = row.get(name, low.get(name.casefold()))
        if isinstance(value, str):
            return [cleaned(value)]
        if isinstance(value, list | tuple) and value and all(one is None or isinstance(one, str) for one in value):
            return [cleaned(one or "") for one in value]  # empty ones are counted where they are read
    there = ", ".join(map(str, row)) or "nothing"
    raise PairError(f"{label}: no text under {' or '.join(names)} (there is: {there})", "no prompt")


def prompt_column(columns: Iterable[str], asked: str | None, source: str) -> str:
    """Which column holds the prompts: the one that was asked for, or the first of `PROMPT_NAMES`, in any case.

    Raises:
        TableError: there is none; names the columns there are.
    """
    there = list(columns)
    low = {str(column).strip().casefold(): column for column in reversed(there)}
    found = next((low[name.casefold()] for name in ([asked] if asked is not None else PROMPT_NAMES) if name.casefold() in low), None)
    if found is None:
        wanted = asked if asked is not None else " or ".join(PROMPT_NAMES[:3])
        raise TableError(f"{source} has no column {wanted}; give --prompt-column, one of: {', '.join(map(str, there)) or 'none'}")
    return found


def strip_loras(prompt: str) -> str:
    """Without the tags that load small networks: "a cat <lora:x:0.8>" -> "a cat"."""
    return _NETWORK.sub("", prompt)


def strip_weights(prompt: str) -> str:
    """Without marks of emphasis: "(masterpiece:1.2), ((a cat)), [dog]" -> "masterpiece, a cat, dog". Brackets that were escaped stay, bare;
    brackets without a partner stay as they are."""
    out: list[str] = []
    opened: list[tuple[str, int]] = []  # the bracket that would close it, and where it stands in `out`
    signs = iter(prompt)
    for sign in signs:
        if sign == "\\":
            following = next(signs, "")
            out.append(following if following and following in "()[]{}" else sign + following)
        elif sign in _BRACKETS:
            opened.append((_BRACKETS[sign], len(out)))
            out.append(sign)
        elif opened and sign == opened[-1][0]:
            _, start = opened.pop()
            inside = "".join(out[start + 1 :])
            out[start:] = [_WEIGHT.sub("", inside)]
        else:
            out.append(sign)
    return "".join(out)


def strip_spaces(prompt: str) -> str:
    """One space for any number, line breaks included; no empty parts between commas; none at the ends."""
    prompt = re.sub(r"\s+", " ", prompt)
    return re.sub(r"(?:\s*,)+", ",", prompt).strip(" ,")


def drop_words(prompt: str, words: Sequence[str]) -> str:
    """Without some words or phrases, whole and in either case; parts between commas that are left empty go too."""
    for word in words:
        prompt = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", "", prompt, flags=re.IGNORECASE)
    return strip_spaces(prompt) if words else prompt


STEPS = {"loras": strip_loras, "weights": strip_weights, "spaces": strip_spaces}


def normalise(prompt: str, steps: Sequence[Step], words: Sequence[str] = ()) -> str:
    """The steps in their own order, then `words` dropped."""
    for name, step in STEPS.items():
        if name in steps:
            prompt = step(prompt)
    return drop_words(prompt, words)
