"""The loss as a module, so that wrappers for several processes see one forward call."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from data.loading.examples import Batch
from model import CaptionModel
from training.networks import Network


class CaptionLoss(nn.Module):
    """`forward` gives the summed loss of a batch; the training loop divides by the token count of the whole update.

    With `from_features` the images come as what the encoder's timm model made of them, computed beforehand.
    """

    def __init__(self, model: Network, *, from_features: bool = False) -> None:
        super().__init__()
        if from_features and not isinstance(model, CaptionModel):
            raise TypeError("a network of transformers takes pictures, not features")
        self.model = model
        self.from_features = from_features

    def forward(self, images: Tensor, input_ids: Tensor, labels: Tensor, pictures: Tensor | None = None) -> Tensor:
        if self.from_features and isinstance(self.model, CaptionModel):
            return self.model.summed_loss_on(self.model.encoder.project(images), input_ids, labels, pictures)
        return self.model.summed_loss(images, input_ids, labels, pictures)


def any_sizes(batch: Batch) -> None:
    """For torch.compile: how long the texts are differs from batch to batch, and how many pictures there are where captions share them."""
    for tensor in (batch.input_ids, batch.labels):
        torch._dynamo.mark_dynamic(tensor, 1)
    if batch.pictures is not None:
        torch._dynamo.maybe_mark_dynamic(batch.images, 0)
