"""EfficientNets whose weights have the names of efficientnet_pytorch, against timm's own of the same shape."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize("order", [list, sorted])  # a .safetensors has names by the alphabet: block 10 before block 2
@pytest.mark.parametrize(("name", "stages", "squeeze"), [("tf_efficientnet_lite0", _LITE0, False), ("tf_efficientnet_b1", _B1, True)])
def test_every_weight_finds_its_place(name: str, stages: list[tuple[int, bool]], squeeze: bool, order: Callable[[Any], Any]) -> None:
    theirs = timm.create_model(name).state_dict()
    found = with_timm_names(dict(order(zip(package_names(stages, squeeze), theirs.values(), strict=True))))
    assert found.keys() == theirs.keys()
    assert all(found[key] is tensor for key, tensor in theirs.items())


@pytest.mark.parametrize("before", ["", "timm/"])
def test_a_file_is_loaded_into_the_tensorflow_network_alone(tmp_path: Path, before: str) -> None:
    """timm's own of that name has the same shapes, and pads and normalises otherwise."""
    theirs = timm.create_model("tf_efficientnet_lite0").state_dict()
    file = tmp_path / "lite0.pth"
    torch.save(dict(zip(package_names(_LITE0, squeeze=False), theirs.values(), strict=True)), file)
    model, twin = (build(before + name, {}, 64) for name in ("tf_efficientnet_lite0", "efficientnet_lite0"))
    model.encoder.load_pretrained(model.config.encoder, model.config.preprocessing, file)
    loaded = model.encoder.backbone.state_dict()
    assert len(loaded) == len(theirs) - 2  # all but the classifier
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in loaded.items())
    with pytest.raises(EncoderError, match=r"give --model\.encoder tf_efficientnet_lite0"):
        twin.encoder.load_pretrained(twin.config.encoder, twin.config.preprocessing, file)


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
