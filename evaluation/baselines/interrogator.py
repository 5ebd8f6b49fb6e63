"""A caption with phrases from lists chained onto it, each the one that fits the picture best by CLIP: what clip-interrogator made popular."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from data.errors import MissingExtraError
from evaluation.captioners import About, Caption, Captioner, CaptionerError
from evaluation.config import InterrogatorConfig
from peers.clip import Clip, ClipError

_AT_ONCE = 256  # texts that are embedded together


class Interrogator:
    """The best of what it tried: the caption alone, or any prefix of its chain (`Interrogator.chain` of clip-interrogator 0.6)."""

    def __init__(self, clip_source: str, captioner: Captioner, config: InterrogatorConfig) -> None:
        """
        Args:
            clip_source: a directory or Hub id of a CLIP or SigLIP.

        Raises:
            CaptionerError: the CLIP or the lists cannot be had.
        """
        self.config = config
        self.captioner = captioner
        self.phrases = _read_lists(config.lists)
        try:
            self.clip = Clip(clip_source)
        except (ClipError, MissingExtraError) as error:
            raise CaptionerError(
                f"{error}\nTo have it without a network: hf download {clip_source} --local-dir DIR, then --baseline interrogator=DIR"
            ) from error
        self._embedded = self._texts(self.phrases)
        listed = hashlib.sha256("\n".join(self.phrases).encode()).hexdigest()[:16]
        self._about = About(
            source=f"{clip_source}, {len(self.phrases)} phrases, captions by {captioner.about.source}",
            fingerprint=f"{self.clip.fingerprint()} {listed} {captioner.about.fingerprint} {captioner.about.precision}",
            precision=str(self.clip.model.dtype).removeprefix("torch."),
            parameters=sum(parameter.numel() for parameter in self.clip.model.parameters()) + captioner.about.parameters,
            settings={"min_phrases": config.min_phrases, "max_phrases": config.max_phrases, "candidates": config.candidates}
            | dict(captioner.about.settings),
            batch_size=captioner.about.batch_size,
        )

    @property
    def about(self) -> About:
        return dataclasses.replace(self._about, cost=self.captioner.about.cost)

    def caption(self, images: Sequence[Image.Image]) -> list[Caption]:
        captions = self.captioner.caption(images)
        seen = self.clip.of_images(images)
        return [Caption(self.chain(picture, caption.text)) for picture, caption in zip(seen, captions, strict=True)]

    def chain(self, picture: torch.Tensor, caption: str) -> str:
        """
        Args:
            picture: (D,), embedded.
        """
        order = (self._embedded @ picture).argsort(descending=True, stable=True)[: self.config.candidates].tolist()
        left = [self.phrases[number] for number in order]
        best = current = caption
        best_fit = current_fit = float(self._texts([caption])[0] @ picture)
        for number in range(min(self.config.max_phrases, len(left))):
            longer = [f"{current}, {phrase}" for phrase in left]
            fits = self._texts(longer) @ picture
            place = int(fits.argmax())
            fit = float(fits[place])
            if fit > best_fit:
                best, best_fit = longer[place], fit
            if fit <= current_fit and number >= self.config.min_phrases:
                break
            current, current_fit = longer[place], fit
            if self._is_full(current):
                break
            del left[place]
        return best

    def _texts(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.cat([self.clip.of_texts(texts[first : first + _AT_ONCE]) for first in range(0, len(texts), _AT_ONCE)])

    def _is_full(self, text: str) -> bool:
        """Whether CLIP sees no more of a longer text."""
        tokenizer = self.clip.processor.tokenizer
        return len(tokenizer(text).input_ids) >= min(tokenizer.model_max_length, 10_000)


def _read_lists(directory: Path) -> list[str]:
    """Phrases of all lists, each once, in order."""
    files = sorted(directory.glob("*.txt")) if directory.is_dir() else []
    lines = [line.strip() for file in files for line in file.read_text(encoding="utf-8", errors="replace").splitlines()]
    phrases = list(dict.fromkeys(line for line in lines if line))
    if not phrases:
        raise CaptionerError(f"--interrogator.lists {directory}: no .txt file with a phrase on each line")
    return phrases
