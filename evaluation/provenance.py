"""What makes a report checkable: on what it was measured, with what, and how to do it again."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from data.errors import ImageError, PairError, ShardError
from data.sources.chosen import PairSource
from data.sources.held_out import HeldOutPictures

_LIBRARIES = ("reprompt", "torch", "timm", "transformers", "sentence-transformers", "pycocoevalcap", "pillow", "numpy", "scipy")


def provenance(
    pictures: HeldOutPictures,
    *,
    data: str,
    split: str,
    splits: str = "",
    training: Callable[[], PairSource] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """
    Args:
        data: what was given as --data.
        splits: what was done to it to have splits; empty where it declares them.
        training: opens the training pairs that came with the pictures, for the audit.
        settings: of the comparison, its seed among them.
    """
    return {
        "data": {
            "source": without_password(data),
            "split": split,
            "splits": splits or "as the data declares them",
            "fingerprint": pictures.fingerprint(),
            "pictures": len(pictures),
            "references": sum(map(len, pictures.references)),
            "groups": len(set(pictures.groups)),
            "left_out": dict(pictures.unread),
            "audit": audit(pictures, training),
        },
        "settings": dict(settings or {}),
        "versions": {"python": platform.python_version(), **{name: found for name in _LIBRARIES if (found := _version(name)) is not None}},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads",
        "command": without_password(" ".join([from_here(sys.argv[0]), *sys.argv[1:]])),
    }


def audit(pictures: HeldOutPictures, training: Callable[[], PairSource] | None) -> dict[str, Any] | str:
    """How many of the pictures have a prompt, but for case and space, or a group of prompts that training pairs have too: all of them are read.
    (`python -m data.audit` finds near-duplicates of prompts and pictures as well.)"""
    if training is None:
        return "not made"
    try:
        source = training()
    except ShardError as error:
        return f"there are no training pairs to compare with: {error}"
    known: set[str] = set()
    groups: set[str] = set()
    read = 0
    for number in tqdm(range(len(source)), "comparing with training prompts", unit="prompt", leave=False):
        try:
            known.add(_plain(source.prompt(number)))
            if (group := source.metadata(number).get("prompt_group")) is not None:
                groups.add(str(group))
            read += 1
        except (ImageError, PairError):
            continue
    return {
        "training_pairs": read,
        "pictures_with_a_training_prompt": sum(any(_plain(prompt) in known for prompt in prompts) for prompts in pictures.references),
        "pictures_of_a_training_group": sum(group in groups for group in pictures.groups),
    }


def from_here(source: str) -> str:
    """A path as one would type it here; other sources as they are."""
    path = Path(source)
    return str(path.relative_to(Path.cwd())) if path.is_absolute() and path.is_relative_to(Path.cwd()) else source


def without_password(text: str) -> str:
    """Without what stands before the host of a URL: https://user:secret@host -> https://***@host."""
    return re.sub(r"(?<=://)[^/\s]+(?=@)", "***", text)


def _plain(prompt: str) -> str:
    return " ".join(prompt.casefold().split())


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
