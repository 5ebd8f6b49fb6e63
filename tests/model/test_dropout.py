"""Our dropout against its definition."""

import itertools

import pytest
import torch

from model.dropout import Dropout, dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_as_many_are_dropped_as_asked_and_the_rest_is_scaled(probability: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    dropped = dropout(torch.ones(1000, 1001, dtype=dtype), probability)
    share = (dropped == 0).double().mean().item()
    assert abs(share - probability) < 5 * (probability * (1 - probability) / dropped.numel()) ** 0.5  # five standard errors
    assert set(dropped.unique().tolist()) == {0.0, torch.tensor(1 / (1 - probability), dtype=dtype).item()}


def test_elements_that_share_a_draw_are_independent() -> None:
    torch.manual_seed(1)
    kept = (dropout(torch.ones(400_000), 0.3) > 0).view(-1, 4)
    for i, j in itertools.combinations(range(4), 2):
        both = (kept[:, i] & kept[:, j]).double().mean().item()
        assert abs(both - 0.49) < 0.008  # five standard errors


def test_gradients_pass_where_values_did() -> None:
    x = torch.randn(7, 3, requires_grad=True)
    dropped = dropout(x, 0.4)
    dropped.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x.detach(), dropped.detach())


def test_the_seed_decides_and_evaluation_drops_nothing() -> None:
    layer, x = Dropout(0.5), torch.randn(50)
    torch.manual_seed(3)
    first = layer(x)
    torch.manual_seed(3)
    assert torch.equal(layer(x), first)
    assert not torch.equal(layer(x), first)
    assert layer.eval()(x) is x
    assert Dropout(0.0)(x) is x
