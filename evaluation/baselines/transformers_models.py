"""BLIP, BLIP-2 and GIT as their documentation uses them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from data.errors import MissingExtraError
from evaluation.captioners import About, Caption, CaptionerError
from model import CheckpointError
from peers import Kind, PeerCaptioner

ASSETS = Path(__file__).resolve().parents[2] / "assets"
OURS = {"num_beams": 4, "max_new_tokens": 40}  # of what was trained on prompts
_BLIP = {"num_beams": 3, "min_new_tokens": 5, "max_new_tokens": 20}  # captioning in its authors' code
_BLIP2 = {"num_beams": 5, "max_new_tokens": 30}  # the same
_GIT = {"num_beams": 1, "max_new_tokens": 50}  # its documentation in transformers
# by name: kind, directory or Hub id, and how those who published it have it write
MODELS: dict[str, tuple[Kind, str, dict[str, int]]] = {
    "blip": ("blip", "Salesforce/blip-image-captioning-base", _BLIP),
    "blip-large": ("blip", "Salesforce/blip-image-captioning-large", _BLIP),
    "git": ("git", "microsoft/git-base-coco", _GIT),
    "git-large": ("git", "microsoft/git-large-coco", _GIT),
    "blip2": ("blip-2", "Salesforce/blip2-opt-2.7b", _BLIP2),
    "mini-blip": ("blip", str(ASSETS / "mini-blip"), OURS),
    "mini-git": ("git", str(ASSETS / "mini-git"), OURS),
}


class HuggingFace:
    """One of them. By default it searches as its authors have it, or from another source, which may be trained on prompts, as ours does."""

    def __init__(
        self,
        name: str,
        source: str,
        *,
        device: torch.device | str,
        num_beams: int | None = None,
        max_new_tokens: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """
        Args:
            name: one of `MODELS`.
            source: another directory or Hub id; "" for its own.
            num_beams, max_new_tokens: None for the default.

        Raises:
            CaptionerError: transformers is not installed, or the model cannot be loaded; says how to get it.
        """
        kind, own, published = MODELS[name]
        usual = OURS if source else published
        source = source or own
        if not Path(source).exists() and source.count("/") != 1:
            raise CaptionerError(f"{source} is neither a directory nor a Hub id")
        try:
            self.captioner = PeerCaptioner.load(kind, source, device)
        except MissingExtraError as error:
            raise CaptionerError(str(error)) from error
        except CheckpointError as error:
            way = f"hf download {source} --local-dir DIR" if not Path(source).exists() else "copy it again, whole"
            raise CaptionerError(
                f"{error}\nIt is fetched from the Hub the first time. To have it without a network: {way}, then --baseline {name}=DIR"
            ) from error
        self.captioner.network.to(dtype)
        given = {"num_beams": num_beams, "max_new_tokens": max_new_tokens}
        self.arguments: dict[str, Any] = usual | {name: value for name, value in given.items() if value is not None}
        if max_new_tokens is not None and max_new_tokens < self.arguments.get("min_new_tokens", 0):
            self.arguments["min_new_tokens"] = max_new_tokens
        network = self.captioner.network
        self.about = About(
            source=source.removeprefix(f"{ASSETS.parent}{os.sep}"),
            fingerprint=self.captioner.fingerprint(),
            precision=str(dtype).removeprefix("torch."),
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            settings=self.arguments,
        )

    def caption(self, images: Sequence[Image.Image]) -> list[Caption]:
        sure = self.captioner.confidence
        best = [texts[0] for texts in self.captioner.write(images, **self.arguments)]
        return [Caption(one.text, sure.of_text(sure.without_smoothing(one.log_probs))) for one in best]
