from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from training.running_mean import RunningMean


def follow(values: list[float], decay: float) -> tuple[float, RunningMean, nn.Linear]:
    """A network whose one weight takes these values, and its mean by the formula."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 5.0)
    average, expected = RunningMean(network, decay), 5.0
    for n, value in enumerate(values, 1):
        nn.init.constant_(network.weight, value)
        average.update(network)
        kept = min(decay, (1 + n) / (10 + n))
        expected = kept * expected + (1 - kept) * value
    return expected, average, network


@pytest.mark.parametrize("decay", [0.3, 0.9, 0.9998])
def test_it_is_what_the_formula_says(decay: float) -> None:
    expected, average, _ = follow([1.0, 3.0, -2.0, 4.0, 8.0], decay)
    assert float(average.means["weight"]) == pytest.approx(expected, rel=1e-6)


def test_a_short_run_forgets_its_random_beginning() -> None:
    """With the decay alone 0.97 of the weights after 150 updates at 0.9998 would be those of the beginning."""
    _, average, _ = follow([1.0] * 150, 0.9998)
    assert float(average.means["weight"]) == pytest.approx(1.0, abs=1e-6)


def test_in_place_it_is_the_network_and_afterwards_all_is_as_before() -> None:
    _, average, network = follow([1.0, 3.0], 0.9)
    mean, last = float(average.means["weight"]), float(network.weight)
    assert mean != last
    with pytest.raises(RuntimeError), average.in_place(network):
        assert float(network.weight) == mean
        raise RuntimeError
    assert float(network.weight) == last
    assert float(average.means["weight"]) == mean


def test_saved_and_loaded_it_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    _, whole, network = follow([1.0, 3.0, -2.0, 4.0], 0.9)
    _, half, _ = follow([1.0, 3.0], 0.9)
    safetensors.torch.save_file(half.state_dict(), tmp_path / "average.safetensors")
    again = RunningMean(network, 0.9)
    again.load_state_dict(safetensors.torch.load_file(tmp_path / "average.safetensors"))
    for value in (-2.0, 4.0):
        nn.init.constant_(network.weight, value)
        again.update(network)
    assert torch.equal(again.means["weight"], whole.means["weight"])


def test_weights_that_do_not_learn_have_none() -> None:
    network = nn.Linear(2, 2)
    network.bias.requires_grad_(False)
    assert list(RunningMean(network, 0.9).means) == ["weight"]
