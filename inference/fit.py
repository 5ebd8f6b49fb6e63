"""How well a prompt fits its image, by a network's own likelihood: what tells a pair from a prompt beside the wrong image.

fit = (log p(prompt | image) - log p(prompt)) / tokens, where p(prompt) is the mean over some other images. It is the pointwise mutual information of
image and prompt per token: above 0 the image makes the prompt likelier than others do. As in CapFilt (BLIP, arXiv 2201.12086, section 3.3), a model
trained on noisy pairs then says which of them are noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from data.images import to_rgb
from data.loading.examples import Collate, Example, TextFormat
from inference.inverter import PromptInverter
from model import IGNORED_LABEL
from model.cache import PrefixCache

REFERENCES = 8


class PromptFit:
    """Scores pairs beside a fixed set of other images."""

    def __init__(self, inverter: PromptInverter, references: Sequence[Image.Image], groups: Sequence[str]) -> None:
        """
        Args:
            references: images that stand for any other; nine drawn from the same data will do.
            groups: of each its group of prompts, no two alike.

        Raises:
            ValueError: not two images of different groups.
        """
        if len(references) < 2 or len(set(groups)) < len(references):
            raise ValueError("two images or more are needed to compare with, each of another group")
        self._groups = list(groups)
        self.inverter = inverter
        model, tokenizer = inverter.pytorch_model(), inverter.tokenizer
        self._text = TextFormat(tokenizer.encode, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, model.config.max_text_tokens)
        self._collate = Collate(tokenizer.pad_id, IGNORED_LABEL)
        self._references = [self._prefix(image) for image in references]  # whose keys and values all texts share

    @torch.inference_mode()
    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str], groups: Sequence[str]) -> list[float]:
        """The fit of each image and prompt, natural log per token: beside the first eight references that are not of its own group.

        Raises:
            NotFiniteError: the network computed no numbers.
        """
        pixels = self.inverter.preprocess.pixels
        batch = self._collate([Example(pixels(to_rgb(image)), self._text(prompt)) for image, prompt in zip(images, prompts, strict=True)])
        model = self.inverter.pytorch_model()
        input_ids, labels = batch.input_ids.to(model.device), batch.labels.to(model.device)
        own = model.log_likelihood_on(self._encoded(batch.images), input_ids, labels)
        others = torch.stack([model.log_likelihood_on(one, input_ids, labels) for one in self._references])
        # a pair is not compared with itself, which would make it fit no better than others
        stand = torch.tensor([[own != group for group in groups] for own in self._groups], device=others.device)
        stand &= stand.cumsum(0) <= REFERENCES
        alone = others.masked_fill(~stand, float("-inf")).logsumexp(0) - stand.sum(0).log()
        tokens = (labels != IGNORED_LABEL).sum(1).clamp(min=1)
        return ((own - alone) / tokens).tolist()

    @torch.inference_mode()
    def _prefix(self, image: Image.Image) -> PrefixCache:
        return self._encoded(self.inverter.preprocess.pixels(to_rgb(image))[None])

    def _encoded(self, pixels: Tensor) -> PrefixCache:
        """(B, 3, H, W) uint8 -> the keys and values of B images."""
        model = self.inverter.pytorch_model()
        tokens = model.encoder(self.inverter.preprocess.normalise(pixels.to(model.device)).to(model.dtype))
        return model.decoder.prefix(tokens)
