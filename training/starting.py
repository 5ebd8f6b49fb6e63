"""The network that a run begins with."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from typing import Any

import torch

from model import CaptionModel, EncoderConfig, EncoderError, ModelConfig, Preprocessing, find_checkpoint, load_model, pretrained_preprocessing
from tokenizer import PromptTokenizer
from training.config import ConfigError, NetworkConfig, TrainConfig
from training.lengths import LONGEST

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def build_network(config: TrainConfig, tokenizer: PromptTokenizer, *, text_tokens: int, pretrained: bool) -> CaptionModel:
    """From scratch, around one of timm's pretrained encoders (unless its weights will be replaced anyway: `pretrained`), or from a checkpoint;
    with the frozen part of the encoder frozen.

    Args:
        text_tokens: how many a network from scratch reads where `config` does not say.
    """
    if config.init is not None:
        model = load_model(find_checkpoint(config.init)).float()
        model.config = dataclasses.replace(model.config, label_smoothing=config.label_smoothing)
    else:
        network = config.model
        if network.max_text_tokens is None:
            network = dataclasses.replace(network, max_text_tokens=text_tokens)
        model = CaptionModel(model_config(network, tokenizer, label_smoothing=config.label_smoothing))
        if pretrained and (config.model.pretrained_encoder or config.model.encoder_file is not None):
            model.encoder.load_pretrained(model.config.encoder, model.config.preprocessing, config.model.encoder_file)
    if model.encoder.frame_embedding is not None:  # runs show one image of a prompt at a time, in which it has no part
        model.encoder.frame_embedding.requires_grad_(False)
    if config.frozen_encoder:
        model.encoder.freeze(config.frozen_encoder)
    if config.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    return model.to(memory_format=torch.channels_last)  # convolutions are quicker so


def model_config(network: NetworkConfig, tokenizer: PromptTokenizer, *, label_smoothing: float = 0.1) -> ModelConfig:
    """
    Raises:
        ConfigError: numbers that no network has, or that do not fit together.
    """
    try:
        return _model_config(network, tokenizer, label_smoothing)
    except EncoderError:
        raise
    except ValueError as error:
        raise ConfigError(f"--model: {error}") from error


def _model_config(network: NetworkConfig, tokenizer: PromptTokenizer, label_smoothing: float) -> ModelConfig:
    return ModelConfig(
        encoder=EncoderConfig(name=network.encoder, stage=network.stage, arguments=network.timm_arguments),
        preprocessing=_preprocessing(network),
        label_smoothing=label_smoothing,
        vocab_size=tokenizer.vocab_size,
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.pad_id,
        width=network.width,
        layers=network.layers,
        heads=network.heads,
        ffn_width=network.ffn_width,
        dropout=network.dropout,
        max_text_tokens=network.max_text_tokens or LONGEST,
    )


def _preprocessing(network: NetworkConfig) -> Preprocessing:
    seen: dict[str, Any] = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    if network.pretrained_encoder:
        seen = pretrained_preprocessing(network.encoder)
    elif network.encoder_file is not None:
        with suppress(EncoderError):  # a name without published weights
            seen = pretrained_preprocessing(network.encoder)
    given = {"mean": network.mean, "std": network.std, "interpolation": network.interpolation}
    chosen = seen | {name: value for name, value in given.items() if value is not None}
    return Preprocessing(image_size=network.image_size, crop=network.crop, **chosen)
