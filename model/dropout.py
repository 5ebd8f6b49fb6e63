"""Dropout that a CPU draws quickly.

PyTorch draws one number for each element from a sequential generator, which on a CPU takes longer than the attention it thins out. Here
each 64-bit draw decides about four elements.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def dropout(x: Tensor, probability: float) -> Tensor:
    """Zeros in the place of elements of `x`, each with this probability, the others divided by 1 - probability (JMLR 15:1929).

    On a CPU the probability is met to within 2^-17.
    """
    if probability == 0:
        return x
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, probability)
    draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    level = round(probability * 2**16) - 2**15
    kept = draws.view(torch.int16)[: x.numel()].view(x.shape) >= level
    return x * kept.to(x.dtype).mul_(1 / (1 - probability))


class Dropout(nn.Module):
    """`dropout` in training, nothing in evaluation."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.probability if self.training else 0.0)
