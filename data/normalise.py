"""Steps that make the prompts of different people and tools alike, each by name, so that a data set can say which it has gone through."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

Step = Literal["loras", "weights", "spaces"]
_NETWORK = re.compile(r"<(?:lora|lyco|hypernet|lora_block|embedding):[^<>]*>")
_WEIGHT = re.compile(r":\s*[+-]?\d*\.?\d+\s*$")
_BRACKETS = {"(": ")", "[": "]", "{": "}"}


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


def storable(prompt: str) -> str:
    """With question marks for lone surrogates, halves of a character that JSON can hold and UTF-8 can not."""
    return prompt.encode("utf-8", "replace").decode("utf-8")


STEPS = {"loras": strip_loras, "weights": strip_weights, "spaces": strip_spaces}


def normalise(prompt: str, steps: Sequence[Step], words: Sequence[str] = ()) -> str:
    """The steps in their own order, then `words` dropped."""
    for name, step in STEPS.items():
        if name in steps:
            prompt = step(prompt)
    return drop_words(prompt, words)
