"""What makes a report checkable: on what it was measured, with what, and how to do it again."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from data.sources.held_out import HeldOutPictures

_LIBRARIES = ("reprompt", "torch", "timm", "transformers", "sentence-transformers", "pycocoevalcap", "pillow", "numpy", "scipy")


def provenance(pictures: HeldOutPictures, *, data: str, split: str, splits: str = "", settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """
    Args:
        data: what was given as --data.
        splits: what was done to it to have splits; empty where it declares them.
        settings: of the comparison, its seed among them.
    """
    return {
        "data": {
            "source": data,
            "split": split,
            "splits": splits or "as the data declares them",
            "fingerprint": pictures.fingerprint(),
            "pictures": len(pictures),
            "references": sum(map(len, pictures.references)),
            "groups": len(set(pictures.groups)),
            "left_out": dict(pictures.unread),
        },
        "settings": dict(settings or {}),
        "versions": {"python": platform.python_version(), **{name: found for name in _LIBRARIES if (found := _version(name)) is not None}},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads",
        "command": " ".join(sys.argv),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
