"""The loss as a module, so that wrappers for several processes see one forward call."""

from __future__ import annotations

from torch import Tensor, nn

from model import CaptionModel


class CaptionLoss(nn.Module):
    """`forward` gives the summed loss of a batch; the training loop divides by the token count of the whole step."""

    def __init__(self, model: CaptionModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor, input_ids: Tensor, labels: Tensor) -> Tensor:
        return self.model.summed_loss(pixel_values, input_ids, labels)
