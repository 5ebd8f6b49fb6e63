import dataclasses

import pytest
import torch
from examples import tiny_config

from model import CaptionModel, ModelConfig
from training.config import mini
from training.estimate import describe, estimate


def test_parameters_and_states_by_hand() -> None:
    model = CaptionModel(tiny_config())
    encoder = sum(parameter.numel() for parameter in model.encoder.parameters())
    decoder = sum(parameter.numel() for parameter in model.decoder.parameters())
    whole = estimate(tiny_config(), batch_size=2, text_tokens=5, half=False)
    assert (whole.encoder_parameters, whole.decoder_parameters) == (encoder, decoder)
    assert whole.states == 16 * (encoder + decoder)  # weight, gradient, two means, four bytes each
    assert estimate(tiny_config(), batch_size=2, text_tokens=5, half=True, average=True).states == 20 * (encoder + decoder)
    backbone = sum(parameter.numel() for parameter in model.encoder.backbone.parameters())
    frozen = estimate(tiny_config(), batch_size=2, text_tokens=5, half=False, frozen=1.0)
    assert frozen.states == 16 * (encoder + decoder) - 12 * backbone
    assert frozen.activations < whole.activations
    assert f"{(encoder + decoder) / 1e6:.1f} M parameters" in str(whole)


def with_frames(frames: int) -> ModelConfig:
    return tiny_config(encoder=dataclasses.replace(tiny_config().encoder, frames=frames))


@pytest.mark.parametrize("images", [1, 3])
def test_activations_are_what_a_real_forward_pass_keeps(images: int) -> None:
    """Counted here on real tensors, by their addresses."""
    torch.manual_seed(0)
    model = CaptionModel(with_frames(3)).train()
    kept: dict[int, int] = {}
    alive = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        alive.append(tensor)
        return tensor

    ids = torch.randint(3, 20, (8, 12))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.summed_loss(torch.randn(8, images, 3, 32, 32) if images > 1 else torch.randn(8, 3, 32, 32), ids, ids)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    real = sum(size for address, size in kept.items() if address not in weights)
    guessed = estimate(with_frames(3), batch_size=8, text_tokens=12, half=False, images=images).activations
    assert 0.7 < guessed / real < 1.4


def test_twice_the_batch_needs_twice_the_activations_and_half_precision_about_half() -> None:
    single, double = (estimate(tiny_config(), batch_size=size, text_tokens=8, half=False).activations for size in (8, 16))
    assert 1.9 < double / single < 2.05
    assert estimate(tiny_config(), batch_size=8, text_tokens=8, half=True).activations < 0.7 * single


def test_what_is_said_before_training_is_of_as_many_images_as_are_shown() -> None:
    model, said = CaptionModel(with_frames(3)), list[str]()
    for joint in (1, 3):
        needs = estimate(with_frames(3), batch_size=500, text_tokens=12, half=True, images=joint, average=True)
        said.append(describe(model, dataclasses.replace(mini(), batch_size=500, joint=joint), 12, half=True))
        assert str(needs) in said[-1]
    assert said[0] != said[1]
