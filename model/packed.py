"""Weight matrices in the layout that the CPU's kernels want, instead of the one that training and checkpoints know.

PyTorch hands a plain weight to the matrix library anew in every call, which rearranges it block by block; oneDNN takes it arranged
beforehand. torch.compile does the same when it freezes a model, but needs a C++ compiler.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def pack(weight: Tensor) -> Tensor:
    """(O, I) -> the same, arranged; only `packed_linear` and `Tensor.to_dense` know how to read it."""
    with torch.inference_mode(False), torch.no_grad():
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach())
        return packed


def packed_linear(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    """(..., I), packed (O, I), (O,) -> (..., O). No gradients."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return result


def fits(x: Tensor, packed: Tensor) -> bool:
    """Whether `packed_linear` may be asked for this: nobody wants gradients, and the precisions agree."""
    return not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu") and x.dtype == packed.dtype and x.device.type == "cpu"


def can_pack(dtype: torch.dtype) -> bool:
    """Whether this machine's oneDNN multiplies packed weights of this precision."""
    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():
        return False
    try:
        with torch.no_grad():
            packed_linear(torch.zeros(1, 16, dtype=dtype), pack(torch.zeros(16, 16, dtype=dtype)), None)
    except (AttributeError, RuntimeError):  # an older PyTorch, or a processor without bfloat16
        return False
    return True


class PackedLinear(nn.Linear):
    """`nn.Linear` that holds its weight packed. Whatever else than writing text is done with it unpacks it again for good: gradients,
    autocast, another precision or device, loading. Copies, pickles and state dicts hold the plain weight.

    Meanwhile `weight` is an empty tensor of its shape on the meta device: call `train()` before giving the parameters to an optimizer.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.training = linear.training
        self._packed: Tensor | None = None
        self.pack()

    def pack(self) -> None:
        if self._packed is None and can_pack(self.weight.dtype):
            self._packed = pack(self.weight)
            self.weight = nn.Parameter(torch.empty_like(self.weight, device="meta"), self.weight.requires_grad)

    def unpack(self) -> None:
        if self._packed is not None:
            self.weight, self._packed = self._plain(self._packed), None

    def _plain(self, packed: Tensor) -> nn.Parameter:
        with torch.inference_mode(False):
            return nn.Parameter(packed.to_dense(), self.weight.requires_grad)

    def forward(self, input: Tensor) -> Tensor:
        if self._packed is not None and fits(input, self._packed):
            return packed_linear(input, self._packed, self.bias)
        if self._packed is not None and torch.is_grad_enabled() and self.weight.requires_grad:
            warnings.warn("packed weights are unpacked for gradients; an optimizer must be made after model.train()", stacklevel=2)
        self.unpack()
        return F.linear(input, self.weight, self.bias)

    def train(self, mode: bool = True) -> PackedLinear:
        if mode:
            self.unpack()
        super().train(mode)
        return self

    def _apply(self, *arguments: Any, **options: Any) -> Any:
        self.unpack()
        return super()._apply(*arguments, **options)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self._packed is not None:
            destination[prefix + "weight"] = self._plain(self._packed).detach()

    def _load_from_state_dict(self, *arguments: Any, **options: Any) -> None:
        self.unpack()
        super()._load_from_state_dict(*arguments, **options)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if self._packed is not None:
            state |= {"_parameters": {**self._parameters, "weight": self._plain(self._packed)}, "_packed": None}
        return state


class PackedCopy:
    """A packed copy beside a plain weight that others read too, such as an embedding; made anew when the weight has changed."""

    def __init__(self) -> None:
        self._packed: Tensor | None = None
        self._made_from: tuple[int, int] | None = None

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """As `F.linear`: (..., I), (O, I), (O,) -> (..., O)."""
        if weight.is_inference() or not fits(x, weight):  # changes of inference tensors are not counted
            return F.linear(x, weight, bias)
        made_from = (weight.data_ptr(), weight._version)
        if self._packed is None or self._made_from != made_from:
            self._packed, self._made_from = pack(weight), made_from
        return packed_linear(x, self._packed, bias)

    def __getstate__(self) -> dict[str, Any]:
        return {"_packed": None, "_made_from": None}


def pack_linears(module: nn.Module) -> None:
    """Put a `PackedLinear` in the place of every `nn.Linear` inside `module`."""
    for name, child in module.named_children():
        if isinstance(child, PackedLinear):
            child.pack()
        elif type(child) is nn.Linear:
            setattr(module, name, PackedLinear(child))
        else:
            pack_linears(child)
