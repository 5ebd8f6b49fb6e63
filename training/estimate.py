"""What a run will need, before it begins: parameters and memory, counted on a model without storage."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model import CaptionModel, ModelConfig
from training.config import TrainConfig
from training.networks import Network
from training.objective import CaptionLoss


@dataclass(frozen=True)
class Estimate:
    """Parameters by number; memory in bytes, of each process."""

    encoder_parameters: int
    decoder_parameters: int
    states: int
    """Weights, gradients and AdamW's two means in float32 (Muon keeps one of matrices); a running mean where there is one."""
    activations: int
    """What the forward pass keeps for the backward pass. The kernels' own workspace comes on top."""

    def __str__(self) -> str:
        parameters = (self.encoder_parameters + self.decoder_parameters) / 1e6
        return (
            f"{parameters:.1f} M parameters ({self.encoder_parameters / 1e6:.1f} M of them in the encoder), about "
            f"{(self.states + self.activations) / 1e9:.1f} GB of memory ({self.states / 1e9:.1f} GB weights, gradients and optimizer, "
            f"{self.activations / 1e9:.1f} GB activations)"
        )


def estimate(
    config: ModelConfig, *, batch_size: int, text_tokens: int, half: bool, images: int = 1, frozen: float = 0.0, average: bool = False
) -> Estimate:
    """Count a training step of `batch_size` prompts with `text_tokens` tokens each.

    Args:
        images: of each prompt.
        half: computing in bfloat16 or float16.
        frozen: the share of the encoder that does not learn.
        average: with a running mean of the weights.
    """
    with torch.device("meta"):
        model = CaptionModel(dataclasses.replace(config, dropout=0.0)).train()  # dropout keeps little, and counts badly without storage
        if frozen:
            model.encoder.freeze(frozen)
        if half:
            model.bfloat16()
        shape = (batch_size, images, 3) if images > 1 else (batch_size, 3)
        pixels = torch.zeros(*shape, *config.preprocessing.size, dtype=torch.bfloat16 if half else torch.float32)
        ids = torch.zeros(batch_size, text_tokens, dtype=torch.long)
    own = {id(parameter) for parameter in model.parameters()}
    kept: dict[int, int] = {}
    alive = []  # else the number of a freed tensor would be given to another

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if id(tensor) not in own and storage._cdata not in kept:
            kept[storage._cdata] = storage.nbytes()
            alive.append(tensor)
        return tensor

    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        tokens = CaptionLoss(model).model.encoder(pixels)
        hidden = model.decoder(ids, model.decoder.prefix(tokens))
        model.decoder.logits(hidden.flatten(0, 1)).float().log_softmax(-1)
    activations = sum(size for storage, size in kept.items() if storage not in weights)
    encoder, decoder = (sum(parameter.numel() for parameter in part.parameters()) for part in (model.encoder, model.decoder))
    learning = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return Estimate(encoder, decoder, 4 * ((1 + average) * (encoder + decoder) + 3 * learning), activations)


def describe(model: Network, config: TrainConfig, text_tokens: int, *, half: bool) -> str:
    """A network and what a run with it needs; of one of transformers its parameters alone.

    Args:
        text_tokens: of an ordinary prompt.
        half: computing in bfloat16 or float16.
    """
    if isinstance(model, CaptionModel):
        name = model.config.encoder.name
        about: dict[str, Any] = {
            "batch_size": config.batch_size,
            "text_tokens": text_tokens,
            "half": half,
            "images": config.joint,
        }
        needs = str(estimate(model.config, **about, frozen=config.frozen_encoder, average=config.ema_decay > 0))
    else:
        name = type(model.network).__name__
        encoder, decoder = (sum(weight.numel() for weight in part.parameters()) / 1e6 for part in (model.encoder, model.decoder))
        needs = f"{encoder + decoder:.1f} M parameters ({encoder:.1f} M of them in the encoder)"
    return f"{name}, {model.num_image_tokens} image tokens, {needs}"
