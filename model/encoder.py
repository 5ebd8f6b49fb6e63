"""The image side: any timm model, its features as a row of image tokens."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn

from model.config import EncoderConfig, PreprocessingConfig


class EncoderError(ValueError):
    """A timm model that cannot serve as an image encoder, with the reason."""


class ImageEncoder(nn.Module):
    """(B, 3, h, w) pixels -> (B, P, `width`) image tokens; (B, F, 3, h, w), F images of one prompt, -> (B, F * P, `width`).

    A transformer hands over all its tokens (class token and patches, as GIT does); a CNN one of its feature maps, flattened row by
    row, with a learned position embedding added, since convolutions do not say where they are. Linear + LayerNorm projects to the
    decoder's width. Of several images each has a learned embedding added before the projection, as GIT's video frames do.
    """

    def __init__(self, config: EncoderConfig, preprocessing: PreprocessingConfig, width: int) -> None:
        super().__init__()
        self.backbone: Any = _create(config)
        self.is_cnn = config.stage is not None
        size = preprocessing.image_size
        with torch.no_grad():
            was_training = self.backbone.training
            self.backbone.eval()
            try:
                features = self._features(torch.zeros(1, 3, size, size))
            except (RuntimeError, AssertionError, ValueError) as error:
                raise EncoderError(f"timm model {config.name!r} does not take images of {size} x {size}: {error}") from error
            self.backbone.train(was_training)
        self.num_image_tokens, feature_width = features.shape[1:]
        self.position = nn.Parameter(torch.zeros(1, self.num_image_tokens, feature_width)) if self.is_cnn else None
        self.frame_embedding = nn.Parameter(torch.zeros(config.frames, 1, feature_width)) if config.frames else None
        self.projection = nn.Sequential(nn.Linear(feature_width, width), nn.LayerNorm(width, eps=1e-5))

    def _features(self, pixel_values: Tensor) -> Tensor:
        if self.is_cnn:
            return self.backbone(pixel_values)[0].flatten(2).transpose(1, 2)
        features = self.backbone.forward_features(pixel_values)
        if features.ndim != 3:
            raise EncoderError(
                f"this timm model gives features of shape {tuple(features.shape)}, not a row of tokens; "
                "name a stage (encoder.stage) to take a feature map of it"
            )
        return features

    def forward(self, pixel_values: Tensor) -> Tensor:
        frames = pixel_values.shape[1] if pixel_values.ndim == 5 else 0
        known = 0 if self.frame_embedding is None else len(self.frame_embedding)
        if pixel_values.ndim not in (4, 5) or frames > known:
            raise ValueError(
                f"pixel_values must be (B, 3, H, W), or (B, F, 3, H, W) with F up to {known} (encoder.frames of this model); "
                f"they are {tuple(pixel_values.shape)}"
            )
        features = self._features(pixel_values.flatten(0, 1) if frames else pixel_values)
        if self.position is not None:
            features = features + self.position
        if frames and self.frame_embedding is not None:
            features = (features.unflatten(0, (-1, frames)) + self.frame_embedding[:frames]).flatten(1, 2)
        return self.projection(features)


def _create(config: EncoderConfig) -> nn.Module:
    try:
        if config.stage is None:
            return timm.create_model(config.name, num_classes=0, **config.arguments)
        return timm.create_model(config.name, features_only=True, out_indices=(config.stage,), **config.arguments)
    except (RuntimeError, TypeError, AssertionError, IndexError, ValueError) as error:
        raise EncoderError(f"timm cannot build {config.name!r} with stage {config.stage} and {config.arguments}: {error}") from error
