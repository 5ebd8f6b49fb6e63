"""GIT's weights in our network: what `GitForCausalLM.save_pretrained` of Hugging Face writes, renamed tensor by tensor.

Sizes are read off the tensors themselves; only what shapes do not tell (heads, activations, token ids) comes from config.json, or from GIT's
own values where there is none. GIT: arXiv 2205.14100; its image encoder is CLIP's ViT without the pooling projection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from model.confidence import CERTAINTY
from model.config import EncoderConfig, ModelConfig
from model.files import CheckpointError
from model.preprocessing import Preprocessing

MODEL_TYPE = "git"  # config.json says so
_HEAD_DIM = 64  # of all published GITs, and of CLIP's ViTs
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_STEPS = {"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"}  # an image processor's that are followed
_PIL_RESAMPLING: dict[Any, Any] = {2: "bilinear", 3: "bicubic"}

# (patch, width, depth, heads) -> the timm model of that shape
_CLIP_VITS = {
    (16, 768, 12, 12): "vit_base_patch16_clip_quickgelu_224",
    (32, 768, 12, 12): "vit_base_patch32_clip_quickgelu_224",
    (14, 1024, 24, 16): "vit_large_patch14_clip_quickgelu_224",
}

# our name -> GIT's, {i} standing for a layer; several of GIT's are stacked on their first axis
_VIT = "git.image_encoder.vision_model."
_ENCODER_NAMES: dict[str, tuple[str, ...]] = {
    "encoder.backbone.cls_token": (_VIT + "embeddings.class_embedding",),
    "encoder.backbone.pos_embed": (_VIT + "embeddings.position_embedding.weight",),
    "encoder.backbone.patch_embed.proj.weight": (_VIT + "embeddings.patch_embedding.weight",),
}
_ENCODER_MODULES: dict[str, tuple[str, ...]] = {
    "encoder.backbone.norm_pre": (_VIT + "pre_layrnorm",),
    "encoder.backbone.norm": (_VIT + "post_layernorm",),
    "encoder.projection.0": ("git.visual_projection.visual_projection.0",),
    "encoder.projection.1": ("git.visual_projection.visual_projection.1",),
}
_ENCODER_LAYER_MODULES: dict[str, tuple[str, ...]] = {
    "encoder.backbone.blocks.{i}.norm1": (_VIT + "encoder.layers.{i}.layer_norm1",),
    "encoder.backbone.blocks.{i}.attn.qkv": tuple(_VIT + f"encoder.layers.{{i}}.self_attn.{part}_proj" for part in "qkv"),
    "encoder.backbone.blocks.{i}.attn.proj": (_VIT + "encoder.layers.{i}.self_attn.out_proj",),
    "encoder.backbone.blocks.{i}.norm2": (_VIT + "encoder.layers.{i}.layer_norm2",),
    "encoder.backbone.blocks.{i}.mlp.fc1": (_VIT + "encoder.layers.{i}.mlp.fc1",),
    "encoder.backbone.blocks.{i}.mlp.fc2": (_VIT + "encoder.layers.{i}.mlp.fc2",),
}
_DECODER_NAMES: dict[str, tuple[str, ...]] = {
    "decoder.token_embedding.weight": ("git.embeddings.word_embeddings.weight",),
    "decoder.position_embedding.weight": ("git.embeddings.position_embeddings.weight",),
    "decoder.output_bias": ("output.bias",),
}
_DECODER_MODULES: dict[str, tuple[str, ...]] = {"decoder.embedding_norm": ("git.embeddings.LayerNorm",)}
_DECODER_LAYER_MODULES: dict[str, tuple[str, ...]] = {
    "decoder.blocks.{i}.attention.qkv": tuple(f"git.encoder.layer.{{i}}.attention.self.{part}" for part in ("query", "key", "value")),
    "decoder.blocks.{i}.attention.output": ("git.encoder.layer.{i}.attention.output.dense",),
    "decoder.blocks.{i}.attention_norm": ("git.encoder.layer.{i}.attention.output.LayerNorm",),
    "decoder.blocks.{i}.ffn.0": ("git.encoder.layer.{i}.intermediate.dense",),
    "decoder.blocks.{i}.ffn.2": ("git.encoder.layer.{i}.output.dense",),
    "decoder.blocks.{i}.ffn_norm": ("git.encoder.layer.{i}.output.LayerNorm",),
}


def convert_git(weights: Mapping[str, Tensor], config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The config and state dict of a `CaptionModel` that computes what `GitForCausalLM` computes.

    Args:
        weights: its state dict.
        config: its config.json; may be empty, then GIT's published values are taken.
        preprocessor: its preprocessor_config.json; may be empty, then CLIP's values are taken.

    Raises:
        CheckpointError: a tensor is missing, left over or of an unexpected shape, or a setting that our network does not have.
    """
    _require(config, "model_type", MODEL_TYPE)
    layers = _count(weights, r"git\.encoder\.layer\.(\d+)\.")
    depth = _count(weights, re.escape(_VIT) + r"encoder\.layers\.(\d+)\.")
    names = _DECODER_NAMES | _ENCODER_NAMES
    names |= {f"{ours}.{kind}": tuple(f"{name}.{kind}" for name in theirs) for ours, theirs, kind in _modules(layers, depth)}
    converted, used = {}, set[str]()
    for ours, theirs in names.items():
        if missing := [name for name in theirs if name not in weights]:
            raise CheckpointError(f"not the weights of a GIT: {missing[0]} is missing")
        converted[ours] = torch.cat([weights[name] for name in theirs]) if len(theirs) > 1 else weights[theirs[0]]
        used.update(theirs)

    words, output = weights["git.embeddings.word_embeddings.weight"], weights.get("output.weight")
    tied = output is None or torch.equal(output, words)
    used.add("output.weight")
    if output is not None and not tied:
        converted["decoder.output_weight"] = output
    frames = [f"git.img_temporal_embedding.{i}" for i in range(_count(weights, r"git\.img_temporal_embedding\.(\d+)$"))]
    if frames:
        converted["encoder.frame_embedding"] = torch.cat([weights[name] for name in frames])
    used.update(frames)
    if leftover := sorted(name for name in weights.keys() - used if not name.endswith("position_ids")):
        raise CheckpointError(f"not the weights of a GIT: it has no {leftover[0]}")

    for name in ("cls_token", "pos_embed"):
        tensor = converted[f"encoder.backbone.{name}"]
        converted[f"encoder.backbone.{name}"] = tensor.reshape(1, -1, tensor.shape[-1])
    return _config(converted, config, preprocessor, layers=layers, depth=depth, frames=len(frames), tied=tied), converted


def _modules(layers: int, depth: int) -> list[tuple[str, tuple[str, ...], str]]:
    """(our module, GIT's modules, "weight" or "bias") of all Linear and LayerNorm modules."""
    modules = dict(_ENCODER_MODULES | _DECODER_MODULES)
    for count, per_layer in ((layers, _DECODER_LAYER_MODULES), (depth, _ENCODER_LAYER_MODULES)):
        for i in range(count):
            modules |= {ours.format(i=i): tuple(name.format(i=i) for name in theirs) for ours, theirs in per_layer.items()}
    return [(ours, theirs, kind) for ours, theirs in modules.items() for kind in ("weight", "bias")]


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    return len({found[1] for found in map(re.compile(pattern).match, weights) if found})


def _config(
    converted: Mapping[str, Tensor],
    config: Mapping[str, Any],
    preprocessor: Mapping[str, Any],
    *,
    layers: int,
    depth: int,
    frames: int,
    tied: bool,
) -> ModelConfig:
    vision = config.get("vision_config", {})
    if not isinstance(vision, Mapping):
        raise CheckpointError(f"config.json: vision_config must be an object, not {vision!r}")
    vocab_size, width = converted["decoder.token_embedding.weight"].shape
    vit_width, _, patch, _ = converted["encoder.backbone.patch_embed.proj.weight"].shape
    side = patch * round((converted["encoder.backbone.pos_embed"].shape[1] - 1) ** 0.5)
    _require(config, "hidden_act", "gelu")
    _require(config, "layer_norm_eps", 1e-12)
    _require(vision, "layer_norm_eps", 1e-5)
    dropout = config.get("hidden_dropout_prob", 0.1)
    if not isinstance(dropout, int | float):
        raise CheckpointError(f"hidden_dropout_prob must be a number, not {dropout!r}")
    _require(config, "attention_probs_dropout_prob", dropout)
    ids = {name: config.get(name, default) for name, default in (("bos_token_id", 101), ("eos_token_id", 102), ("pad_token_id", 0))}
    if isinstance(ids["eos_token_id"], list):
        if len(set(ids["eos_token_id"])) != 1:
            raise CheckpointError(f"eos_token_id {ids['eos_token_id']} is not supported; GIT has one end token")
        ids["eos_token_id"] = ids["eos_token_id"][0]
    certainty = config.get(CERTAINTY, {})
    scale = certainty.get("scale")
    vit_heads = _heads(vision, vit_width)
    vit_ffn = converted["encoder.backbone.blocks.0.mlp.fc1.weight"].shape[0]
    return ModelConfig(
        encoder=EncoderConfig(
            name=_timm_name(patch, vit_width, depth, vit_heads, vision.get("hidden_act", "quick_gelu")),
            arguments=_timm_arguments(patch, vit_width, depth, vit_heads, side, vit_ffn),
            frames=frames,
        ),
        preprocessing=read_preprocessing(preprocessor, side),
        vocab_size=vocab_size,
        width=width,
        layers=layers,
        heads=_heads(config, width),
        ffn_width=converted["decoder.blocks.0.ffn.0.weight"].shape[0],
        max_text_tokens=converted["decoder.position_embedding.weight"].shape[0],
        dropout=dropout,
        norm="post",
        label_smoothing=certainty.get("label_smoothing", 0.0),  # where nothing is said, samples are drawn from the distribution that it computes
        tied_output=tied,
        confidence_scale=None if scale is None else tuple(scale),
        **ids,
    )


def _heads(settings: Mapping[str, Any], width: int) -> int:
    heads = settings.get("num_attention_heads", max(1, width // _HEAD_DIM))
    if not isinstance(heads, int) or isinstance(heads, bool) or heads < 1 or width % heads:
        raise CheckpointError(f"num_attention_heads {heads!r} does not divide the width {width}")
    return heads


def _require(settings: Mapping[str, Any], name: str, value: Any) -> None:
    if settings.get(name, value) != value:
        raise CheckpointError(f"{name} {settings[name]!r} is not supported; GIT has {value!r}")


def _timm_name(patch: int, width: int, depth: int, heads: int, activation: str) -> str:
    name = _CLIP_VITS.get((patch, width, depth, heads), "vit_base_patch16_clip_quickgelu_224")
    if activation == "quick_gelu":
        return name
    if activation == "gelu":
        return name.replace("_quickgelu", "")
    raise CheckpointError(f"the image encoder's hidden_act {activation!r} is not supported; GIT has 'quick_gelu' (CLIP's) or 'gelu'")


def _timm_arguments(patch: int, width: int, depth: int, heads: int, side: int, ffn: int) -> dict[str, Any]:
    arguments: dict[str, Any] = {} if side == 224 else {"img_size": side}
    if (patch, width, depth, heads) not in _CLIP_VITS or ffn != 4 * width:
        arguments |= {"img_size": side, "patch_size": patch, "embed_dim": width, "depth": depth, "num_heads": heads, "mlp_ratio": ffn / width}
    return arguments


def read_preprocessing(preprocessor: Mapping[str, Any], side: int) -> Preprocessing:
    """CLIP's: the shorter side to `side`, then the middle square; or straight to a square where the file says so."""
    steps = {name: value for name, value in preprocessor.items() if name.startswith("do_")}
    for name, value in steps.items():
        if value is None and name not in _STEPS:
            continue
        if not isinstance(value, bool) or (value and name not in _STEPS):
            raise CheckpointError(f"preprocessor_config.json: {name} {value!r} is not supported")
    for name in ("do_resize", "do_rescale"):
        _require(preprocessor, name, True)
    factor = preprocessor.get("rescale_factor", 1 / 255)
    if not isinstance(factor, float) or not abs(factor * 255 - 1) <= 1e-3:
        raise CheckpointError(f"preprocessor_config.json: rescale_factor {factor!r} is not supported; 1/255 is")
    centred, wanted = _sides(preprocessor, side)
    if wanted != {side}:
        raise CheckpointError(f"preprocessor_config.json asks for images of {sorted(map(str, wanted))} pixels, the image encoder for {side}")
    resampling = preprocessor.get("resample", 3)
    if not isinstance(resampling, int) or resampling not in _PIL_RESAMPLING:
        raise CheckpointError(f"preprocessor_config.json: resample {resampling!r} is not supported; 2 (bilinear) and 3 (bicubic) are")
    mean, std = preprocessor.get("image_mean", _CLIP_MEAN), preprocessor.get("image_std", _CLIP_STD)
    if preprocessor.get("do_normalize", True) is False:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if not isinstance(mean, list | tuple) or not isinstance(std, list | tuple):
        raise CheckpointError(f"preprocessor_config.json: image_mean and image_std must be three numbers each, not {mean!r} and {std!r}")
    return Preprocessing(
        image_size=side,
        mean=tuple(mean),
        std=tuple(std),
        interpolation=_PIL_RESAMPLING[resampling],
        crop="center" if centred else "squeeze",
    )


def _sides(preprocessor: Mapping[str, Any], side: int) -> tuple[bool, set[Any]]:
    """Whether the middle is taken, and the sides that are asked for. A number alone is the shorter side, as older versions wrote it."""
    size, crop = preprocessor.get("size", {"shortest_edge": side}), preprocessor.get("crop_size", side)
    if isinstance(size, int):
        size = {"shortest_edge": size} if preprocessor.get("do_center_crop", True) else {"height": size, "width": size}
    if not isinstance(size, Mapping):
        raise CheckpointError(f"preprocessor_config.json: size must be an object, not {size!r}")
    if preprocessor.get("do_center_crop", True) and "shortest_edge" in size:
        if isinstance(crop, Mapping) and crop.keys() != {"height", "width"}:
            raise CheckpointError(f"preprocessor_config.json: crop_size must be a height and a width, not {dict(crop)}")
        return True, {size["shortest_edge"], *(crop.values() if isinstance(crop, Mapping) else (crop,))}
    return False, {size.get("height"), size.get("width")}
