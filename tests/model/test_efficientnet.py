"""EfficientNets whose weights have the names of efficientnet_pytorch, against timm's own of the same shape."""

from pathlib import Path

import pytest
import timm
import torch
from encoders import build
from torch import Tensor

from model import EncoderError
from model.efficientnet import with_timm_names

_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
# (repeats, whether its blocks expand) of each stage as that package writes them down
_LITE0 = [(1, False), (2, True), (2, True), (3, True), (3, True), (4, True), (1, True)]
_B1 = [(2, False), (3, True), (3, True), (4, True), (4, True), (5, True), (2, True)]


def package_names(stages: list[tuple[int, bool]], squeeze: bool) -> list[str]:
    """In the order in which both have their layers."""
    names = ["_conv_stem.weight", *(f"_bn0.{part}" for part in _NORM)]
    block = 0
    for repeats, expands in stages:
        for _ in range(repeats):
            layers = (["_expand_conv.weight", "_bn0"] if expands else []) + ["_depthwise_conv.weight", "_bn1"]
            layers += [f"_se_{kind}.{part}" for kind in ("reduce", "expand") for part in ("weight", "bias")] if squeeze else []
            layers += ["_project_conv.weight", "_bn2"]
            for layer in layers:
                names += [f"_blocks.{block}.{layer}"] if "." in layer else [f"_blocks.{block}.{layer}.{part}" for part in _NORM]
            block += 1
    return [*names, "_conv_head.weight", *(f"_bn1.{part}" for part in _NORM), "_fc.weight", "_fc.bias"]


@pytest.mark.parametrize(("name", "stages", "squeeze"), [("tf_efficientnet_lite0", _LITE0, False), ("tf_efficientnet_b1", _B1, True)])
def test_every_weight_finds_its_place(name: str, stages: list[tuple[int, bool]], squeeze: bool) -> None:
    theirs = timm.create_model(name).state_dict()
    named = dict(zip(package_names(stages, squeeze), theirs.values(), strict=True))
    found = with_timm_names(named)
    assert found.keys() == theirs.keys()
    assert all(found[key] is tensor for key, tensor in theirs.items())


def test_an_encoder_is_loaded_from_such_a_file(tmp_path: Path) -> None:
    theirs = timm.create_model("tf_efficientnet_lite0").state_dict()
    torch.save(dict(zip(package_names(_LITE0, squeeze=False), theirs.values(), strict=True)), tmp_path / "lite0.pth")
    model = build("tf_efficientnet_lite0", {}, 64)
    model.encoder.load_pretrained(model.config.encoder, model.config.preprocessing, tmp_path / "lite0.pth")
    loaded = model.encoder.backbone.state_dict()
    assert len(loaded) == len(theirs) - 2  # all but the classifier
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in loaded.items())


def test_the_order_of_the_names_is_nothing_to_go_by() -> None:
    """A .safetensors has them by the alphabet: block 10 before block 2."""
    theirs = timm.create_model("tf_efficientnet_lite0").state_dict()
    named = dict(sorted(zip(package_names(_LITE0, squeeze=False), theirs.values(), strict=True)))
    found = with_timm_names(named)
    assert found.keys() == theirs.keys()
    assert all(found[key] is tensor for key, tensor in theirs.items())


def test_a_tensorflow_network_is_not_loaded_into_its_twin(tmp_path: Path) -> None:
    """timm's own of that name has the same shapes, and pads and normalises otherwise."""
    theirs = timm.create_model("tf_efficientnet_lite0").state_dict()
    torch.save(dict(zip(package_names(_LITE0, squeeze=False), theirs.values(), strict=True)), tmp_path / "lite0.pth")
    model = build("efficientnet_lite0", {}, 64)
    with pytest.raises(EncoderError, match=r"give --model\.encoder tf_efficientnet_lite0"):
        model.encoder.load_pretrained(model.config.encoder, model.config.preprocessing, tmp_path / "lite0.pth")


def test_what_is_no_such_network_keeps_its_names() -> None:
    weights: dict[str, Tensor] = {"conv1.weight": torch.zeros(1), "_fc.weight": torch.zeros(1)}
    assert with_timm_names(weights) == weights
    odd = {
        "_conv_stem.weight": torch.zeros(1),
        "_blocks.0._project_conv.weight": torch.zeros(4, 1),
        "_blocks.0._other.weight": torch.zeros(1),
        "ema": torch.zeros(1),
    }
    assert {"_blocks.0._other.weight", "ema"} < with_timm_names(odd).keys()
