"""`linear` against PyTorch's own, whatever happens to the weight in between."""

import itertools
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.linear import Linear, _has_onednn, linear


@pytest.mark.parametrize("shape", [(1, 24), (7, 24), (3, 5, 24), (0, 24)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("gelu", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_it_computes_what_pytorch_computes(shape: tuple[int, ...], bias: bool, gelu: bool, dtype: torch.dtype) -> None:
    wide = torch.randn(*shape[:-1], 48, dtype=dtype)
    for x in (wide[..., :24].contiguous(), wide[..., ::2]):  # the second is not contiguous
        for weight in (torch.randn(40, 24, dtype=dtype), torch.randn(24, 40, dtype=dtype).T, torch.randn(40, 48, dtype=dtype)[:, ::2]):
            added = torch.randn(40, dtype=dtype) if bias else None
            expected = F.linear(x.double(), weight.double(), added.double() if added is not None else None)
            expected = torch.special.ndtr(expected) * expected if gelu else expected
            tolerance = {"atol": 0.05, "rtol": 2e-2} if dtype == torch.bfloat16 else {"atol": 1e-5, "rtol": 1e-5}
            with torch.inference_mode():
                torch.testing.assert_close(linear(x, weight, added, gelu=gelu), expected.to(dtype), **tolerance)


def test_gradients_and_autocast_are_pytorchs() -> None:
    layer, plain = Linear(8, 6), nn.Linear(8, 6)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(5, 8)
    layer(x, gelu=True).square().sum().backward()
    F.gelu(plain(x)).square().sum().backward()
    assert layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad, plain.weight.grad)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


def replace(layer: Linear) -> None:
    layer.weight = nn.Parameter(torch.randn(6, 8))


def exchange(layer: Linear) -> None:
    layer.weight.data = torch.randn(6, 8)


def scale_behind_the_back(layer: Linear) -> None:
    layer.weight.data.mul_(-2)


def scale(layer: Linear) -> None:
    with torch.no_grad():
        layer.weight.mul_(3)


def load(layer: Linear) -> None:
    layer.load_state_dict({"weight": torch.eye(6, 8), "bias": torch.zeros(6)})


@pytest.mark.parametrize("change", [replace, exchange, scale_behind_the_back, scale, load])
def test_a_weight_that_changes_is_used_as_it_is(change: Callable[[Linear], None]) -> None:
    layer, x = Linear(8, 6), torch.randn(3, 8)
    with torch.inference_mode():
        layer(x)
    for _ in range(20):
        change(layer)
        with torch.inference_mode():
            torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))
        assert layer.weight.norm() > 0


@pytest.fixture
def nothing_known() -> Iterator[None]:
    _has_onednn.cache_clear()
    yield
    _has_onednn.cache_clear()


@pytest.mark.parametrize("wrong", [lambda x, *_: x.new_zeros(len(x), 4), lambda x, weight, bias, then, *_: x @ weight.T])
def test_a_product_that_is_wrong_is_not_used(nothing_known: None, monkeypatch: pytest.MonkeyPatch, wrong: Callable[..., Tensor]) -> None:
    """The second leaves GELU out."""
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", wrong)
    x, weight = torch.randn(3, 8), torch.randn(4, 8)
    with torch.inference_mode():
        torch.testing.assert_close(linear(x, weight, None, gelu=True), F.gelu(x @ weight.T))


def test_the_quick_product_is_taken_where_it_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _has_onednn(torch.float32)
    assert not _has_onednn(torch.float64)
    kinds = [torch.float32, *[torch.bfloat16] * torch.ops.mkldnn._is_mkldnn_bf16_supported()]
    slow: list[Tensor] = []
    monkeypatch.setattr(F, "linear", lambda x, weight, bias: slow.append(x) or x @ weight.T)
    with torch.inference_mode():
        for rows, dtype, gelu in itertools.product((1, 2, 200), kinds, (True, False)):
            linear(torch.randn(rows, 8, dtype=dtype), torch.randn(6, 8, dtype=dtype), None, gelu=gelu)
        assert not slow
    linear(torch.randn(2, 8), torch.randn(6, 8, requires_grad=True), None)
    assert len(slow) == 1
