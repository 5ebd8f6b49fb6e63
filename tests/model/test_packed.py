"""Packed weights against plain ones."""

import copy
import io

import pytest
import torch
from torch import nn

from model import CaptionModel
from model.packed import PackedCopy, PackedLinear, can_pack

needs_packing = pytest.mark.skipif(not can_pack(torch.float32), reason="this PyTorch has no oneDNN")


@needs_packing
@pytest.mark.parametrize("shape", [(1, 24), (7, 24), (3, 5, 24)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_layer_computes_what_the_plain_one_computes(shape: tuple[int, ...], bias: bool) -> None:
    plain = nn.Linear(24, 40, bias=bias)
    packed = PackedLinear(plain)
    for x in (torch.randn(shape), torch.randn(*shape[:-1], 48)[..., ::2]):  # the second is not contiguous
        with torch.inference_mode():
            torch.testing.assert_close(packed(x), plain(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [dtype for dtype in (torch.float32, torch.bfloat16) if can_pack(dtype)])
def test_the_plain_weight_makes_room_and_comes_back(dtype: torch.dtype) -> None:
    plain = nn.Linear(24, 40).to(dtype)
    weight, x = plain.weight.detach().clone(), torch.randn(3, 24, dtype=dtype)
    packed = PackedLinear(plain)
    assert packed.weight.device.type == "meta"  # one copy in memory, not two
    assert packed.weight.shape == weight.shape
    assert torch.equal(packed.state_dict()["weight"], weight)
    assert torch.equal(copy.deepcopy(packed).weight, weight)
    assert packed.weight.device.type == "meta"  # copies leave it packed
    for use in (lambda layer: layer(x).sum().backward(), lambda layer: layer.train(), lambda layer: layer.double()):
        layer = PackedLinear(copy.deepcopy(plain))
        use(layer)
        assert torch.equal(layer.weight.to(dtype), weight)
        assert layer.weight.requires_grad


@needs_packing
def test_unpacking_for_gradients_warns_about_optimizers_made_before() -> None:
    packed = PackedLinear(nn.Linear(8, 8))
    with pytest.warns(UserWarning, match=r"after model\.train\(\)"):
        packed(torch.randn(2, 8))
    PackedLinear(nn.Linear(8, 8)).train()(torch.randn(2, 8))  # the way to go: no warning, which pytest would show


@needs_packing
def test_a_packed_layer_takes_new_weights() -> None:
    packed = PackedLinear(nn.Linear(8, 8))
    x = torch.randn(2, 8)
    with torch.no_grad():
        packed.load_state_dict({"weight": torch.eye(8), "bias": torch.zeros(8)})
        torch.testing.assert_close(packed(x), x)
        packed.pack()
        torch.testing.assert_close(packed(x), x)
        torch.testing.assert_close(packed.double()(x.double()), x.double())


@needs_packing
def test_a_packed_copy_follows_its_weight() -> None:
    weight, shared = nn.Parameter(torch.randn(8, 8)), PackedCopy()
    x = torch.randn(2, 8)
    with torch.no_grad():
        before = shared.linear(x, weight, None)
        weight.mul_(2)
        torch.testing.assert_close(shared.linear(x, weight, None), 2 * before)


@needs_packing
def test_a_packed_network_writes_trains_and_saves_as_before(tiny_model: CaptionModel) -> None:
    packed = copy.deepcopy(tiny_model)
    packed.pack_weights()
    assert any(isinstance(module, PackedLinear) for module in packed.encoder.modules())
    images = torch.randn(3, 3, 32, 32)
    for beams in (1, 4):
        assert [t[0].tokens for t in packed.search(images, num_beams=beams)] == [t[0].tokens for t in tiny_model.search(images, num_beams=beams)]
    ids = torch.randint(3, 20, (3, 6))
    losses = [model.loss(images, ids, ids) for model in (packed, tiny_model)]
    for loss in losses:
        loss.backward()
    assert losses[0] == losses[1]
    for ours, plain in zip(packed.parameters(), tiny_model.parameters(), strict=True):
        assert ours.grad is not None
        assert torch.equal(ours.grad, plain.grad)
    assert {name: tensor.shape for name, tensor in packed.state_dict().items()} == {
        name: tensor.shape for name, tensor in tiny_model.state_dict().items()
    }
    file = io.BytesIO()
    torch.save(packed, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    assert again.search(images)[0][0].tokens == tiny_model.search(images)[0][0].tokens


def test_what_cannot_be_packed_stays_plain(tiny_model: CaptionModel) -> None:
    tiny_model.double().pack_weights()
    assert not any(isinstance(module, PackedLinear) for module in tiny_model.modules())
