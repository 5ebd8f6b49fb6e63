"""A table of probabilities in place of a network, for the tests of searching and sampling."""

import torch
from torch import Tensor

from model.decoding import TextRules

BOS, EOS, CPU = 0, 1, torch.device("cpu")


class Table:
    """Hypotheses whose next-token log-probabilities depend on image, place and last token, drawn once."""

    def __init__(self, images: int, vocabulary: int, length: int, seed: int) -> None:
        logits = torch.randn(images, length, vocabulary, vocabulary, generator=torch.Generator().manual_seed(seed)) * 1.5
        logits[..., BOS] = -30.0
        self.table = logits.log_softmax(-1)
        self.images = torch.arange(images)
        self.place = 0

    def step(self, tokens: Tensor) -> Tensor:
        image = self.images.repeat_interleave(len(tokens) // len(self.images))
        self.place += tokens.shape[1]
        return self.table[image, self.place - 1, tokens[:, -1]]

    def select(self, rows: Tensor, images: Tensor | None) -> None:
        if images is not None:
            self.images = self.images[images]


def rules(length: int, **changes: object) -> TextRules:
    return TextRules(**({"start": (BOS,), "eos": EOS, "max_new_tokens": length} | changes))  # type: ignore[arg-type]
