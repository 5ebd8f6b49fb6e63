"""One place decides the precision of a device."""

from __future__ import annotations

import platform
from collections.abc import Iterator

import pytest
import torch

from core import device as devices
from core.device import autocast, compute_precision, multiplies_in, weights_precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A processor of which each test says what it can do."""
    devices._cpu_multiplies_in.cache_clear()
    devices._warn_of_emulation.cache_clear()
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    yield monkeypatch
    devices._cpu_multiplies_in.cache_clear()
    devices._warn_of_emulation.cache_clear()


def can(cpu: pytest.MonkeyPatch, *, onednn: bool = False, avx512_bf16: bool = False, amx: bool = False, float16: bool = False) -> None:
    cpu.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
    cpu.setattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", lambda: float16)
    cpu.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    cpu.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)


@pytest.mark.parametrize(
    ("abilities", "machine", "expected"),
    [
        ({}, "x86_64", False),  # AVX2 alone
        ({"avx512_bf16": True}, "x86_64", False),  # hidden by ONEDNN_MAX_CPU_ISA=AVX2
        ({"onednn": True}, "x86_64", False),  # AVX-512 without its BF16 instructions: oneDNN converts, 4 times slower than float32
        ({"onednn": True, "avx512_bf16": True}, "AMD64", True),
        ({"onednn": True, "amx": True}, "x86_64", True),
        ({"onednn": True}, "aarch64", True),  # where oneDNN looks for the instructions itself
        ({}, "arm64", False),
    ],
)
def test_a_cpu_computes_in_bfloat16_only_where_it_multiplies_in_it(
    cpu: pytest.MonkeyPatch, abilities: dict[str, bool], machine: str, expected: bool
) -> None:
    can(cpu, **abilities)
    cpu.setattr(platform, "machine", lambda: machine)
    assert multiplies_in(torch.bfloat16, CPU) == expected
    chosen = compute_precision(CPU)
    assert chosen.dtype == (torch.bfloat16 if expected else torch.float32)
    assert ("only emulates" in chosen.reason) != expected
    assert chosen.is_half == expected
    with autocast(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == chosen.dtype
    assert weights_precision(CPU).dtype == torch.float32  # one prompt for an image on every CPU


@pytest.mark.parametrize("name", ["bf16", "fp16", "bfloat16", torch.float16])
def test_an_emulated_precision_is_obeyed_after_one_warning(cpu: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str) -> None:
    can(cpu)
    half = torch.bfloat16 if "b" in str(name).removeprefix("torch.")[:1] else torch.float16
    for _ in range(3):
        assert compute_precision(CPU, name).dtype == half
        assert weights_precision(CPU, name).dtype == half
    assert capsys.readouterr().err.count("only emulates") == 1


def test_what_the_cpu_has_or_was_not_asked_for_warns_of_nothing(cpu: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    can(cpu, onednn=True, amx=True, float16=True)
    assert compute_precision(CPU, "bf16").dtype == torch.bfloat16
    assert compute_precision(CPU, "fp16").dtype == torch.float16
    can(cpu)
    assert compute_precision(CPU, "fp32").dtype == torch.float32
    assert weights_precision(CPU, "float64").dtype == torch.float64
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("has_bfloat16", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_on_a_gpu_weights_are_bfloat16_where_it_has_it(cpu: pytest.MonkeyPatch, has_bfloat16: bool, expected: torch.dtype) -> None:
    cpu.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: has_bfloat16 or including_emulation)
    assert weights_precision(CUDA).dtype == expected
    assert compute_precision(CUDA).dtype == torch.bfloat16  # autocast; as before


def test_unknown_names_are_refused(cpu: pytest.MonkeyPatch) -> None:
    for asked in ("int8", "half", torch.int8):
        with pytest.raises(ValueError, match="dtype must be 'auto', 'bfloat16'"):
            weights_precision(CPU, asked)
