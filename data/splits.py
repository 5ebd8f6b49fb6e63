"""Which split a prompt belongs to, decided by a hash of its group, so that adding data later never moves a prompt; and what its words are."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "validation": "val",
    "valid": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}  # of directories, columns and data sets that people have divided themselves
SPLIT_RULE = "sha256(prompt_group) mod 100: below 5 test, below 10 val, else train"

_HELD_OUT_SHARE = 0.05  # of each of val and test

_Ranges = tuple[tuple[int, int], ...]
_WEIGHT = re.compile(r":\s*\d*\.?\d+\s*(?=[)\]])")
_WORD = re.compile(r"\w+", re.ASCII)
# What is written without spaces between words, as ranges of code points: Chinese and Japanese are taken by pairs of characters, as search engines do,
# and Thai, Lao, Burmese, Khmer and the Tai scripts, whose alphabets are small, by threes.
_PAIRS: _Ranges = ((0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3040, 0x312F), (0x31A0, 0x31BF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF))
_PAIRS += ((0xF900, 0xFAFF), (0x1B000, 0x1B16F), (0x20000, 0x3FFFD))
_THREES = ((0x0E01, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x1950, 0x19FF), (0x1A20, 0x1AAF), (0xA9E0, 0xA9FF), (0xAA60, 0xAADF))
_FLAGS = ((0x1F1E6, 0x1F1FF),)  # letters, two of which are a flag
_EMOJI = ((0x2300, 0x23FF), (0x2600, 0x27BF), (0x2900, 0x2BFF), (0x1F000, 0x1FAFF))  # the symbols in them; rules and boxes are elsewhere
_UNSEEN = re.compile("[\u00ad\u200c-\u200f\u202a-\u202e\u2060\u2120\u2122\ufe00-\ufe0f\ufeff\U000e0000-\U000e01ef]")  # joiners, directions, (TM)
_RUN = re.compile("(p+)|(t+)|w+|ff|e|f")  # of kinds


def prompt_group(prompt: str) -> str:
    """One name for a prompt and its near-duplicates: the same words whatever their order, case, weights and punctuation."""
    return hashlib.sha256(" ".join(sorted(words_of(prompt))).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def words_of(prompt: str) -> frozenset[str]:
    """The words of a prompt whatever their order, number, case, weights, punctuation, width and way of writing an accent (Unicode's NFKC).

    Where a script does not separate words, the pairs (Chinese, Japanese) or threes (Thai, Lao, Burmese, Khmer) of neighbouring characters stand for
    them. An emoji is a word.
    """
    if prompt.isascii():  # most are; and the names of their groups are in data sets that exist
        return frozenset(_WORD.findall(_WEIGHT.sub("", prompt).casefold()))
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", _UNSEEN.sub("", prompt)).casefold())
    text = _WEIGHT.sub("", text)
    words = set[str]()
    for run in _RUN.finditer(text.translate(_KINDS)):
        found, size = text[run.start() : run.end()], 2 if run[1] else 3 if run[2] else len(run[0])
        words.update(found[i : i + size] for i in range(max(1, len(found) - size + 1)))
    return frozenset(words)


def group_of(prompt: str, metadata: Mapping[str, Any]) -> str:
    """The group that a pair says its prompt belongs to, or else the prompt's own."""
    said = metadata.get("prompt_group")
    return said if isinstance(said, str) and said else prompt_group(prompt)


def split_of(group: str) -> Split:
    """90 % of the groups are for training, 5 % each for validation and test (`SPLIT_RULE`)."""
    part = _place(group) % 100
    return "test" if part < 5 else "val" if part < 10 else "train"


def _place(group: str) -> int:
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big")


def divided(groups: Sequence[str], said: Sequence[Split | None], missing: Collection[Split]) -> list[Split]:
    """The split of each pair of train, out of which the splits `missing` (val, test or both) are carved: the one that the pair says, else the one of
    its group's hash. A split that stays empty so, with few groups, is given those with the lowest hashes of the largest one: 5 % of them, or one.
    What pairs say to be val or test is not touched.

    Args:
        groups, said: of each pair.

    Raises:
        ValueError: there are not groups enough.
    """
    where = [part_of(group, own, missing) for group, own in zip(groups, said, strict=True)]
    share = max(1, round(_HELD_OUT_SHARE * len(set(groups))))
    for split in (*missing, "train"):
        if split in where:
            continue
        free: dict[Split, set[str]] = {part: set() for part in SPLITS}
        for group, own, part in zip(groups, said, where, strict=True):
            if own not in ("val", "test"):
                free[part].add(group)
        largest = max(SPLITS, key=lambda part: len(free[part]))
        able = sorted(free[largest], key=_place)
        if len(able) == 1:
            wanted = " and ".join(("train", *missing))
            raise ValueError(f"{len(set(groups))} different prompts are too few for {wanted}: each wants one of its own")
        moved = set(able[: min(share, len(able) - 1)]) if able else set()
        where = [
            split if part == largest and group in moved and own not in ("val", "test") else part
            for group, own, part in zip(groups, said, where, strict=True)
        ]
    return where


def part_of(group: str, said: Split | None, missing: Collection[Split]) -> Split:
    """Where a pair of train belongs, of which the splits `missing` are carved out: to what it says itself, or else to what its group's hash says."""
    wanted = said if said is not None else split_of(group)
    return wanted if wanted in missing else "train"


def declared_split(name: Any) -> Split | None:
    """The split that a directory's name, or a value in a column `split`, means; None for others."""
    return SPLIT_NAMES.get(name.casefold()) if isinstance(name, str) else None


def split_in_path(path: str) -> Split | None:
    """What the directories of a relative path declare, the outermost first."""
    return next((split for part in PurePosixPath(path).parts[:-1] if (split := declared_split(part)) is not None), None)


class _Kinds(dict[int, str]):
    """A letter for every character, found when it is first met: p and t of scripts that do not separate words (by pairs, by threes), f half a flag,
    e an emoji, w of a word, a space what is between words. (`re` knows no Unicode categories, and its \\w stops at the vowel signs of Hindi.)"""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        if category[0] in "LMN" or character == "_":
            kind = "p" if _within(code, _PAIRS) else "t" if _within(code, _THREES) else "w"
        else:
            kind = "f" if _within(code, _FLAGS) else "e" if category in ("So", "Sk") and _within(code, _EMOJI) else " "
        return self.setdefault(code, kind)


def _within(code: int, ranges: _Ranges) -> bool:
    return any(first <= code <= last for first, last in ranges)


_KINDS = _Kinds()
