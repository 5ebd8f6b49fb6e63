"""The image side: any timm model, its features as a row of image tokens."""

from __future__ import annotations

import dataclasses
import difflib
import math
from pathlib import Path
from typing import Any

import timm
import torch
from einops import rearrange
from torch import Tensor, nn

from model.config import EncoderConfig
from model.efficientnet import with_timm_names
from model.linear import Linear
from model.preprocessing import Preprocessing
from model.unused import drop_unused

_CLASSES = 1000  # of a classifier, whose weights an encoder does not need


class EncoderError(ValueError):
    """A timm model that cannot serve as an image encoder, with the reason."""


class ImageEncoder(nn.Module):
    """(B, 3, h, w) pixels -> (B, P, `width`) image tokens; (B, F, 3, h, w), F images of one prompt, -> (B, F * P, `width`).

    A transformer hands over all its tokens (class token and patches, as GIT does); a model with feature maps one of them, flattened row by
    row, with a learned position embedding added, since convolutions do not say where they are. Linear + LayerNorm projects to the
    decoder's width. Of several images each has a learned embedding added before the projection, as GIT's video frames do. Parts of the timm model
    that this does not need are dropped.
    """

    def __init__(self, config: EncoderConfig, preprocessing: Preprocessing, width: int) -> None:
        super().__init__()
        height, breadth = preprocessing.size
        self.backbone: Any = _create(config, preprocessing.size, {})
        Linear.take_over(self.backbone)
        self.takes_stage = config.stage is not None
        self._attentions: list[Any] = [module for module in self.backbone.modules() if getattr(module, "fused_attn", False)]
        try:
            output = drop_unused(self.backbone, self._run, torch.zeros(1, 3, height, breadth))
        except (RuntimeError, AssertionError, ValueError, TypeError, IndexError) as error:
            raise EncoderError(f"timm model {config.name!r} does not take images of {height} x {breadth}: {error}") from error
        if not isinstance(output, Tensor) or output.ndim not in (3, 4):
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise EncoderError(f"timm model {config.name!r} gives features of shape {shape}, neither a row of tokens nor a feature map")
        self.gives_map = output.ndim == 4
        self.channels_last = getattr(self.backbone, "output_fmt", "NCHW") == "NHWC"
        self.num_image_tokens, feature_width = self._tokens(output).shape[1:]
        self.grid = self._grid(output)
        self.position = nn.Parameter(torch.zeros(1, self.num_image_tokens, feature_width)) if self.gives_map else None
        self.frame_embedding = nn.Parameter(torch.zeros(config.frames, 1, feature_width)) if config.frames else None
        self.projection = nn.Sequential(Linear(feature_width, width), nn.LayerNorm(width, eps=1e-5))
        self._frozen: list[nn.Module] = []

    def _run(self, backbone: Any, pixel_values: Tensor) -> Any:
        return backbone(pixel_values)[0] if self.takes_stage else backbone.forward_features(pixel_values)

    def _tokens(self, output: Tensor) -> Tensor:
        if not self.gives_map:
            return output
        return rearrange(output, "b h w k -> b (h w) k" if self.channels_last else "b k h w -> b (h w) k")

    def _grid(self, output: Tensor) -> tuple[int, int] | None:
        """Rows and columns of the picture that the last image tokens stand for, row by row; tokens of the whole picture (class token,
        registers) come before them. None where a model orders them otherwise."""
        if self.gives_map:
            rows, columns = output.shape[1:3] if self.channels_last else output.shape[2:]
        else:
            rows, columns = getattr(getattr(self.backbone, "patch_embed", None), "grid_size", (0, 0))
        extra = self.num_image_tokens - rows * columns
        return (int(rows), int(columns)) if rows and extra == (0 if self.gives_map else getattr(self.backbone, "num_prefix_tokens", 0)) else None

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.project(self.features(pixel_values))

    def features(self, pixel_values: Tensor) -> Tensor:
        """What the timm model makes of the pixels: (B, P, width of the features), or (B, F, P, width of the features) of several images."""
        frames = pixel_values.shape[1] if pixel_values.ndim == 5 else 0
        known = 0 if self.frame_embedding is None else len(self.frame_embedding)
        if pixel_values.ndim not in (4, 5) or frames > known:
            raise ValueError(
                f"pixel_values must be (B, 3, H, W), or (B, F, 3, H, W) with F up to {known} (encoder.frames of this model); "
                f"they are {tuple(pixel_values.shape)}"
            )
        if not torch.compiler.is_compiling():  # which fuses for itself
            self._choose_attention(pixel_values)
        if not frames:
            return self._tokens(self._run(self.backbone, pixel_values))
        features = self._tokens(self._run(self.backbone, rearrange(pixel_values, "b f c h w -> (b f) c h w")))
        return rearrange(features, "(b f) p k -> b f p k", f=frames)

    def project(self, features: Tensor) -> Tensor:
        """What `features` gives -> (B, P, `width`), or (B, F * P, `width`)."""
        if self.position is not None:
            features = features + self.position
        if features.ndim == 4 and self.frame_embedding is not None:
            features = rearrange(features + self.frame_embedding[: features.shape[1]], "b f p k -> b (f p) k")
        return self.projection(features)

    def load_pretrained(self, config: EncoderConfig, preprocessing: Preprocessing, file: Path | None = None) -> None:
        """Take timm's published weights, or those of a file of them: safetensors, or a .pth that holds tensors alone.

        Raises:
            EncoderError: timm has none for this name, they cannot be fetched, or the file is none of this model's.
        """
        if file is None:
            pretrained_preprocessing(config.name)
        weights = None if file is None else _read_file(file, config.name)
        try:
            whole = _create(config, preprocessing.size, {"pretrained": True} | _source(config, weights)).state_dict()
            self.backbone.load_state_dict({name: whole[name] for name in self.backbone.state_dict()})
            if weights is not None and config.stage is not None:  # of which timm leaves out what does not fit
                _create(dataclasses.replace(config, stage=None), preprocessing.size, {"pretrained": True} | _source(config, weights))
        except EncoderError as error:
            if file is None:
                raise
            raise EncoderError(f"{file} does not hold the weights of {config.name!r}: {_first_line(error.__cause__ or error)}") from error
        except Exception as error:  # the hub client and timm raise many kinds
            if file is not None:
                raise EncoderError(f"{file} does not hold the weights of {config.name!r}: {_first_line(error)}") from error
            raise EncoderError(
                f"the published weights of {config.name!r} cannot be had ({_first_line(error)}). With no network, download them elsewhere and "
                "give --model.encoder-file PATH"
            ) from error

    def freeze(self, share: float) -> None:
        """Stop the first `share` of the timm model's layers, from the pixels on, from learning; their norms and dropout stay as in evaluation."""
        layers = [layer for layer in self.backbone.modules() if not list(layer.children()) and list(layer.parameters())]
        self._frozen = layers[: math.ceil(share * len(layers))]
        frozen = [parameter for layer in self._frozen for parameter in layer.parameters()]
        if self._frozen:  # embeddings of positions and the class token come before all layers
            frozen += list(self.backbone.parameters(recurse=False))
        if share == 1:
            self._frozen, frozen = [self.backbone], list(self.backbone.parameters())
        for parameter in frozen:
            parameter.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> ImageEncoder:
        super().train(mode)
        for layer in self._frozen:
            layer.eval()
        return self

    def _choose_attention(self, pixel_values: Tensor) -> None:
        """As `model.decoder.attend`: where a CPU works in bfloat16, the products written out are quicker than the fused kernel."""
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else pixel_values.dtype
        for attention in self._attentions:
            attention.fused_attn = pixel_values.device.type != "cpu" or dtype != torch.bfloat16


def pretrained_preprocessing(name: str) -> dict[str, Any]:
    """The mean, std and interpolation that timm's published weights of this name expect.

    Raises:
        EncoderError: there are none.
    """
    _check_known(name)
    known = timm.get_pretrained_cfg(name.removeprefix("timm/"))
    if known is None or not known.has_weights:
        raise EncoderError(f"timm publishes no weights for {name!r}; timm.list_models(pretrained=True) lists those it has")
    return {"mean": tuple(known.mean), "std": tuple(known.std), "interpolation": known.interpolation}


def _check_known(name: str) -> None:
    if not timm.is_model(name.removeprefix("timm/").split(".")[0]):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        raise EncoderError(f"timm has no model {name!r}" + (f"; did you mean {', '.join(near)}?" if near else ""))


def _create(config: EncoderConfig, size: tuple[int, int], weights: dict[str, Any]) -> nn.Module:
    """The timm model, built for images of this size where it wants to know; `weights` says where they come from."""
    _check_known(config.name)
    if "img_size" in config.arguments:
        backbone = _build(config, config.arguments, weights)
    else:
        try:
            backbone = _build(config, config.arguments | {"img_size": size}, weights)
        except EncoderError as error:
            if not isinstance(error.__cause__, TypeError):
                raise
            backbone = _build(config, config.arguments, weights)  # a convolutional network, which takes any size
    stride = getattr(getattr(getattr(backbone, "patch_embed", None), "proj", None), "stride", None)
    if isinstance(stride, tuple) and any(side % step for side, step in zip(size, stride, strict=True)):  # the rest would not be seen
        raise EncoderError(f"images of {size[0]} x {size[1]} pixels are not whole patches of {stride[0]} x {stride[1]}, which {config.name!r} wants")
    return backbone


def _build(config: EncoderConfig, arguments: dict[str, Any], weights: dict[str, Any]) -> nn.Module:
    kind: dict[str, Any] = {"num_classes": 0} if config.stage is None else {"num_classes": 0, "features_only": True, "out_indices": (config.stage,)}
    try:
        return timm.create_model(config.name.removeprefix("timm/"), **(kind | weights | arguments))
    except (RuntimeError, TypeError, AssertionError, LookupError, ValueError, AttributeError, ArithmeticError) as error:
        raise EncoderError(f"timm cannot build {config.name!r} with stage {config.stage} and {arguments}: {_first_line(error)}") from error


def _read_file(file: Path, name: str) -> dict[str, Tensor]:
    """
    Raises:
        EncoderError: missing, damaged, it holds more than tensors, or those of a TensorFlow model, which pads and normalises otherwise, for another.
    """
    if not file.is_file():
        raise EncoderError(f"{file} does not exist; --model.encoder-file takes a .safetensors or .pth of timm's")
    try:
        weights = dict(timm.models.load_state_dict(str(file), weights_only=True))
    except Exception as error:  # pickle's and safetensors' errors share no base
        raise EncoderError(
            f"{file} cannot be read as weights ({_first_line(error)}); a .safetensors is, and a .pth that holds tensors alone"
        ) from error
    if broken := next((name for name, tensor in weights.items() if not isinstance(tensor, Tensor) or not bool(tensor.isfinite().all())), None):
        raise EncoderError(f"{file} is damaged: {broken} holds something else than numbers")
    renamed, plain = with_timm_names(weights), name.removeprefix("timm/")
    if renamed.keys() != weights.keys() and not plain.startswith("tf_"):
        raise EncoderError(f"{file} holds the weights of a TensorFlow EfficientNet: give --model.encoder tf_{plain}")
    return renamed


def _source(config: EncoderConfig, weights: dict[str, Tensor] | None) -> dict[str, Any]:
    """What tells timm where weights come from. Of a file all of the backbone must be there; only a classifier may be left over."""
    if weights is None:
        return {}
    plain = dataclasses.replace(config, stage=None)
    classifier = (
        _build(plain, config.arguments, {"num_classes": _CLASSES}).state_dict().keys() - _build(plain, config.arguments, {}).state_dict().keys()
    )
    kept = {name: value for name, value in weights.items() if name not in classifier}
    if not kept:  # which timm would take for none, and fetch the published ones
        raise EncoderError("it holds no weights" + (" but a classifier's" if weights else ""))
    return {"pretrained_cfg_overlay": {"state_dict": kept, "classifier": None, "custom_load": False}}  # strictly, without a classifier


def _first_line(error: BaseException) -> str:
    """What an error says, or its kind where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) if lines else type(error).__name__
