"""Weights of EfficientNets as the package efficientnet_pytorch, and those that took its names, call them, under timm's names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_BLOCK = re.compile(r"_blocks\.(\d+)\._(\w+?)\.(.+)")
_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_SEPARABLE = {"depthwise_conv": "conv_dw", "bn1": "bn1", "project_conv": "conv_pw", "bn2": "bn2"}
_EXPANDING = {"expand_conv": "conv_pw", "bn0": "bn1", "depthwise_conv": "conv_dw", "bn1": "bn2", "project_conv": "conv_pwl", "bn2": "bn3"}
_SQUEEZE = {"se_reduce": "se.conv_reduce", "se_expand": "se.conv_expand"}


def with_timm_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights, renamed if they are an EfficientNet's of that package, else as they are. What it has no name for keeps its own, and is
    refused by whoever loads them.

    Its blocks are counted through; timm counts those of a stage. A stage ends where the number of channels changes (arXiv 1905.11946, table 1).
    """
    if "_conv_stem.weight" not in weights:
        return dict(weights)
    places = _places(
        {int(found[1]): len(tensor) for name, tensor in weights.items() if (found := _BLOCK.fullmatch(name)) and found[2] == "project_conv"}
    )
    return {_renamed(name, places, weights): tensor for name, tensor in weights.items()}


def _places(channels: Mapping[int, int]) -> dict[int, str]:
    """From each block's number of channels its stage and its place there."""
    places, stage, place, before = dict[int, str](), -1, 0, None
    for block, number in sorted(channels.items()):
        stage, place = (stage, place + 1) if number == before else (stage + 1, 0)
        places[block], before = f"{stage}.{place}", number
    return places


def _renamed(name: str, places: Mapping[int, str], weights: Mapping[str, Tensor]) -> str:
    found = _BLOCK.fullmatch(name)
    if found is None:
        part, _, rest = name.partition(".")
        return f"{_OUTSIDE[part]}.{rest}" if part in _OUTSIDE else name
    block, part, rest = int(found[1]), found[2], found[3]
    parts = (_EXPANDING if f"_blocks.{block}._expand_conv.weight" in weights else _SEPARABLE) | _SQUEEZE
    return f"blocks.{places[block]}.{parts[part]}.{rest}" if block in places and part in parts else name
