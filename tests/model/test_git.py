"""GIT's weights in our network against Hugging Face's `GitForCausalLM`: identical weights, identical answers."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from gits import BOS, EOS, PAD, VOCABULARY, build_git
from PIL import Image, ImageFilter
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPImageProcessor, GitConfig, GitForCausalLM

from model import CaptionModel, CheckpointError, load_model


@pytest.fixture(scope="module")
def theirs() -> GitForCausalLM:
    return build_git()


@pytest.fixture(scope="module")
def directory(theirs: GitForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("git")
    theirs.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def ours(directory: Path) -> CaptionModel:
    return CaptionModel.from_git(directory)


def pixels(batch: int, frames: int | None = None) -> Tensor:
    shape = (batch, 3, 32, 32) if frames is None else (batch, frames, 3, 32, 32)
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def texts(batch: int, tokens: int = 9) -> Tensor:
    ids = torch.randint(3, VOCABULARY, (batch, tokens), generator=torch.Generator().manual_seed(4))
    ids[:, 0] = BOS
    return ids


def their_logits(model: GitForCausalLM, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        output = model(input_ids=input_ids, pixel_values=pixel_values, attention_mask=attention_mask, use_cache=False)
    return output.logits[:, -input_ids.shape[1] :]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": True},
        {"vision": {"hidden_act": "gelu"}},
        {"vision": {"patch_size": 16, "image_size": 64}},
        {"vision": {"intermediate_size": 192}},
    ],
    ids=["untied", "tied", "gelu", "patch 16 at 64 px", "the usual ffn"],
)
def test_logits_are_equal(changes: dict[str, object], tmp_path: Path) -> None:
    model = build_git(**changes)
    model.save_pretrained(tmp_path)
    ours = CaptionModel.from_git(tmp_path)
    assert ours.config.tied_output == bool(changes.get("tie_word_embeddings"))
    size = model.config.vision_config.image_size
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(ours(images, texts(3)), their_logits(model, images, texts(3)), atol=1e-4, rtol=0)


def test_the_loss_and_its_gradients_are_equal(directory: Path) -> None:
    theirs = GitForCausalLM.from_pretrained(directory).train()
    ours = CaptionModel.from_git(directory).train()
    ids = texts(4)
    labels = ids.clone()
    labels[1, 6:] = labels[3, 4:] = -100
    loss = theirs(input_ids=ids, pixel_values=pixels(4), labels=labels).loss
    loss.backward()
    ours.config = _without_smoothing(ours)
    our_loss = ours.loss(pixels(4), ids[:, :-1], labels[:, 1:])
    our_loss.backward()
    torch.testing.assert_close(our_loss, loss, rtol=1e-5, atol=0)
    theirs_grad = theirs.git.encoder.layer[1].attention.self.key.weight.grad
    our_grad = ours.decoder.blocks[1].attention.qkv.weight.grad
    assert theirs_grad is not None
    assert our_grad is not None
    torch.testing.assert_close(our_grad[40:80], theirs_grad, atol=1e-5, rtol=1e-4)


def _without_smoothing(model: CaptionModel) -> object:
    import dataclasses

    return dataclasses.replace(model.config, label_smoothing=0.0)


@pytest.mark.parametrize("batch", [1, 5])
def test_greedy_tokens_are_identical(theirs: GitForCausalLM, ours: CaptionModel, batch: int) -> None:
    expected = theirs.generate(pixel_values=pixels(batch), max_new_tokens=30, do_sample=False, num_beams=1)[:, 1:]
    tokens, _ = ours.generate(pixels(batch), num_beams=1, max_new_tokens=30)
    assert tokens.tolist() == expected.tolist()


@pytest.mark.parametrize("penalty", [0.6, 1.0])
@pytest.mark.parametrize("batch", [1, 4])
def test_beam_tokens_are_identical(theirs: GitForCausalLM, ours: CaptionModel, batch: int, penalty: float) -> None:
    expected = theirs.generate(
        pixel_values=pixels(batch), max_new_tokens=20, num_beams=4, num_return_sequences=4, length_penalty=penalty, do_sample=False
    )[:, 1:]
    found = ours.search(pixels(batch), num_beams=4, num_return_sequences=4, max_new_tokens=20, length_penalty=penalty)
    flat = [list(text.tokens) for hypotheses in found for text in hypotheses]
    assert flat == [_unpadded(row) for row in expected.tolist()]
    assert len({len(row) for row in flat}) > 1 or batch == 1  # some ended before the limit


def _unpadded(row: list[int]) -> list[int]:
    return row[: row.index(EOS) + 1] if EOS in row else row


def test_padded_batches_equal_single_rows_and_theirs(theirs: GitForCausalLM, ours: CaptionModel) -> None:
    ids = texts(2)
    ids[1, 5:] = PAD
    attention_mask = torch.ones_like(ids)
    attention_mask[1, 5:] = 0
    batch = ours(pixels(2), ids)
    torch.testing.assert_close(batch[1:, :5], ours(pixels(2)[1:], ids[1:, :5]), atol=1e-5, rtol=1e-5)
    expected = their_logits(theirs, pixels(2), ids, attention_mask)
    torch.testing.assert_close(batch[0], expected[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(batch[1, :5], expected[1, :5], atol=1e-4, rtol=0)


@pytest.mark.parametrize("frames", [2, 3])
def test_several_frames_are_equal(tmp_path: Path, frames: int) -> None:
    theirs = build_git(num_image_with_embedding=3)
    theirs.save_pretrained(tmp_path)
    ours = CaptionModel.from_git(tmp_path)
    images = pixels(2, frames)
    torch.testing.assert_close(ours(images, texts(2)), their_logits(theirs, images, texts(2)), atol=1e-4, rtol=0)
    torch.testing.assert_close(ours(images[:, 0], texts(2)), their_logits(theirs, images[:, 0], texts(2)), atol=1e-4, rtol=0)
    tokens, _ = ours.generate(images, num_beams=3, max_new_tokens=8)
    assert len(tokens) == 2
    with pytest.raises(ValueError, match="F up to 3"):
        ours(pixels(1, 4), texts(1))


def test_a_state_dict_and_a_saved_copy_give_the_same(ours: CaptionModel, tmp_path: Path) -> None:
    """Published shapes have heads of 64, which is what a bare state dict is taken to have."""
    theirs = build_git(vocab_size=128, hidden_size=128, num_attention_heads=2, vision={"hidden_size": 64, "num_attention_heads": 1})
    bare = CaptionModel.from_git(theirs.state_dict())
    torch.testing.assert_close(bare(pixels(2), texts(2)), their_logits(theirs, pixels(2), texts(2)), atol=1e-4, rtol=0)
    from model import save_model

    save_model(ours, tmp_path / "ours")
    assert load_model(tmp_path / "ours").config == ours.config
    torch.testing.assert_close(load_model(tmp_path / "ours")(pixels(1), texts(1)), ours(pixels(1), texts(1)), atol=0, rtol=0)


def test_weights_in_several_files_are_read(theirs: GitForCausalLM, ours: CaptionModel, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    torch.testing.assert_close(CaptionModel.from_git(tmp_path)(pixels(1), texts(1)), ours(pixels(1), texts(1)), atol=0, rtol=0)


@pytest.fixture
def broken(directory: Path, tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(directory, tmp_path / "git")
    yield tmp_path / "git"


def edit_config(directory: Path, **changes: object) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_another_architecture_is_named(broken: Path) -> None:
    weights = load_file(broken / "model.safetensors")
    weights["vision_model.embeddings.cls"] = torch.zeros(2)
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"it has no vision_model\.embeddings\.cls"):
        CaptionModel.from_git(broken)
    edit_config(broken, model_type="blip")
    with pytest.raises(CheckpointError, match="model_type 'blip' is not supported"):
        CaptionModel.from_git(broken)


def test_a_missing_tensor_is_named(broken: Path) -> None:
    weights = load_file(broken / "model.safetensors")
    del weights["git.encoder.layer.1.intermediate.dense.bias"]
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"layer\.1\.intermediate\.dense\.bias is missing"):
        CaptionModel.from_git(broken)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "relu"}, "hidden_act 'relu' is not supported"),
        ({"layer_norm_eps": 1e-3}, "layer_norm_eps 0.001 is not supported"),
        ({"num_attention_heads": 7}, "num_attention_heads 7 does not divide the width 40"),
        ({"num_attention_heads": 0}, "num_attention_heads 0 does not divide"),
        ({"num_attention_heads": "5"}, "num_attention_heads '5' does not divide"),
        ({"eos_token_id": 900}, "eos_token_id 900 is outside the vocabulary"),
        ({"eos_token_id": [2, 3]}, r"eos_token_id \[2, 3\] is not supported; GIT has one end token"),
        ({"eos_token_id": []}, r"eos_token_id \[\] is not supported"),
        ({"vision_config": [1]}, r"vision_config must be an object, not \[1\]"),
        ({"vision_config": []}, r"vision_config must be an object, not \[\]"),
        ({"eos_token_id": [[1]]}, "is of another kind"),
        ({"hidden_dropout_prob": "x", "attention_probs_dropout_prob": "x"}, "hidden_dropout_prob must be a number, not 'x'"),
    ],
)
def test_settings_that_are_not_gits_are_named(broken: Path, changes: dict[str, object], message: str) -> None:
    edit_config(broken, **changes)
    with pytest.raises(CheckpointError, match=message):
        CaptionModel.from_git(broken)


def test_one_end_token_may_stand_in_a_list(broken: Path) -> None:
    edit_config(broken, eos_token_id=[5])
    assert CaptionModel.from_git(broken).config.eos_token_id == 5


def with_processor(directory: Path, **changes: object) -> Path:
    settings = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).to_dict() | changes
    (directory / "preprocessor_config.json").write_text(json.dumps({name: value for name, value in settings.items() if value is not None}))
    return directory


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"do_normalize": False},
        {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]},
        {"resample": 2},
        {"do_center_crop": False, "size": {"height": 32, "width": 32}},
    ],
    ids=str,
)
def test_settings_of_the_image_processor_are_followed(broken: Path, changes: dict[str, object]) -> None:
    theirs = CLIPImageProcessor.from_pretrained(with_processor(broken, **changes))
    image = Image.effect_noise((50, 40), 60).convert("RGB").filter(ImageFilter.GaussianBlur(2))
    found = CaptionModel.from_git(broken).config.preprocessing(image)
    expected = theirs(image, return_tensors="pt").pixel_values[0]
    levels = 3 / 255 / min(theirs.image_std if theirs.do_normalize else [1.0])  # the resizers round apart
    torch.testing.assert_close(found, expected, atol=levels, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"do_resize": False}, "do_resize False is not supported"),
        ({"do_normalize": "no"}, "do_normalize 'no' is not supported"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order True is not supported"),
        ({"rescale_factor": float("nan")}, "rescale_factor nan is not supported"),
        ({"crop_size": {}}, "crop_size must be a height and a width"),
        ({"crop_size": [32, 32]}, "is of another kind"),
        ({"size": {"shortest_edge": [1]}}, "is of another kind"),
        ({"do_rescale": False}, "do_rescale False is not supported"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor .* is not supported; 1/255 is"),
        ({"resample": 1}, "resample 1 is not supported"),
        ({"resample": "bicubic"}, "resample 'bicubic' is not supported"),
        ({"size": 48}, "asks for images of .*48"),
        ({"size": "large"}, "size must be an object, not 'large'"),
        ({"image_mean": 0.5}, "image_mean and image_std must be three numbers each"),
        ({"image_std": [0.5, 0.0, 0.5]}, "std must be above 0"),
    ],
)
def test_settings_of_the_image_processor_that_cannot_be_followed_are_named(broken: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        CaptionModel.from_git(with_processor(broken, **changes))


def test_a_size_of_one_number_is_the_shorter_side(broken: Path) -> None:
    """As versions of transformers before 4.25 wrote it."""
    assert CaptionModel.from_git(with_processor(broken, size=32, crop_size=32)).config.preprocessing.crop == "center"


def test_a_truncated_file_is_named(broken: Path) -> None:
    path = broken / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is broken"):
        CaptionModel.from_git(broken)


def test_pickled_weights_are_refused_with_the_reason(broken: Path) -> None:
    (broken / "model.safetensors").rename(broken / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin would be unpickled code and is refused; save it again"):
        CaptionModel.from_git(broken)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["base", "base, patch 32", "large"])
def test_published_shapes_are_equal(shape: str, tmp_path: Path) -> None:
    """git-base (CLIP ViT-B/16), its patch 32 twin and git-large (ViT-L/14) with random weights."""
    vision = {"base": {}, "base, patch 32": {"patch_size": 32}, "large": {}}[shape]
    if shape == "large":
        vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16, "patch_size": 14}
    torch.manual_seed(0)
    theirs = GitForCausalLM(GitConfig(vision_config=vision)).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "norm" in name.lower() or name.endswith("bias"):
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    theirs.save_pretrained(tmp_path)
    ours = CaptionModel.from_git(tmp_path)
    names = {"base": "patch16", "base, patch 32": "patch32", "large": "large_patch14"}
    assert names[shape] in ours.config.encoder.name
    assert ours.config.encoder.arguments == {}
    images = torch.randn(2, 3, 224, 224, generator=generator)
    ids = torch.randint(1000, 30000, (2, 8), generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(ours(images, ids), their_logits(theirs, images, ids), atol=1e-4, rtol=0)
    if shape == "base":
        expected = theirs.generate(pixel_values=images, max_new_tokens=30, num_beams=1, do_sample=False)[:, 1:]
        assert ours.generate(images, num_beams=1, max_new_tokens=30)[0].tolist() == expected.tolist()
        expected = theirs.generate(pixel_values=images, max_new_tokens=12, num_beams=4, do_sample=False)[:, 1:]
        assert ours.generate(images, num_beams=4, max_new_tokens=12)[0].tolist() == expected.tolist()


def test_attention_to_the_image_is_what_git_reports(tmp_path: Path) -> None:
    theirs = build_git()
    theirs.save_pretrained(tmp_path)
    ours = CaptionModel.from_git(tmp_path)
    pixels, ids = torch.randn(2, 3, 32, 32), torch.randint(3, 50, (2, 6))
    with torch.no_grad():
        theirs.set_attn_implementation("eager")
        layers = theirs(input_ids=ids, pixel_values=pixels, output_attentions=True).attentions
    images = layers[0].shape[-1] - 6
    expected = torch.stack([layer[:, :, images:, :images].mean(1) for layer in layers]).sum(0)
    found = ours.decoder.attention_to_image(ids, ours.decoder.prefix(ours.encoder(pixels)))
    torch.testing.assert_close(found, expected / expected.sum(-1, keepdim=True), atol=1e-5, rtol=1e-4)
    maps = ours.attention_maps(pixels, ids)
    assert maps is not None
    patches = expected[..., 1:]  # the class token is no place
    torch.testing.assert_close(maps.flatten(-2), patches / patches.sum(-1, keepdim=True), atol=1e-5, rtol=1e-4)
