"""BLIP, BLIP-2 and GIT as their documentation uses them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from data.errors import MissingExtraError
from evaluation.captioners import About, Caption, CaptionerError, as_confidence
from model import CheckpointError
from peers import Kind, PeerCaptioner

ASSETS = Path(__file__).resolve().parents[2] / "assets"
# by name: kind, and directory or Hub id
MODELS: dict[str, tuple[Kind, str]] = {
    "blip": ("blip", "Salesforce/blip-image-captioning-base"),
    "blip-large": ("blip", "Salesforce/blip-image-captioning-large"),
    "git": ("git", "microsoft/git-base-coco"),
    "git-large": ("git", "microsoft/git-large-coco"),
    "blip2": ("blip-2", "Salesforce/blip2-opt-2.7b"),
    "mini-blip": ("blip", str(ASSETS / "mini-blip")),
    "mini-git": ("git", str(ASSETS / "mini-git")),
}


class HuggingFace:
    """One of them, searching with the comparison's beams and length."""

    def __init__(
        self, name: str, source: str, *, num_beams: int, max_new_tokens: int, device: torch.device | str, dtype: torch.dtype = torch.float32
    ) -> None:
        """
        Args:
            name: one of `MODELS`.
            source: another directory or Hub id; "" for its own.

        Raises:
            CaptionerError: transformers is not installed, or the model cannot be loaded; says how to get it.
        """
        kind, own = MODELS[name]
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
        self.arguments: dict[str, Any] = {"num_beams": num_beams, "max_new_tokens": max_new_tokens}
        network = self.captioner.network
        self.about = About(
            source=source,
            fingerprint=self.captioner.fingerprint(),
            precision=str(dtype).removeprefix("torch."),
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            settings=self.arguments,
        )

    def caption(self, images: Sequence[Image.Image]) -> list[Caption]:
        return [Caption(texts[0].text, as_confidence(texts[0].log_prob)) for texts in self.captioner.write(images, **self.arguments)]
