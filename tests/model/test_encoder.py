"""Any timm model as the image encoder. The families tried are the parameters of the tests: timm's own tiny `test_*` models, one for each
architecture, and small cuts of Swin, MobileNet, DINOv3, a ViT with registers, Hiera, LeViT and PVT."""

from pathlib import Path

import pytest
import timm
import torch
from examples import tiny_config

from model import CaptionModel, EncoderConfig, EncoderError, Preprocessing, pretrained_preprocessing

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
    return CaptionModel(tiny_config(encoder=encoder, preprocessing=Preprocessing(image_size=size))).eval()


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


@pytest.mark.parametrize(
    ("name", "arguments", "stage", "grid"),
    [
        ("test_vit", {}, None, (4, 6)),  # class token before them
        ("vit_small_patch14_reg4_dinov2", {"depth": 1, "embed_dim": 48, "num_heads": 2, "patch_size": 16}, None, (4, 6)),
        ("test_resnet", {}, 2, (8, 12)),
        ("swin_tiny_patch4_window7_224", SWIN, 1, (8, 12)),
        ("hiera_tiny_224", {"embed_dim": 16, "stages": (1, 1, 1, 1), "num_heads": 1}, None, None),  # tokens in an order of its own
    ],
)
def test_which_tokens_stand_for_which_places(name: str, arguments: dict[str, object], stage: int | None, grid: tuple[int, int] | None) -> None:
    model = build(name, arguments, (64, 96), stage)
    assert model.encoder.grid == grid
    maps = model.attention_maps(torch.randn(1, 3, 64, 96), torch.tensor([[1, 5, 6]]))
    if grid is None:
        assert maps is None
    else:
        assert maps is not None
        assert maps.shape == (1, 3, *grid)
        torch.testing.assert_close(maps.sum((-2, -1)), torch.ones(1, 3))


def test_freezing_goes_from_the_pixels_on() -> None:
    model = build("test_vit", {}, 64).train()
    model.encoder.freeze(0.5)
    frozen = [name for name, parameter in model.encoder.backbone.named_parameters() if not parameter.requires_grad]
    learning = [name for name, parameter in model.encoder.backbone.named_parameters() if parameter.requires_grad]
    assert any("patch_embed" in name for name in frozen)
    assert "pos_embed" in frozen
    assert learning
    assert all("norm" in name or "blocks" in name for name in learning)
    first = {name.split(".")[1] for name in frozen if name.startswith("blocks")}
    last = {name.split(".")[1] for name in learning if name.startswith("blocks")}
    assert max(first) <= min(last)
    model.encoder.freeze(1)
    assert not any(parameter.requires_grad for parameter in model.encoder.backbone.parameters())
    assert all(parameter.requires_grad for parameter in model.encoder.projection.parameters())


def test_a_frozen_encoder_stays_as_in_evaluation() -> None:
    model = build("test_resnet", {"drop_rate": 0.5}, 64, None)
    model.encoder.freeze(1)
    model.train()
    assert not any(module.training for module in model.encoder.backbone.modules())
    assert model.encoder.projection.training
    before = {name: value.clone() for name, value in model.encoder.backbone.state_dict().items()}
    ids = torch.randint(3, 20, (4, 5))
    model.loss(torch.randn(4, 3, 64, 64), ids, ids).backward()
    assert all(torch.equal(value, before[name]) for name, value in model.encoder.backbone.state_dict().items())  # running statistics too


def test_published_weights_from_a_file(tmp_path: Path) -> None:
    published = timm.create_model("test_vit", num_classes=0, img_size=64)
    torch.save(published.state_dict(), tmp_path / "weights.pth")
    model = build("test_vit", {}, 64)
    arguments = {"pretrained_cfg_overlay": {"file": str(tmp_path / "weights.pth"), "num_classes": 0}}
    model.encoder.load_pretrained(EncoderConfig(name="test_vit", arguments=arguments), model.config.preprocessing)
    for name, value in published.state_dict().items():
        if name in model.encoder.backbone.state_dict():
            assert torch.equal(model.encoder.backbone.state_dict()[name], value), name


def test_published_weights_that_cannot_be_had() -> None:
    model = build("test_vit", {}, 64)
    with pytest.raises(EncoderError, match=r"cannot be had .* download them elsewhere"):
        model.encoder.load_pretrained(EncoderConfig(name="test_vit"), model.config.preprocessing)
    with pytest.raises(EncoderError, match="timm publishes no weights for 'vit_nowhere'"):
        pretrained_preprocessing("vit_nowhere")
    clip = pretrained_preprocessing("vit_base_patch16_clip_224.openai")
    assert clip["mean"] == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    assert clip["interpolation"] == "bicubic"
