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
        if config.model.pretrained_encoder and pretrained:
            published = dataclasses.replace(model.config.encoder, arguments=config.model.timm_arguments)
            model.encoder.load_pretrained(published, model.config.preprocessing)
    if config.frozen_encoder:
        model.encoder.freeze(config.frozen_encoder)
    if config.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    return model.to(memory_format=torch.channels_last)  # convolutions are quicker so
