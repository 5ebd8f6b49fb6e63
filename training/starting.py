"""The network that a run begins with."""

from __future__ import annotations

import dataclasses

import torch

from model import CaptionModel, find_checkpoint, load_model
from tokenizer import PromptTokenizer
from training.config import TrainConfig


def build_network(config: TrainConfig, tokenizer: PromptTokenizer, *, pretrained: bool) -> CaptionModel:
    """From scratch, around one of timm's pretrained encoders (unless its weights will be replaced anyway: `pretrained`), or from a checkpoint;
    with the frozen part of the encoder frozen."""
    if config.init is not None:
        model = load_model(find_checkpoint(config.init)).float()
        model.config = dataclasses.replace(model.config, label_smoothing=config.label_smoothing)
    else:
        model = CaptionModel(config.model.model_config(tokenizer, label_smoothing=config.label_smoothing))
        if pretrained and (config.model.pretrained_encoder or config.model.encoder_file is not None):
            model.encoder.load_pretrained(model.config.encoder, model.config.preprocessing, config.model.encoder_file)
    if config.frozen_encoder:
        model.encoder.freeze(config.frozen_encoder)
    if config.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    return model.to(memory_format=torch.channels_last)  # convolutions are quicker so
