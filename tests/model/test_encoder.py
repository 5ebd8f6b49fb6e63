"""Any timm model as the image encoder. The families tried are the parameters of the tests: timm's own tiny `test_*` models, one for each
architecture, and small cuts of Swin, MobileNet, DINOv3, a ViT with registers, Hiera, LeViT and PVT."""

import pytest
import timm
import torch
from examples import tiny_config

from model import CaptionModel, EncoderConfig, EncoderError, PreprocessingConfig

SWIN = {"embed_dim": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}
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
]


def build(name: str, arguments: dict[str, object], size: int | tuple[int, int], stage: int | None = None) -> CaptionModel:
    encoder = EncoderConfig(name=name, stage=stage, arguments=arguments)
    return CaptionModel(tiny_config(encoder=encoder, preprocessing=PreprocessingConfig(image_size=size))).eval()


@pytest.mark.parametrize("size", [64, (64, 96)], ids=str)
@pytest.mark.parametrize(("name", "arguments"), FAMILIES, ids=[f"{name}-{i}" for i, (name, _) in enumerate(FAMILIES)])
def test_every_family_gives_a_row_of_tokens(name: str, arguments: dict[str, object], size: int | tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = build(name, arguments, size)
    height, width = model.config.preprocessing.size
    pixels = torch.randn(2, 3, height, width)
    tokens = model.encoder(pixels)
    assert tokens.shape == (2, model.num_image_tokens, model.config.width)
    assert tokens.isfinite().all()
    torch.testing.assert_close(model.encoder(pixels[1:]), tokens[1:], atol=1e-4, rtol=1e-4)  # no picture sees another
    assert not torch.allclose(tokens[0], tokens[1], atol=1e-3)
    found, _ = model.generate(pixels, num_beams=2, max_new_tokens=4)
    assert len(found) == 2


@pytest.mark.parametrize(
    ("name", "arguments", "stage", "tokens"),
    [
        ("test_resnet", {}, 2, 64),  # stride 8 of 64 x 64
        ("test_convnext", {}, 1, 64),
        ("swin_tiny_patch4_window7_224", SWIN, 1, 64),
        ("mobilenetv3_small_050", {}, 2, 64),
        ("test_vit", {}, 1, 16),  # patches of 16, a feature map without the class token
    ],
)
def test_a_stage_is_a_feature_map(name: str, arguments: dict[str, object], stage: int, tokens: int) -> None:
    model = build(name, arguments, 64, stage)
    assert model.num_image_tokens == tokens
    assert model.encoder.position is not None


def test_attention_is_written_out_where_that_is_quicker_and_stays_the_same() -> None:
    encoder = build("test_vit", {}, 64).encoder
    attentions = [module for module in encoder.modules() if hasattr(module, "fused_attn")]
    assert attentions
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = encoder(pixels)
        assert all(attention.fused_attn for attention in attentions)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = encoder(pixels).float()
        assert not any(attention.fused_attn for attention in attentions)
        torch.testing.assert_close(mixed, expected, atol=0.1, rtol=0.05)
        assert torch.equal(encoder(pixels), expected)


def test_rows_of_a_feature_map_follow_each_other() -> None:
    """A dot in the picture changes the token at its place, whichever way the model lays out its maps."""
    for name, arguments in (("test_convnext", {}), ("swin_tiny_patch4_window7_224", SWIN)):
        model = build(name, arguments, (32, 64), stage=1)  # 4 x 8 tokens
        blank, dotted = torch.zeros(1, 3, 32, 64), torch.zeros(1, 3, 32, 64)
        dotted[:, :, 9:15, 33:39] = 3.0  # row 1, column 4
        change = (model.encoder(dotted) - model.encoder(blank)).abs().sum(-1)[0]
        assert int(change.argmax()) == 1 * 8 + 4


@pytest.mark.parametrize(
    ("name", "arguments", "size", "stage", "message"),
    [
        ("vit_tiny_patch16_22", {}, 64, None, "timm has no model 'vit_tiny_patch16_22'; did you mean vit_tiny_patch16_224"),
        ("test_vit", {}, 70, None, "70 x 70 pixels are not whole patches of 16 x 16"),
        ("test_resnet", {}, 64, 9, "cannot build 'test_resnet' with stage 9"),
        ("test_resnet", {"depht": 3}, 64, None, "cannot build 'test_resnet'.*depht"),
        ("vit_tiny_patch16_224", {"img_size": 160, "depth": 1}, 64, None, "does not take images of 64 x 64"),
    ],
)
def test_an_encoder_that_does_not_fit_says_why(name: str, arguments: dict[str, object], size: int, stage: int | None, message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        build(name, arguments, size, stage)
