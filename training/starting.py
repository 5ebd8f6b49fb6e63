"""The network that a run begins with."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from tqdm import tqdm

from model import CaptionModel, EncoderConfig, EncoderError, ModelConfig, Preprocessing, find_checkpoint, load_model, pretrained_preprocessing
from model.encoder import ImageEncoder
from peers import PeerConfig, PeerNetwork, Shape, build_peer, load_peer, peer_tokenizer
from tokenizer import TOKENIZER_FILE, PromptTokenizer
from training.config import PEER_KINDS, ConfigError, NetworkConfig, TrainConfig
from training.lengths import LONGEST
from training.networks import Network

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def initial_tokenizer(config: TrainConfig) -> PromptTokenizer | None:
    """That of `config.init`; none from scratch."""
    if config.init is None:
        return None
    if config.network in PEER_KINDS:
        return peer_tokenizer(config.init)
    return PromptTokenizer.load(find_checkpoint(config.init) / TOKENIZER_FILE)


def run_tokenizer(path: Path, config: TrainConfig, prompts: Iterable[str]) -> PromptTokenizer:
    """A run's tokenizer, at `path`: that of `config.init`, or learnt from the training prompts at the run's beginning."""
    if not path.exists():
        tokenizer = initial_tokenizer(config) or PromptTokenizer.train(
            list(tqdm(prompts, "reading prompts", unit="prompt", leave=False)), config.model.vocab_size
        )
        tokenizer.save(path)
    return PromptTokenizer.load(path)


def build_network(config: TrainConfig, tokenizer: PromptTokenizer, *, text_tokens: int, pretrained: bool) -> Network:
    """From scratch, around one of timm's pretrained encoders (unless its weights will be replaced anyway: `pretrained`), or from a checkpoint;
    with the frozen part of the encoder frozen.

    Args:
        text_tokens: how many a network from scratch, or one of transformers, reads where `config` does not say.
    """
    if config.network in PEER_KINDS:
        peer = _build_peer(config, tokenizer, text_tokens)
        if config.frozen_encoder:
            peer.freeze_encoder(config.frozen_encoder)
        if config.gradient_checkpointing:
            peer.enable_gradient_checkpointing()
        return peer
    if config.init is not None:
        model = load_model(find_checkpoint(config.init)).float()
        if config.joint > 1:
            model = with_frames(model, config.joint)
        # how sure it may be is found out at the end, of what it then is
        model.config = dataclasses.replace(model.config, label_smoothing=config.label_smoothing, confidence_scale=None)
    else:
        network = config.model
        if network.max_text_tokens is None:
            network = dataclasses.replace(network, max_text_tokens=text_tokens)
        frames = config.joint if config.joint > 1 else 0
        model = CaptionModel(model_config(network, tokenizer, label_smoothing=config.label_smoothing, frames=frames))
        if pretrained and (config.model.pretrained_encoder or config.model.encoder_file is not None):
            model.encoder.load_pretrained(model.config.encoder, model.config.preprocessing, config.model.encoder_file)
    if model.encoder.frame_embedding is not None and config.joint == 1:  # in one image of a prompt at a time it has no part
        model.encoder.frame_embedding.requires_grad_(False)
    if config.frozen_encoder:
        model.encoder.freeze(config.frozen_encoder)
    if config.frozen_decoder:
        model.decoder.requires_grad_(False)
    if config.only_frames and model.encoder.frame_embedding is not None:
        model.encoder.requires_grad_(False)
        model.encoder.frame_embedding.requires_grad_(True)
    if config.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    return model.to(memory_format=torch.channels_last)  # convolutions are quicker so


def _build_peer(config: TrainConfig, tokenizer: PromptTokenizer, text_tokens: int) -> PeerNetwork:
    kind, network = PEER_KINDS[config.network], config.model
    limits: dict[str, Any] = {"max_text_tokens": network.max_text_tokens or text_tokens, "label_smoothing": config.label_smoothing}
    if config.init is not None:
        loaded, processor = load_peer(kind, config.init)
        peer = PeerNetwork(PeerConfig.of(loaded.float(), processor, **limits), loaded, processor)
        if tokenizer.vocab_size > peer.config.vocab_size:
            raise ConfigError(
                f"the tokenizer has {tokenizer.vocab_size} tokens, the network {peer.config.vocab_size}; they belong to different models"
            )
        return peer
    try:
        preprocessing = _preprocessing(network)
        return build_peer(kind, _vision_transformer(network, preprocessing), preprocessing, tokenizer, **limits)
    except (ConfigError, EncoderError):
        raise
    except ValueError as error:
        raise ConfigError(f"--model: {error}") from error


def _vision_transformer(network: NetworkConfig, preprocessing: Preprocessing) -> Shape:
    """The sizes of a plain vision transformer of timm's, so that one --model.encoder means as large an encoder in every network."""
    name = network.encoder
    with torch.device("meta"):
        vit = ImageEncoder(EncoderConfig(name=name, stage=network.stage, arguments=network.timm_arguments), preprocessing, network.width).backbone
    if not isinstance(vit, VisionTransformer) or vit.num_prefix_tokens != 1:
        raise ConfigError(
            f"--network: BLIP and GIT look with a plain vision transformer; {name} is none: give --model.encoder vit_tiny_patch16_224 say"
        )
    block: Any = vit.blocks[0]
    return Shape(
        patch_size=vit.patch_embed.patch_size[0],
        encoder_width=vit.embed_dim,
        encoder_layers=len(vit.blocks),
        encoder_heads=block.attn.num_heads,
        encoder_ffn_width=block.mlp.fc1.out_features,
        width=network.width,
        layers=network.layers,
        heads=network.heads,
        ffn_width=network.ffn_width,
        dropout=network.dropout,
    )


def with_frames(model: CaptionModel, frames: int) -> CaptionModel:
    """The same network, and an embedding for each of so many images of a prompt at least; new ones begin as nothing."""
    config = model.config.encoder
    if config.frames >= frames:
        return model
    weights = model.state_dict()
    embedding = torch.zeros(frames, 1, weights["encoder.projection.0.weight"].shape[1])
    if config.frames:
        embedding[: config.frames] = weights["encoder.frame_embedding"]
    more = dataclasses.replace(model.config, encoder=dataclasses.replace(config, frames=frames))
    return CaptionModel.from_weights(more, weights | {"encoder.frame_embedding": embedding}, "the network with more frames")


def model_config(network: NetworkConfig, tokenizer: PromptTokenizer, *, label_smoothing: float = 0.1, frames: int = 0) -> ModelConfig:
    """
    Raises:
        ConfigError: numbers that no network has, or that do not fit together.
    """
    try:
        return _model_config(network, tokenizer, label_smoothing, frames)
    except EncoderError:
        raise
    except ValueError as error:
        raise ConfigError(f"--model: {error}") from error


def _model_config(network: NetworkConfig, tokenizer: PromptTokenizer, label_smoothing: float, frames: int) -> ModelConfig:
    return ModelConfig(
        encoder=EncoderConfig(name=network.encoder, stage=network.stage, arguments=network.timm_arguments, frames=frames),
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
