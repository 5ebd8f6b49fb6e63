"""A network that is loaded is the one that was saved, and what was drawn at random in between is nothing."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from encoders import FAMILIES, build
from safetensors.torch import load_file, save_file
from torch import nn

import model.network
from model import CaptionModel, CheckpointError, load_model, save_model
from model.empty import build_empty

TEXTS = torch.tensor([[1, 5, 6, 7], [1, 9, 8, 3]])


def changed(name: str, arguments: dict[str, object]) -> CaptionModel:
    """A network none of whose weights are as they were built."""
    torch.manual_seed(0)
    network = build(name, arguments, 64)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.05 * torch.rand_like(tensor))  # upwards, since variances are among them
    return network


def learnt(network: CaptionModel, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    network.loss(pixels, TEXTS, TEXTS).backward()
    return {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize(("name", "arguments"), FAMILIES, ids=[f"{name}-{i}" for i, (name, _) in enumerate(FAMILIES)])
def test_what_is_loaded_computes_what_was_saved_and_can_learn(name: str, arguments: dict[str, object], tmp_path: Path) -> None:
    network = changed(name, arguments)
    save_model(network, tmp_path)
    loaded = load_model(tmp_path)
    tensors = dict(loaded.named_parameters()) | dict(loaded.named_buffers())
    assert not any(tensor.is_meta for tensor in tensors.values())
    assert {key: tensor.dtype for key, tensor in tensors.items()} == {
        key: tensor.dtype for key, tensor in (*network.named_parameters(), *network.named_buffers())
    }
    assert all(torch.equal(tensor, network.state_dict()[key]) for key, tensor in loaded.state_dict().items())
    assert all(parameter.requires_grad and parameter.is_contiguous() for parameter in loaded.parameters())
    assert not any(module.training for module in loaded.modules())
    assert (loaded.encoder.grid, loaded.num_image_tokens) == (network.encoder.grid, network.num_image_tokens)

    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(pixels, TEXTS), network(pixels, TEXTS))
    options = {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 5}
    assert loaded.search(pixels, **options) == network.search(pixels, **options)
    gradients, expected = learnt(loaded, pixels), learnt(network, pixels)
    assert gradients.keys() == expected.keys()
    assert all(torch.equal(gradients[key], gradient) for key, gradient in expected.items())


def test_loading_draws_nothing_at_random(tmp_path: Path) -> None:
    network = changed("test_vit", {})
    save_model(network, tmp_path)
    before = torch.get_rng_state()
    for _ in range(2):
        load_model(tmp_path)
        CaptionModel.from_weights(network.config, network.state_dict(), "here")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_stays_when_its_file_is_overwritten(tmp_path: Path) -> None:
    save_model(changed("test_vit", {}), tmp_path)
    loaded, pixels = load_model(tmp_path), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = loaded(pixels, TEXTS)
        with open(tmp_path / "model.safetensors", "r+b") as file:
            file.write(bytes((tmp_path / "model.safetensors").stat().st_size))
        assert torch.equal(loaded(pixels, TEXTS), expected)
        (tmp_path / "model.safetensors").write_bytes(b"")
        assert torch.equal(loaded(pixels, TEXTS), expected)


def test_a_model_does_not_share_the_weights_it_is_given() -> None:
    network = changed("test_vit", {})
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    loaded = CaptionModel.from_weights(network.config, weights, "here")
    with torch.no_grad():
        for tensor in loaded.parameters():
            tensor.zero_()
    assert all(torch.equal(weights[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(
    ("name", "stored", "expected"),
    [
        ("test_resnet", torch.float16, torch.float16),
        ("test_resnet", torch.bfloat16, torch.bfloat16),
        ("test_vit_relpos", torch.bfloat16, torch.bfloat16),  # with tables that are not in the file
        ("test_resnet", None, torch.float32),  # some half, some not
    ],
)
def test_weights_keep_the_precision_they_are_stored_in(name: str, stored: torch.dtype | None, expected: torch.dtype, tmp_path: Path) -> None:
    network = changed(name, {})
    save_model(network, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    floating = [key for key, tensor in weights.items() if tensor.is_floating_point()]
    weights |= {key: weights[key].to(stored or (torch.float16 if i % 2 else torch.float32)) for i, key in enumerate(floating)}
    save_file(weights, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path)
    assert {tensor.dtype for tensor in (*loaded.parameters(), *loaded.buffers()) if tensor.is_floating_point()} == {expected}
    assert all(torch.equal(tensor, weights[key].to(tensor.dtype)) for key, tensor in loaded.state_dict().items())
    assert {tensor.dtype for tensor in loaded.buffers() if not tensor.is_floating_point()} <= {torch.int64}


@pytest.mark.parametrize("change", ["missing", "left over", "another shape", "all"])
def test_weights_that_do_not_fit_are_named_alike_however_it_is_built(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = changed("test_vit", {})
    weights = dict(network.state_dict())
    if change in ("missing", "all"):
        del weights["encoder.backbone.cls_token"]
    if change in ("left over", "all"):
        weights["decoder.other"] = torch.zeros(3)
    if change in ("another shape", "all"):
        weights["decoder.output_bias"] = torch.zeros(3)
    said = []
    for empty in (build_empty, lambda build: None):
        monkeypatch.setattr(model.network, "build_empty", empty)
        with pytest.raises(CheckpointError, match=r"here does not fit its config\.json") as error:
            CaptionModel.from_weights(network.config, weights, "here")
        said.append(str(error.value))
    assert said[0] == said[1]


def test_a_loaded_model_is_pickled_and_laid_out_as_any(tmp_path: Path) -> None:
    save_model(changed("test_resnet", {}), tmp_path)
    loaded, pixels = load_model(tmp_path), torch.randn(2, 3, 64, 64)
    again = pickle.loads(pickle.dumps(loaded))
    with torch.no_grad():
        assert torch.equal(again(pixels, TEXTS), loaded(pixels, TEXTS))
        loaded.to(memory_format=torch.channels_last)
        torch.testing.assert_close(loaded(pixels, TEXTS), again(pixels, TEXTS), atol=1e-4, rtol=1e-4)


class _Holding(nn.Module):
    def __init__(self, place: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        if place == "a buffer that is not saved":
            self.register_buffer("table", torch.arange(3), persistent=False)
        elif place == "a list":
            self.tables = [{"one": (torch.arange(3),)}]
        elif place == "two names":
            self.other = self.weight
        elif place == "a function":
            self.function = lambda: self.weight
        elif place == "a number":
            self.number = float(torch.ones(2).sum())


def test_only_what_a_state_dict_fills_is_built_empty() -> None:
    whole = build_empty(lambda: _Holding("nowhere"))
    assert whole is not None
    assert whole.weight.is_meta
    for place in ("a buffer that is not saved", "a list", "two names", "a function", "a number"):
        assert build_empty(lambda place=place: _Holding(place)) is None, place
