"""Products with weight matrices, by the kernel that is quickest at writing text."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_NOTHING_MORE: tuple[Any, ...] = ("none", [], "")
_GELU: tuple[Any, ...] = ("gelu", [], "none")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, *, gelu: bool = False) -> Tensor:
    """As `F.linear`: (..., I), (O, I), (O,) -> (..., O), and with `gelu` as `F.gelu` of that.

    On a CPU oneDNN is called as it is: for float32 PyTorch calls MKL, which on some machines takes twice as long where the rows are few, as the next
    tokens of some beams are; and with `gelu` the product is not read again. It knows no gradients.
    """
    if not _is_for_onednn(x, weight):
        result = F.linear(x, weight, bias)
        return F.gelu(result) if gelu else result
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, *(_GELU if gelu else _NOTHING_MORE))
    return product


def _is_for_onednn(x: Tensor, weight: Tensor) -> bool:
    if x.device.type != "cpu" or x.dtype != weight.dtype or torch.is_grad_enabled():
        return False
    if torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return False
    return _has_onednn(x.dtype)


@cache
def _has_onednn(dtype: torch.dtype) -> bool:
    """Whether this build of PyTorch has the product for this processor, and it is right."""
    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():
        return False
    x, weight = torch.arange(-3, 3, dtype=dtype).view(2, 3), torch.arange(12, dtype=dtype).view(4, 3)
    try:
        if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        found = [torch.ops.mkldnn._linear_pointwise(x, weight, None, *then) for then in (_NOTHING_MORE, _GELU)]
    except (AttributeError, RuntimeError):  # another version of PyTorch
        return False
    product = x @ weight.T
    return all(torch.allclose(one, right, rtol=0.02) for one, right in zip(found, (product, F.gelu(product)), strict=True))


class Linear(nn.Linear):
    """`nn.Linear` by way of `linear`."""

    @classmethod
    def take_over(cls, module: nn.Module) -> None:
        """Make every plain `nn.Linear` inside `module` one of these. Nothing but its forward pass changes: weights stay where they are."""
        for child in module.modules():
            if type(child) is nn.Linear:
                child.__class__ = cls

    def forward(self, input: Tensor, *, gelu: bool = False) -> Tensor:
        return linear(input, self.weight, self.bias, gelu=gelu)
