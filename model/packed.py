"""Weight matrices in the layout that the CPU's kernels want, beside the one that training and checkpoints know.

PyTorch hands a plain weight to the matrix library anew in every call, which rearranges it block by block; oneDNN takes it arranged
beforehand. torch.compile does the same when it freezes a model, but needs a C++ compiler.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PackedWeight:
    """The arranged copy of a weight of this precision, made when it is first needed and again when the weight has changed."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._packed: Tensor | None = None
        self._made_from: tuple[int, int] | None = None

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """As `F.linear`: (..., I), (O, I), (O,) -> (..., O). It is `F.linear` with gradients, under autocast, in other
        precisions and off the CPU."""
        plain = torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or weight.is_inference()  # the last: its changes are not counted
        if plain or weight.device.type != "cpu" or not x.dtype == weight.dtype == self.dtype:
            return F.linear(x, weight, bias)
        made_from = (weight.data_ptr(), weight._version)
        if self._made_from != made_from:
            self._packed, self._made_from = torch.ops.mkldnn._reorder_linear_weight(weight), made_from
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, bias, "none", [], "")
        return result

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles arrange the weight for themselves."""
        return {"dtype": self.dtype, "_packed": None, "_made_from": None}


class PackedLinear(nn.Linear):
    """`nn.Linear` with the same parameters and a `PackedWeight`."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.training = linear.training
        self._arranged = PackedWeight(linear.weight.dtype)

    def forward(self, input: Tensor) -> Tensor:
        return self._arranged.linear(input, self.weight, self.bias)


def can_pack(dtype: torch.dtype) -> bool:
    """Whether this machine's oneDNN multiplies packed weights of this precision."""
    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():
        return False
    try:
        with torch.no_grad():
            PackedWeight(dtype).linear(torch.zeros(1, 16, dtype=dtype), torch.zeros(16, 16, dtype=dtype), None)
    except (AttributeError, RuntimeError):  # an older PyTorch, or a processor without bfloat16
        return False
    return True


def pack_linears(module: nn.Module) -> None:
    """Put a `PackedLinear` in the place of every `nn.Linear` inside `module`."""
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            setattr(module, name, PackedLinear(child))
        else:
            pack_linears(child)
