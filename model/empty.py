"""A network whose weights come from a file needs no random ones before: it is built without storage, and takes the file's tensors."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

_Module = TypeVar("_Module", bound=nn.Module)


def build_empty(build: Callable[[], _Module]) -> _Module | None:
    """What `build` gives, on PyTorch's meta device; None where loading its state dict would not fill all of it, since it holds more tensors than
    those (tables of positions, which timm computes where a model is built), or one in two places, or where it cannot be built so."""
    try:
        with torch.device("meta"):
            module = build()
        without_storage = _Tensors(module).without_storage
    except Exception:  # of whatever kind: built ordinarily, it will do, or say what is wrong
        return None
    state = {id(tensor) for tensor in module.state_dict(keep_vars=True).values()}
    return module if len(set(without_storage)) == len(without_storage) and state.issuperset(without_storage) else None


def own_copies(weights: Mapping[str, Tensor], module: nn.Module, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """What `module`, built empty, is to hold: as if `weights` were copied into tensors of its own, and those cast to `dtype` where they are floating
    point. Copies, since `weights` may be a file's pages in memory, which change when it is overwritten."""
    state, device = module.state_dict(), torch.get_default_device()

    def copy(name: str, tensor: Tensor) -> Tensor:
        own = state[name].dtype
        kind = dtype if dtype is not None and own.is_floating_point else own
        return tensor.detach().to(device, kind, copy=True, memory_format=torch.contiguous_format)

    return {name: copy(name, tensor) if name in state else tensor for name, tensor in weights.items()}


class _Tensors(pickle.Pickler):
    """Goes through all that a module holds, as saving it would: also what lies in its plain attributes, in lists and in other objects."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(io.BytesIO())
        self.without_storage: list[int] = []
        """One id for each place where there is such a tensor."""
        self.dump(module)

    def persistent_id(self, found: Any) -> str | None:
        if not isinstance(found, Tensor):
            return None
        if found.is_meta:
            self.without_storage.append(id(found))
        return "tensor"
