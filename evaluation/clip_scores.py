"""CLIPScore: how well a text fits its picture, without references and with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from PIL import Image

from evaluation.overlap import References, Scores
from peers.clip import Clip

_BATCH = 64
_PREFIX = "A photo depicts "  # as the paper has it (section 3)
_SCALE = 2.5


class ClipScores:
    """CLIPScore and RefCLIPScore (Hessel et al., arXiv 2104.08718, section 3): 2.5 max(cos(text, picture), 0), and its harmonic mean with the largest
    max(cos(text, reference), 0)."""

    def __init__(self, clip: Clip, images: Iterable[Image.Image], references: References) -> None:
        """
        Args:
            images: of each of the references' lists one, read once.
        """
        self.clip = clip
        self.references = references
        self._images = self._embedded(images)
        texts = [prompt for prompts in references for prompt in prompts]
        each = self._texts(texts)
        ends = np.cumsum([len(prompts) for prompts in references])
        self._references = [each[end - len(prompts) : end] for end, prompts in zip(ends, references, strict=True)]

    def __call__(self, predictions: Sequence[str]) -> dict[str, Scores]:
        texts = self._texts(predictions)
        alone = _SCALE * (texts * self._images).sum(-1).clamp(min=0)
        nearest = torch.stack([(of_image @ text).max().clamp(min=0) for of_image, text in zip(self._references, texts, strict=True)])
        both = alone + nearest
        return {"clip_score": _numbers(alone), "ref_clip_score": _numbers(torch.where(both > 0, 2 * alone * nearest / both.clamp(min=1e-12), 0.0))}

    def _texts(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.cat([self.clip.of_texts([_PREFIX + text for text in texts[first : first + _BATCH]]) for first in range(0, len(texts), _BATCH)])

    def _embedded(self, images: Iterable[Image.Image]) -> torch.Tensor:
        found, waiting = [], list[Image.Image]()
        for image in images:
            waiting.append(image)
            if len(waiting) == _BATCH:
                found.append(self.clip.of_images(waiting))
                waiting = []
        return torch.cat([*found, self.clip.of_images(waiting)] if waiting else found)


def _numbers(values: torch.Tensor) -> Scores:
    return values.double().cpu().numpy()
