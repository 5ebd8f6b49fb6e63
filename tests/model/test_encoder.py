"""Any timm model as the image encoder. The families tried are those of tests/encoders.py."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from encoders import FAMILIES, SWIN, build

from model import CaptionModel, EncoderConfig, EncoderError, load_model, pretrained_preprocessing, save_model
from model.linear import Linear


@pytest.mark.parametrize("size", [64, (64, 96)], ids=str)
@pytest.mark.parametrize(("name", "arguments"), FAMILIES, ids=[f"{name}-{i}" for i, (name, _) in enumerate(FAMILIES)])
def test_every_family_gives_a_row_of_tokens(name: str, arguments: dict[str, object], size: int | tuple[int, int], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build(name, arguments, size)
    height, width = model.config.preprocessing.size
    pixels = torch.randn(2, 3, height, width)
    tokens = model.encoder(pixels)
    assert tokens.shape == (2, model.num_image_tokens, model.config.width)
    assert tokens.isfinite().all()
    torch.testing.assert_close(model.encoder(pixels[1:]), tokens[1:], atol=1e-4, rtol=1e-4)  # no picture sees another
    assert not torch.allclose(tokens[0], tokens[1], atol=1e-3)
    found, scores = model.generate(pixels, num_beams=2, max_new_tokens=4)
    assert len(found) == 2
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert json.dumps(asdict(loaded.config)) == json.dumps(asdict(model.config))
    tokens_again, scores_again = loaded.generate(pixels, num_beams=2, max_new_tokens=4)
    assert torch.equal(tokens_again, found)
    torch.testing.assert_close(scores_again, scores)
    assert all(parameter.norm().isfinite() for parameter in loaded.parameters())


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
        ("test_resnet", {"depth": 3}, 64, None, "cannot build 'test_resnet'.*depth"),
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


def load(model: CaptionModel, file: Path) -> None:
    model.encoder.load_pretrained(model.config.encoder, model.config.preprocessing, file)


@pytest.mark.parametrize(
    ("name", "size", "stage"),
    [("test_vit", 160, None), ("test_vit", 64, None), ("test_resnet", 64, 2), ("test_efficientnet", 64, 1), ("test_vit3", 64, 1)],
)
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_weights_from_a_file(tmp_path: Path, name: str, size: int, stage: int | None, ending: str) -> None:
    """Of the whole classifier, as timm publishes it, at the size it publishes: what comes out is what timm's own loading gives."""
    published = timm.create_model(name)
    torch.save(published.state_dict(), tmp_path / "weights.pth")
    safetensors.torch.save_file({key: value.contiguous() for key, value in published.state_dict().items()}, tmp_path / "weights.safetensors")
    model = build(name, {}, size, stage)
    pixels = torch.randn(2, 3, size, size)
    before = model.encoder.features(pixels)
    load(model, tmp_path / f"weights.{ending}")
    kind = {"num_classes": 0} if stage is None else {"features_only": True, "out_indices": (stage,)}
    where = {} if name in ("test_resnet", "test_efficientnet") else {"img_size": size}
    overlay = {"file": str(tmp_path / "weights.pth")}
    theirs = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **kind, **where).eval()
    expected = theirs.forward_features(pixels) if stage is None else theirs(pixels)[0].flatten(2).transpose(1, 2)
    torch.testing.assert_close(model.encoder.features(pixels), expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(before, expected, atol=1e-3)


def test_the_encoders_products_are_taken_over_and_nothing_else() -> None:
    model = build("test_vit", {}, 64)
    plain = timm.create_model("test_vit", num_classes=0, img_size=64).eval()
    plain.load_state_dict(model.encoder.backbone.state_dict())
    pixels = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(model.encoder.features(pixels), plain.forward_features(pixels), atol=1e-5, rtol=1e-5)
    assert {type(module) for module in model.encoder.modules() if isinstance(module, torch.nn.Linear)} == {Linear}


@pytest.mark.parametrize("name", ["levit_128s", "repvit_m0_9", "mobilenetv3_small_050", "pvt_v2_b0", "timm/test_vit"])
def test_every_part_of_a_classifier_may_be_left_over(tmp_path: Path, name: str) -> None:
    published = timm.create_model(name.removeprefix("timm/"))
    torch.save(published.state_dict(), tmp_path / "weights.pth")
    model = build(name, {}, 224 if name.startswith("levit") else 64)
    load(model, tmp_path / "weights.pth")
    found = model.encoder.backbone.state_dict()
    shared = [key for key, value in published.state_dict().items() if key in found and found[key].shape == value.shape]
    assert len(shared) > 0.9 * len(found)
    assert all(torch.equal(found[key], published.state_dict()[key]) for key in shared)


@pytest.mark.parametrize("stage", [None, 1])
def test_a_file_of_something_else_is_refused(tmp_path: Path, stage: int | None) -> None:
    model = build("test_resnet", {}, 64, stage)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    whole = timm.create_model("test_resnet").state_dict()
    lacking = {name: value for name, value in whole.items() if name != "layer1.0.conv1.weight"}
    for number, weights in enumerate(({f"x.{name}": value for name, value in whole.items()}, lacking, timm.create_model("test_vit").state_dict())):
        torch.save(weights, tmp_path / f"{number}.pth")
        with pytest.raises(EncoderError, match=rf"{number}\.pth does not hold the weights of 'test_resnet': .*Missing key"):
            load(model, tmp_path / f"{number}.pth")
    behind = {name: value for name, value in whole.items() if name != "layer4.0.conv1.weight"}  # of which a stage makes no use
    torch.save(behind, tmp_path / "behind.pth")
    with pytest.raises(EncoderError, match=r"behind\.pth does not hold .*layer4\.0\.conv1\.weight"):
        load(model, tmp_path / "behind.pth")
    for nothing in ({}, {name: value for name, value in whole.items() if name.startswith("fc.")}):
        torch.save(nothing, tmp_path / "nothing.pth")
        with pytest.raises(EncoderError, match=r"nothing\.pth does not hold the weights of 'test_resnet': it holds no weights"):
            load(model, tmp_path / "nothing.pth")
    torch.save(whole | {"another.weight": torch.zeros(1)}, tmp_path / "more.pth")
    with pytest.raises(EncoderError, match=r"more\.pth does not hold .*another\.weight"):
        load(model, tmp_path / "more.pth")
    with pytest.raises(EncoderError, match=r"none\.pth does not exist"):
        load(model, tmp_path / "none.pth")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    with pytest.raises(EncoderError, match=r"empty\.safetensors cannot be read as weights"):
        load(model, tmp_path / "empty.safetensors")
    for number, damage in enumerate((float("nan"), "a text")):
        torch.save(
            whole | {"layer1.0.conv1.weight": torch.full_like(whole["layer1.0.conv1.weight"], damage) if number == 0 else damage},
            tmp_path / "nan.pth",
        )
        with pytest.raises(EncoderError, match=r"nan\.pth is damaged: layer1\.0\.conv1\.weight"):
            load(model, tmp_path / "nan.pth")
    torch.save({"model": Harmful(tmp_path / "ran")}, tmp_path / "code.pth")
    with pytest.raises(EncoderError, match=r"code\.pth cannot be read as weights"):
        load(model, tmp_path / "code.pth")
    assert not (tmp_path / "ran").exists()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_file_that_lacks_a_part_is_refused_where_timm_is_not_strict(tmp_path: Path) -> None:
    """As it is with the feature maps of EfficientNets, which have no head."""
    whole = timm.create_model("test_efficientnet").state_dict()
    lost = next(name for name in whole if name.startswith("blocks.") and name.endswith("weight"))
    torch.save({name: value for name, value in whole.items() if name != lost}, tmp_path / "lacking.pth")
    with pytest.raises(EncoderError, match=rf"lacking\.pth does not hold .*{lost}"):
        load(build("test_efficientnet", {}, 64, 1), tmp_path / "lacking.pth")


class Harmful:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.path,))


def test_published_weights_that_cannot_be_had() -> None:
    model = build("test_vit", {}, 64)
    with pytest.raises(EncoderError, match=r"cannot be had .* download them elsewhere"):
        model.encoder.load_pretrained(EncoderConfig(name="test_vit"), model.config.preprocessing)
    with pytest.raises(EncoderError, match="timm has no model 'vit_nowhere'"):
        pretrained_preprocessing("vit_nowhere")
    with pytest.raises(EncoderError, match="timm publishes no weights for 'vit_base_patch16_18x2_224'"):
        pretrained_preprocessing("vit_base_patch16_18x2_224")
    clip = pretrained_preprocessing("vit_base_patch16_clip_224.openai")
    assert clip["mean"] == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    assert clip["interpolation"] == "bicubic"
