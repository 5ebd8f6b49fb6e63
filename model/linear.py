"""Products with weight matrices, by the kernel that is quickest at writing text."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As `F.linear`: (..., I), (O, I), (O,) -> (..., O).

    For float32 on a CPU PyTorch calls MKL, which takes twice as long as oneDNN where the rows are few, as the next tokens of some beams are.
    oneDNN's product knows no gradients.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32 or weight.dtype != torch.float32 or torch.is_grad_enabled():
        return F.linear(x, weight, bias)
    if torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling() or not _has_onednn():
        return F.linear(x, weight, bias)
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


@cache
def _has_onednn() -> bool:
    """Whether this build of PyTorch has the product, and it is right."""
    if not torch.backends.mkldnn.is_available():
        return False
    x, weight = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(4, 3)
    try:
        return torch.equal(torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], ""), x @ weight.T)
    except (AttributeError, RuntimeError):  # another version of PyTorch
        return False


class Linear(nn.Linear):
    """`nn.Linear` by way of `linear`."""

    @classmethod
    def take_over(cls, module: nn.Module) -> None:
        """Make every plain `nn.Linear` inside `module` one of these. Nothing but its forward pass changes: weights stay where they are."""
        for child in module.modules():
            if type(child) is nn.Linear:
                child.__class__ = cls

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)
