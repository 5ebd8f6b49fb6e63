"""What a device computes in: the one place that decides a precision, by what the device can do.

A half precision saves time where the processor has instructions for its products. Elsewhere PyTorch emulates them: bfloat16 is then up to 150 times
slower than float32 on CPUs without AVX-512, and about 4 times on those with AVX-512 but without its BF16 instructions.
"""

from __future__ import annotations

import platform
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache

import torch

_HALF = (torch.bfloat16, torch.float16)
_NAMES = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
    "float64": torch.float64,
}


@dataclass(frozen=True)
class Precision:
    """The type that a device multiplies in, and the reason for it in a few words."""

    dtype: torch.dtype
    reason: str

    @property
    def name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def is_half(self) -> bool:
        return self.dtype in _HALF

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"


def multiplies_in(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether a device has instructions for products in `dtype`, instead of emulating them in float32."""
    if dtype not in _HALF:
        return True
    if device.type == "cuda":
        return dtype == torch.float16 or bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type != "cpu" or _cpu_multiplies_in(dtype)


@cache
def _cpu_multiplies_in(dtype: torch.dtype) -> bool:
    """oneDNN says yes to bfloat16 on every x86 processor with AVX-512; only those with its BF16 instructions or AMX gain from it."""
    is_supported = torch.ops.mkldnn._is_mkldnn_bf16_supported if dtype == torch.bfloat16 else torch.ops.mkldnn._is_mkldnn_fp16_supported
    if not torch.backends.mkldnn.is_available() or not is_supported():
        return False
    if dtype == torch.float16 or platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def compute_precision(device: torch.device, asked: str = "auto") -> Precision:
    """What training and all that comes with it computes in on a device; weights stay float32.

    Args:
        asked: "auto", or a precision by name: "bf16", "fp16", "fp32" or torch's names. A name is obeyed; a CPU that emulates it costs a warning.

    Returns:
        For "auto" bfloat16 on GPUs and on CPUs that multiply in it, float32 on other CPUs.

    Raises:
        ValueError: no such precision.
    """
    if asked != "auto":
        return Precision(_named(asked, device), "as asked for")
    if device.type != "cpu":
        return Precision(torch.bfloat16, "usual on a GPU")
    if multiplies_in(torch.bfloat16, device):
        return Precision(torch.bfloat16, "this CPU multiplies in it")
    return Precision(torch.float32, "this CPU only emulates bfloat16")


def weights_precision(device: torch.device, asked: str | torch.dtype = "auto") -> Precision:
    """What a network that only reads and writes is held and computed in on a device.

    Args:
        asked: "auto", or a floating-point type or its name. A name is obeyed; a CPU that emulates it costs a warning.

    Returns:
        For "auto" float32 on every CPU, so that an image has the same prompt on all of them; on a GPU bfloat16, or float16 where it has no bfloat16.

    Raises:
        ValueError: no such type.
    """
    if asked != "auto":
        return Precision(_named(asked, device), "as asked for")
    if device.type == "cpu":
        return Precision(torch.float32, "the same prompts on every CPU")
    return Precision(torch.bfloat16 if multiplies_in(torch.bfloat16, device) else torch.float16, "usual on a GPU")


def autocast(device: torch.device, precision: Precision | None = None) -> AbstractContextManager[object]:
    """A context in which float32 networks multiply in `precision`, by default in what `compute_precision` says."""
    dtype = (precision or compute_precision(device)).dtype
    return torch.autocast(device.type, dtype if dtype in _HALF else None, enabled=dtype in _HALF)


def _named(asked: str | torch.dtype, device: torch.device) -> torch.dtype:
    dtype = asked if isinstance(asked, torch.dtype) else _NAMES.get(asked)
    if dtype not in _NAMES.values():
        raise ValueError(f"dtype must be 'auto', {', '.join(repr(name) for name in _NAMES if len(name) > 4)}, not {asked!r}")
    assert dtype is not None
    if not multiplies_in(dtype, device):
        _warn_of_emulation(dtype)
    return dtype


@cache
def _warn_of_emulation(dtype: torch.dtype) -> None:
    """Once a process."""
    name = str(dtype).removeprefix("torch.")
    print(
        f"Warning: this CPU only emulates {name}, which can take 4 to 150 times as long as float32. Leave the option out to compute in float32",
        file=sys.stderr,
    )
