"""What an encoder keeps of a timm model, against timm's own model with the same weights."""

from __future__ import annotations

import pytest
import timm
import torch
from encoders import FAMILIES, build
from torch import Tensor, nn

from model.encoder import _create
from model.unused import drop_unused


@pytest.mark.parametrize(("name", "arguments"), FAMILIES, ids=[f"{name}-{i}" for i, (name, _) in enumerate(FAMILIES)])
def test_every_weight_that_is_left_learns_and_features_are_those_of_the_whole_model(name: str, arguments: dict[str, object]) -> None:
    network = build(name, arguments, 64)
    backbone = network.encoder.backbone
    kept, whole = backbone.state_dict(), _create(network.config.encoder, (64, 64), {})
    whole.load_state_dict(whole.state_dict() | kept)
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(backbone.eval().forward_features(pixels), whole.eval().forward_features(pixels), atol=1e-4, rtol=1e-4)
    assert kept.keys() <= whole.state_dict().keys()

    texts = torch.tensor([[1, 5, 6], [1, 9, 8]])
    network.train().loss(pixels, texts, texts).backward()
    assert [key for key, parameter in network.named_parameters() if parameter.requires_grad and parameter.grad is None] == []


@pytest.mark.parametrize(
    ("name", "stage", "dropped"),
    [
        ("test_vit3", None, ["attn_pool"]),
        ("test_convnext", None, ["head"]),
        ("test_convnext", 1, ["stages_2", "stages_3"]),
        ("test_efficientnet", None, []),
        ("mobilenetv4_conv_small", None, ["conv_head", "norm_head"]),
    ],
)
def test_poolings_heads_and_later_stages_are_not_kept(name: str, stage: int | None, dropped: list[str]) -> None:
    names = [key for key, _ in build(name, {}, 64, stage).named_parameters()]
    assert not [key for key in names if any(f".{part}." in key for part in dropped)]
    if stage is None:
        whole = [key for key, _ in timm.create_model(name, num_classes=0).named_parameters()]
        assert all(any(key.startswith(part) for key in whole) for part in dropped)


class Parts(nn.Module):
    """A module that is used, one that is not, one that is used in part, and a weight of its own that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(2, 2)
        self.unused = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
        self.parts = nn.ModuleDict({"used": nn.Linear(2, 2), "unused": nn.Linear(2, 2)})
        self.alone = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.parts["used"](self.used(x))


def test_only_what_has_no_part_in_the_result_is_taken_away() -> None:
    network, x = Parts(), torch.randn(3, 2)
    network.used.weight.requires_grad_(False)  # as when it is frozen already
    expected = network(x)
    result = drop_unused(network, lambda module, pixels: module(pixels), x)
    assert result.shape == expected.shape
    assert torch.equal(network(x), expected)
    assert sorted(network.state_dict()) == ["alone", "parts.used.bias", "parts.used.weight", "used.bias", "used.weight"]
    assert [name for name, parameter in network.named_parameters() if parameter.requires_grad] == [
        "used.bias",
        "parts.used.weight",
        "parts.used.bias",
    ]
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())


def test_tensors_that_are_no_buffers_are_no_hindrance() -> None:
    network = Parts()
    network.constant = torch.ones(2)  # stays where it is when a module is moved to the meta device
    drop_unused(network, lambda module, pixels: module(pixels * module.constant), torch.randn(3, 2))
    assert "unused.0.weight" not in network.state_dict()
