"""The same comparison on parts of the pictures: by how long prompts are, how many modifiers they have, where they come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.sources.held_out import HeldOutPictures
from evaluation.judging import Judge, Judgement
from evaluation.meaning import parts
from evaluation.statistics import Estimate, Units, mean_estimates
from evaluation.words import is_word, words

_FEWEST = 10  # pictures of a slice that is worth a row
_LENGTHS = (8, 16, 32, 64)
_MODIFIERS = (0, 2, 5, 10)
_SOURCE_NAMES = ("source", "prompt_source", "dataset")
_GENERATOR_NAMES = ("model", "generator")


@dataclass(frozen=True)
class Slice:
    """`metric` of each captioner on the pictures whose `trait` is `value`."""

    trait: str
    value: str
    metric: str
    estimates: Mapping[str, Estimate]


def slices(judged: Mapping[str, Judgement], pictures: HeldOutPictures, judge: Judge) -> list[Slice]:
    """Of each trait that at least two slices of ten pictures or more have."""
    if not judged:
        return []
    first = next(iter(judged.values()))
    metric = "similarity" if "similarity" in first.scores else "token_f1"
    found: list[Slice] = []
    for trait, value_of in _TRAITS.items():
        values = [value_of(about, prompts[0]) for about, prompts in zip(pictures.metadata, pictures.references, strict=True)]
        rows = [value for value, count in Counter(values).items() if value and count >= _FEWEST]
        if len(rows) < 2:
            continue
        for value in sorted(rows, key=_order):
            chosen = np.array([one == value for one in values])
            units = Units([group for group, one in zip(judge.groups, values, strict=True) if one == value])
            estimates = {name: mean_estimates({metric: judgement.scores[metric][chosen]}, units)[metric] for name, judgement in judged.items()}
            found.append(Slice(trait, value, metric, estimates))
    return found


def _order(value: str) -> tuple[int, str]:
    number = value.split()[0].split("-")[0].rstrip("+")
    return (int(number) if number.isdecimal() else 0, value)


def _range(count: int, ends: Sequence[int], unit: str) -> str:
    begins = [0, *(end + 1 for end in ends)]
    for begin, end in zip(begins, ends, strict=False):
        if count <= end:
            return f"{begin}-{end} {unit}" if begin < end else f"{end} {unit}"
    return f"{begins[-1]}+ {unit}"


def _named(names: Sequence[str]) -> Callable[[Mapping[str, Any], str], str]:
    return lambda about, prompt: next((text for name in names if (text := str(about.get(name) or "").strip())), "")


_TRAITS: dict[str, Callable[[Mapping[str, Any], str], str]] = {
    "prompt length": lambda about, prompt: _range(sum(map(is_word, words(prompt))), _LENGTHS, "words"),
    "modifiers": lambda about, prompt: _range(len(parts(prompt)[1]), _MODIFIERS, "modifiers"),
    "source": _named(_SOURCE_NAMES),
    "generator": _named(_GENERATOR_NAMES),
}
