"""Small networks around encoders of many families: timm's own tiny `test_*` models, one for each architecture, and small cuts of Swin, MobileNet,
DINOv3, a ViT with registers, Hiera, LeViT, PVT, BEiT, BEiTv2 and EVA-02."""

from __future__ import annotations

import timm
from examples import tiny_config

from model import CaptionModel, EncoderConfig, Preprocessing

SWIN = {"embed_dim": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}
CUT = {"depth": 1, "embed_dim": 48, "num_heads": 2}
FAMILIES = [(name, {}) for name in timm.list_models("test_*")] + [
    ("swin_tiny_patch4_window7_224", SWIN),
    ("swinv2_tiny_window8_256", SWIN),
    ("mobilenetv3_small_050", {}),
    ("vit_small_patch16_dinov3", {"depth": 1, "embed_dim": 48, "num_heads": 2}),
    ("vit_small_patch14_reg4_dinov2", {"depth": 1, "embed_dim": 48, "num_heads": 2, "patch_size": 16}),
    ("vit_tiny_patch16_224", {"depth": 1, "class_token": False, "global_pool": "avg"}),
    ("hiera_tiny_224", {"embed_dim": 16, "stages": (1, 1, 1, 1), "num_heads": 1}),
    ("levit_128s", {}),
    ("pvt_v2_b0", {}),
    ("beit_base_patch16_224", CUT),
    ("beitv2_base_patch16_224", CUT),
    ("eva02_tiny_patch14_224", CUT | {"patch_size": 16}),
]


def build(name: str, arguments: dict[str, object], size: int | tuple[int, int], stage: int | None = None) -> CaptionModel:
    encoder = EncoderConfig(name=name, stage=stage, arguments=arguments)
    return CaptionModel(tiny_config(encoder=encoder, preprocessing=Preprocessing(image_size=size))).eval()
