"""What a run begins with: of BLIP or GIT of transformers, and of a checkpoint of ours."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from blips import DEC, END, KINDS, save_blip
from gits import WORDS, save_git
from inverters import tiny_inverter

from model import CaptionModel, CheckpointError, EncoderError, Preprocessing, load_model
from peers import PeerNetwork
from tokenizer import PromptTokenizer
from training.config import ConfigError, NetworkName, TrainConfig, mini, mini_blip, mini_git
from training.objective import CaptionLoss
from training.starting import build_network, initial_tokenizer

NETWORKS: dict[str, NetworkName] = {"blip": "hf-blip", "git": "hf-git"}
SAVE: dict[str, Any] = {"blip": save_blip, "git": save_git}


@pytest.fixture(scope="module")
def tokenizer() -> PromptTokenizer:
    return PromptTokenizer.train(["a cat on a beach"] * 3, vocab_size=300)


def small(kind: str, **changes: Any) -> TrainConfig:
    """A run from nothing; some of `changes` are of its network."""
    model: dict[str, Any] = {"encoder": "test_vit", "encoder_arguments": ("img_size=32",), "stage": None, "image_size": 32, "width": 32, "heads": 2}
    model |= {"layers": 2, "ffn_width": 48} | {name: changes.pop(name) for name in list(changes) if hasattr(mini().model, name)}
    return dataclasses.replace(mini(), network=NETWORKS[kind], model=dataclasses.replace(mini().model, **model), **changes)


def begin(config: TrainConfig, tokenizer: PromptTokenizer, text_tokens: int = 24) -> PeerNetwork:
    built = build_network(config, tokenizer, text_tokens=text_tokens, pretrained=True)
    assert isinstance(built, PeerNetwork)
    return built


@pytest.mark.parametrize("kind", KINDS)
def test_the_encoder_is_as_large_as_the_one_of_timm_that_was_named(kind: str, tokenizer: PromptTokenizer) -> None:
    """To the last parameter: CLIP's, which GIT has, has no bias in its patches and one norm more."""
    peer = begin(small(kind), tokenizer)
    theirs = timm.create_model("test_vit", img_size=32, num_classes=0)
    width = theirs.embed_dim
    expected = sum(parameter.numel() for parameter in theirs.parameters()) + (0 if kind == "blip" else 2 * width - width)
    assert sum(parameter.numel() for parameter in peer.encoder.parameters()) == expected
    assert peer.num_image_tokens == theirs.patch_embed.num_patches + 1
    heads = peer.network.config.vision_config.num_attention_heads
    assert heads == theirs.blocks[0].attn.num_heads
    shaped = begin(small(kind, encoder_arguments=("img_size=32", "patch_size=8", "embed_dim=48", "depth=3", "num_heads=3")), tokenizer)
    vision = shaped.network.config.vision_config
    sizes = (vision.patch_size, vision.hidden_size, vision.num_hidden_layers, vision.num_attention_heads, vision.intermediate_size)
    assert sizes == (8, 48, 3, 3, 48 * theirs.blocks[0].mlp.fc1.out_features // width)


@pytest.mark.parametrize("kind", KINDS)
def test_the_decoder_the_pictures_and_the_text_are_those_of_the_settings(kind: str, tokenizer: PromptTokenizer) -> None:
    config = small(kind, dropout=0.2, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), interpolation="bilinear", crop="center", label_smoothing=0.2)
    peer = begin(config, tokenizer)
    text = peer.network.config.get_text_config()
    assert (text.hidden_size, text.num_hidden_layers, text.num_attention_heads, text.intermediate_size) == (32, 2, 2, 48)
    assert text.hidden_dropout_prob == text.attention_probs_dropout_prob == 0.2
    seen = Preprocessing(image_size=32, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), interpolation="bilinear", crop="center")
    assert peer.config.preprocessing == seen
    assert (peer.config.vocab_size, peer.config.label_smoothing) == (tokenizer.vocab_size, 0.2)
    assert peer.config.max_text_tokens == text.max_position_embeddings == 24
    assert begin(small(kind, max_text_tokens=7), tokenizer).config.max_text_tokens == 7


@pytest.mark.parametrize("preset", [mini_git, mini_blip])
def test_the_small_peers_are_as_large_as_ours(preset: Any, tokenizer: PromptTokenizer) -> None:
    """With as many words as the preset's tokenizer may learn: each word is a row of the embedding that reads and writes it."""

    def size(config: TrainConfig) -> int:
        network = build_network(config, tokenizer, text_tokens=24, pretrained=False)
        words = (config.model.vocab_size - tokenizer.vocab_size) * config.model.width
        return sum(parameter.numel() for parameter in network.parameters()) + words

    assert config_without_network(preset()) == config_without_network(mini())
    assert size(preset()) / size(mini()) == pytest.approx(1, abs=0.1)


def config_without_network(config: TrainConfig) -> TrainConfig:
    return dataclasses.replace(config, name="", network="reprompt", model=mini().model)


@pytest.mark.parametrize("kind", KINDS)
def test_from_nothing_there_is_no_tokenizer_and_from_a_checkpoint_its_own(tmp_path: Path, kind: str) -> None:
    SAVE[kind](tmp_path)
    config = small(kind)
    assert initial_tokenizer(config) is None
    found = initial_tokenizer(dataclasses.replace(config, init=str(tmp_path)))
    assert found is not None
    assert found.vocab_size == len(WORDS)
    assert found.decode(found.encode("a cat on a dog")) == "a cat on a dog"


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_brings_its_network_whatever_the_settings_of_one_from_nothing(tmp_path: Path, kind: str) -> None:
    """In float32, in which weights are trained."""
    theirs = SAVE[kind](tmp_path).bfloat16()
    theirs.save_pretrained(tmp_path)
    config = small(kind, init=str(tmp_path), label_smoothing=0.3, width=128, image_size=224)
    own = initial_tokenizer(config)
    assert own is not None
    peer = begin(config, own)
    assert all(torch.equal(tensor, peer.network.state_dict()[name].bfloat16()) for name, tensor in theirs.state_dict().items())
    assert {parameter.dtype for parameter in peer.parameters()} == {torch.float32}
    begins = DEC if kind == "blip" else 1
    assert (peer.config.bos_token_id, peer.config.eos_token_id, peer.config.pad_token_id) == (begins, END, 0)
    assert (peer.config.preprocessing.image_size, peer.config.preprocessing.crop) == (32, "squeeze" if kind == "blip" else "center")
    assert (peer.config.label_smoothing, peer.config.max_text_tokens) == (0.3, 24)
    assert begin(config, own, text_tokens=500).config.max_text_tokens == 64  # its positions
    larger = PromptTokenizer.train(["a cat on a beach"] * 3, vocab_size=300)
    with pytest.raises(ConfigError, match=rf"the tokenizer has {larger.vocab_size} tokens, the network {peer.config.vocab_size}; they belong to"):
        begin(config, larger)
    other = dataclasses.replace(config, network="hf-git" if kind == "blip" else "hf-blip")
    with pytest.raises(CheckpointError, match=f"holds a model of the type '{kind}'"):
        begin(other, own)


@pytest.mark.parametrize("kind", KINDS)
def test_the_encoder_is_frozen_and_activations_are_computed_again_where_that_was_asked_for(kind: str, tokenizer: PromptTokenizer) -> None:
    peer = begin(small(kind, frozen_encoder=1.0), tokenizer)
    assert not any(parameter.requires_grad for parameter in peer.encoder.parameters())
    assert all(parameter.requires_grad for parameter in peer.decoder.parameters())
    assert not peer.network.is_gradient_checkpointing
    assert begin(small(kind, gradient_checkpointing=True), tokenizer).network.is_gradient_checkpointing
    assert all(parameter.requires_grad for parameter in begin(small(kind), tokenizer).parameters())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "test_resnet", "encoder_arguments": ()}, "^--network: BLIP and GIT look with a plain vision transformer; test_resnet is none"),
        ({"encoder": "vit_medium_patch16_reg4_gap_256"}, "look with a plain vision transformer; vit_medium_patch16_reg4_gap_256 is none"),
        ({"image_size": (32, 64), "encoder_arguments": ()}, "--model: BLIP and GIT take square pictures"),
        ({"heads": 3}, "--model: a width of 32 is not divided by 3 heads"),
    ],
)
def test_a_network_that_cannot_be_is_named(kind: str, tokenizer: PromptTokenizer, changes: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        begin(small(kind, **changes), tokenizer)
    assert len(str(refused.value).splitlines()) == 1


def test_an_encoder_that_timm_does_not_know_is_named(tokenizer: PromptTokenizer) -> None:
    with pytest.raises(EncoderError, match="nothing_vit"):
        begin(small("git", encoder="nothing_vit"), tokenizer)


def test_a_peer_takes_pictures_and_not_features(tokenizer: PromptTokenizer) -> None:
    with pytest.raises(TypeError, match="takes pictures, not features"):
        CaptionLoss(begin(small("git"), tokenizer), from_features=True)


def test_our_own_network_is_still_the_one_without_a_wish(tokenizer: PromptTokenizer) -> None:
    config = dataclasses.replace(small("git"), network="reprompt")
    assert isinstance(build_network(config, tokenizer, text_tokens=24, pretrained=False), CaptionModel)


def test_how_sure_a_network_was_is_not_taken_over_into_a_run_that_changes_it(tmp_path: Path) -> None:
    inverter = tiny_inverter(confidence_scale=(0.5, 0.4, 0.1))
    inverter.save_pretrained(tmp_path)
    assert load_model(tmp_path).config.confidence_scale == (0.5, 0.4, 0.1)
    config = dataclasses.replace(mini(), init=str(tmp_path))
    model = build_network(config, inverter.tokenizer, text_tokens=24, pretrained=True)
    assert isinstance(model, CaptionModel)
    assert model.config.confidence_scale is None
