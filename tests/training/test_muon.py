"""Muon in batches against timm's, which moves one matrix after another, and against the singular value decomposition."""

from __future__ import annotations

import copy
import functools

import pytest
import timm.optim.muon
import torch
from torch import Tensor, nn

from training.muon import COEFFICIENTS, BatchedMuon, orthogonal

SHAPES = [(24, 96), (24, 96), (96, 24), (24, 24), (24, 72), (16, 4, 3, 3), (12, 40)]


def groups_of(parameters: list[nn.Parameter]) -> list[dict[str, object]]:
    return [
        {"params": parameters[:-1], "lr": 0.02, "weight_decay": 0.1, "use_muon": True, "nesterov": True},
        {"params": parameters[-1:], "lr": 0.02, "weight_decay": 0.1, "use_muon": False, "nesterov": False},
    ]


def parameters_of(seed: int) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    found = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    found[5] = nn.Parameter(found[5].detach().to(memory_format=torch.channels_last))
    return found


def train(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(100 + step)
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        parameters[3].grad = None if step == 1 else parameters[3].grad  # a part that a batch does not reach
        optimizer.step()


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> type[torch.optim.Optimizer]:
    exact = functools.partial(timm.optim.muon.zeropower_via_newtonschulz, dtype=torch.float32)
    monkeypatch.setattr(timm.optim.muon, "zeropower_via_newtonschulz", exact)
    return timm.optim.muon.Muon


def test_it_moves_all_parameters_as_timms_does(theirs: type[torch.optim.Optimizer]) -> None:
    ours, others = parameters_of(0), parameters_of(0)
    train(BatchedMuon(groups_of(ours), dtype=torch.float32, betas=(0.9, 0.98), eps=1e-6), ours, range(4))
    train(theirs(groups_of(others), betas=(0.9, 0.98), eps=1e-6), others, range(4))  # type: ignore[call-arg]
    for one, other, shape in zip(ours, others, SHAPES, strict=True):
        torch.testing.assert_close(one, other, atol=3e-5, rtol=1e-4, msg=str(shape))
        assert one.stride() == other.stride()


def test_it_goes_on_from_the_state_of_timms(theirs: type[torch.optim.Optimizer]) -> None:
    """A run that was begun before is not lost."""
    ours, others = parameters_of(0), parameters_of(0)
    reference = theirs(groups_of(others))
    train(reference, others, range(2))
    with torch.no_grad():
        for one, other in zip(ours, others, strict=True):
            one.copy_(other)
    optimizer = BatchedMuon(groups_of(ours), dtype=torch.float32)
    optimizer.load_state_dict(copy.deepcopy(reference.state_dict()))
    train(optimizer, ours, range(2, 4))
    train(reference, others, range(2, 4))
    for one, other in zip(ours, others, strict=True):
        torch.testing.assert_close(one, other, atol=3e-5, rtol=1e-4)


@pytest.mark.parametrize("shape", [(32, 128), (32, 96), (48, 56), (20, 20), (16, 500)])
@pytest.mark.parametrize("condition", [1.0, 1e2, 1e5])
def test_in_float32_it_is_the_polynomial_of_the_singular_values(shape: tuple[int, int], condition: float) -> None:
    """By the decomposition: singular vectors stay, and the values go through the five polynomials, in float64."""
    generator = torch.Generator().manual_seed(1)
    left, _, right = torch.linalg.svd(torch.randn(2, *shape, generator=generator, dtype=torch.float64), full_matrices=False)
    values = torch.logspace(0, -torch.log10(torch.tensor(condition)).item(), shape[0], dtype=torch.float64).expand(2, -1)
    matrices = left @ torch.diag_embed(values) @ right
    x = values / values.norm(dim=-1, keepdim=True)
    for a, b, c in COEFFICIENTS:
        x = a * x + b * x**3 + c * x**5
    expected = left @ torch.diag_embed(x) @ right
    found = orthogonal(matrices.float(), 1e-7, torch.float32)
    assert found.dtype == torch.float32
    assert float((found - expected).norm() / expected.norm()) < 1e-3
    half = orthogonal(matrices.float(), 1e-7, torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert float((half - expected).norm() / expected.norm()) < 0.3


def test_wide_matrices_take_fewer_products_in_float32() -> None:
    """Counted in multiplications: 2 m^2 n + 17 m^3 instead of 5 (2 m^2 n + m^3)."""
    from torch.utils.flop_counter import FlopCounterMode

    def multiplications(dtype: torch.dtype) -> int:
        with FlopCounterMode(display=False) as counter:
            orthogonal(torch.randn(3, 32, 128), 1e-7, dtype)
        return int(counter.get_total_flops()) // 2

    assert multiplications(torch.float32) == 3 * (2 * 32 * 32 * 128 + 17 * 32**3)
    assert multiplications(torch.bfloat16) == 3 * 5 * (2 * 32 * 32 * 128 + 32**3)


def test_matrices_of_zeros_stay() -> None:
    zeros: Tensor = torch.zeros(2, 8, 32)
    assert torch.equal(orthogonal(zeros, 1e-7, torch.float32), zeros)
