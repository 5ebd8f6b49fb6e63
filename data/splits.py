"""Which split a prompt belongs to, decided by a hash of its group, so that adding data later never moves a prompt."""

from __future__ import annotations

import hashlib
import re
from typing import Literal

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
SPLIT_RULE = "sha256(prompt_group) mod 100: below 5 test, below 10 val, else train"

_WEIGHT = re.compile(r":\s*\d*\.?\d+\s*(?=[)\]])")
_WORD = re.compile(r"\w+", re.UNICODE)


def prompt_group(prompt: str) -> str:
    """One name for a prompt and its near-duplicates: the same words whatever their order, case, weights and punctuation."""
    return hashlib.sha256(" ".join(sorted(words_of(prompt))).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def words_of(prompt: str) -> frozenset[str]:
    """The words of a prompt whatever their order, number, case, weights and punctuation."""
    return frozenset(_WORD.findall(_WEIGHT.sub("", prompt).casefold()))


def split_of(group: str) -> Split:
    """90 % of the groups are for training, 5 % each for validation and test (`SPLIT_RULE`)."""
    part = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") % 100
    return "test" if part < 5 else "val" if part < 10 else "train"
