"""BLIP and GIT as the training loop takes them, against transformers called as its documentation has it, or against what is written out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from blips import DEC, END, KINDS, small_peer
from torch import Tensor

from model import CheckpointError
from peers import PeerConfig, PeerNetwork
from training.optimizer import build_optimizer

TEXTS = [[5, 9, 11, 30], [7], [6, 8, 10, 12, 13, 40, 41], [50, 20]]
IMAGE_TOKENS = 17  # 32 pixels in patches of 8, and one for all of the picture


def pixels(count: int = len(TEXTS)) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def begin_of(peer: PeerNetwork) -> int:
    return DEC if peer.config.kind == "blip" else 1


def padded(rows: list[list[int]], filler: int) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [filler] * (longest - len(row)) for row in rows])


def as_the_loop_has_it(peer: PeerNetwork, texts: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Inputs and labels, which are one place further on."""
    return padded([[begin_of(peer), *text] for text in texts], 0), padded([[*text, END] for text in texts], -100)


def as_theirs_has_it(peer: PeerNetwork, texts: list[list[int]]) -> dict[str, Tensor]:
    """The whole text for input and for label, as their own training has it, which shifts by itself."""
    whole = [[begin_of(peer), *text, END] for text in texts]
    return {
        "input_ids": padded(whole, 0),
        "labels": padded(whole, -100),
        "attention_mask": padded([[1] * len(text) for text in whole], 0),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_the_one_that_transformers_computes(kind: str) -> None:
    """Of texts of different lengths: padding neither counts nor is seen."""
    peer = small_peer(kind)
    input_ids, labels = as_the_loop_has_it(peer, TEXTS)
    ours = peer.summed_loss(pixels(), input_ids, labels) / sum(len(text) + 1 for text in TEXTS)
    theirs = peer.network(pixel_values=pixels(), **as_theirs_has_it(peer, TEXTS)).loss
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-5)
    ours.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in peer.network.named_parameters()}
    peer.zero_grad()
    theirs.backward()
    for name, parameter in peer.network.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-5, rtol=1e-4)


def test_with_label_smoothing_it_is_blips_own_in_training_and_without_it_in_evaluation() -> None:
    peer = small_peer("blip", label_smoothing=0.1)
    smoothed = small_peer("blip").network
    smoothed.text_decoder.label_smoothing = 0.1  # what `BlipTextConfig.label_smoothing` sets
    input_ids, labels = as_the_loop_has_it(peer, TEXTS)
    count = sum(len(text) + 1 for text in TEXTS)
    with torch.no_grad():
        plain = peer.network(pixel_values=pixels(), **as_theirs_has_it(peer, TEXTS)).loss
        theirs = smoothed(pixel_values=pixels(), **as_theirs_has_it(peer, TEXTS)).loss
        assert float(peer.summed_loss(pixels(), input_ids, labels)) / count == pytest.approx(float(plain), rel=1e-5)
        assert float(peer.train().summed_loss(pixels(), input_ids, labels)) / count == pytest.approx(float(theirs), rel=1e-5)
    assert float(theirs) != pytest.approx(float(plain), rel=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_texts_of_one_picture_are_computed_as_if_each_had_its_own(kind: str) -> None:
    peer = small_peer(kind)
    input_ids, labels = as_the_loop_has_it(peer, TEXTS)
    places = torch.tensor([0, 0, 1, 0])
    with torch.no_grad():
        shared, other = (peer.summed_loss(pixels(2), input_ids, labels, one) for one in (places, 1 - places))
        repeated = peer.network(pixel_values=torch.stack([pixels(2)[place] for place in (0, 0, 1, 0)]), **as_theirs_has_it(peer, TEXTS)).loss
    assert float(shared) / sum(len(text) + 1 for text in TEXTS) == pytest.approx(float(repeated), rel=1e-5)
    assert float(other) != pytest.approx(float(shared), rel=1e-3)


def mean_log_probability(network: Any, image: Tensor, begin: int, text: list[int]) -> float:
    """By a forward pass over the whole text."""
    with torch.no_grad():
        logits = network(pixel_values=image[None], input_ids=torch.tensor([[begin, *text[:-1]]])).logits[0, -len(text) :]
    return float(logits.log_softmax(-1)[range(len(text)), text].mean())


def until_end(tokens: list[int]) -> list[int]:
    """A text with its end token, where it has one."""
    return tokens[: tokens.index(END) + 1] if END in tokens else tokens


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_generated_tokens_are_those_of_transformers_and_their_scores_those_of_a_forward_pass(kind: str, num_beams: int) -> None:
    peer = small_peer(kind)
    found, scores = peer.generate(pixels(6), num_beams=num_beams, max_new_tokens=10)
    theirs = peer.network.generate(pixel_values=pixels(6), num_beams=num_beams, max_new_tokens=10, do_sample=False)
    assert found.tolist() == theirs[:, 1:].tolist()
    texts = [until_end(tokens) for tokens in found.tolist()]
    assert len({len(text) for text in texts}) > 1, "padding after the end would go unnoticed"
    assert any(END in text for text in texts)
    expected = [mean_log_probability(peer.network, image, begin_of(peer), text) for image, text in zip(pixels(6), texts, strict=True)]
    assert scores.tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_is_longer_than_the_run_wants_or_the_network_has_positions_for(kind: str) -> None:
    peer = small_peer(kind, max_text_tokens=7)
    assert peer.generate(pixels(6), num_beams=1)[0].shape[1] == 7
    assert peer.generate(pixels(6), num_beams=1, max_new_tokens=100)[0].shape[1] == 7
    assert peer.generate(pixels(6), num_beams=1, max_new_tokens=4)[0].shape[1] == 4
    assert small_peer(kind, max_text_tokens=512).config.max_text_tokens == 64
    short = small_peer(kind, max_text_tokens=512, max_position_embeddings=9)
    assert short.generate(pixels(6), num_beams=2)[0].shape[1] <= 9


def attention_by_hand(peer: PeerNetwork, input_ids: Tensor) -> list[Tensor]:
    """Softmax of queries times keys, which hooks read off the layers: of each layer (B, heads, T, keys)."""
    kept: dict[str, Tensor] = {}
    pattern = "crossattention.self." if peer.config.kind == "blip" else "attention.self."
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: kept.__setitem__(name, output))
        for name, module in peer.network.named_modules()
        if pattern in name and name.endswith((".query", ".key")) and "image_encoder" not in name
    ]
    with torch.no_grad():
        peer.network(pixel_values=pixels(len(input_ids)), input_ids=input_ids)
    for hook in hooks:
        hook.remove()
    layers = []
    for name in sorted(name for name in kept if name.endswith(".query")):
        query, key = (kept[one].unflatten(-1, (5, 8)).transpose(1, 2) for one in (name, name.removesuffix("query") + "key"))
        products = query[:, :, -input_ids.shape[1] :] @ key.transpose(2, 3) / math.sqrt(8)
        if peer.config.kind == "git":  # all of the picture, and of the text what came before
            seen = torch.ones(products.shape[-2:], dtype=torch.bool).tril(IMAGE_TOKENS)
            products = products.masked_fill(~seen, -math.inf)
        layers.append(products.softmax(-1))
    return layers


@pytest.mark.parametrize("kind", KINDS)
def test_where_it_looks_is_the_mean_attention_over_layers_and_heads(kind: str) -> None:
    peer = small_peer(kind)
    input_ids = torch.tensor([[begin_of(peer), 5, 9, 11, 30], [begin_of(peer), 40, 8, 7, 6]])
    maps = peer.attention_maps(pixels(2), input_ids)
    assert maps is not None
    assert maps.shape == (2, 5, 4, 4)
    torch.testing.assert_close(maps.sum((2, 3)), torch.ones(2, 5))
    layers = attention_by_hand(peer, input_ids)
    assert len(layers) == (2 if kind == "blip" else 3)
    over_patches = torch.stack(layers).mean((0, 2))[..., 1:IMAGE_TOKENS]
    torch.testing.assert_close(maps.flatten(2), over_patches / over_patches.sum(-1, keepdim=True), atol=1e-5, rtol=1e-4)
    assert float(maps.max() / maps.min()) > 1.5  # it looks somewhere


def test_the_way_attention_is_computed_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GIT has one way alone today; where it has several, the quick one hands no weights over, and training goes on with it."""
    peer = small_peer("git")
    config, chosen = peer.network.config, []

    def choose(way: str) -> None:
        chosen.append(way)
        config._attn_implementation = way

    monkeypatch.setattr(peer.network, "set_attn_implementation", choose)
    config._attn_implementation = "sdpa"
    input_ids = torch.tensor([[1, 5, 9]])
    assert peer.attention_maps(pixels(1), input_ids) is not None
    assert chosen == ["eager", "sdpa"]
    with pytest.raises(IndexError):
        peer.attention_maps(pixels(1), input_ids + 1000)
    assert chosen == ["eager", "sdpa"] * 2
    assert config._attn_implementation == "sdpa"


def vision_layers(kind: str, learning: set[str]) -> set[str]:
    """The parts of the encoder that learn: embeddings, pre_layrnorm, layers.0 and so on."""
    prefix = "network.vision_model." if kind == "blip" else "network.git.image_encoder.vision_model."
    within = {name.removeprefix(prefix).removeprefix("encoder.") for name in learning if name.startswith(prefix)}
    return {".".join(name.split(".")[: 2 if name.startswith("layers") else 1]) for name in within}


@pytest.mark.parametrize("kind", KINDS)
def test_freezing_goes_from_the_pixels_on(kind: str) -> None:
    def learning(share: float) -> set[str]:
        peer = small_peer(kind)
        peer.freeze_encoder(share)
        return {name for name, parameter in peer.named_parameters() if parameter.requires_grad}

    every = learning(0.001)
    assert vision_layers(kind, every) == {"layers.0", "layers.1", "layers.2", "post_layernorm"}
    half = learning(0.5)
    assert vision_layers(kind, half) == {"layers.2", "post_layernorm"}
    whole = learning(1)
    assert vision_layers(kind, whole) == set()
    rest = {name for name, _ in small_peer(kind).named_parameters() if "vision_model" not in name}
    assert rest <= half & whole  # what leads to the decoder's width learns too


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_that_learns_is_in_one_group_and_has_a_gradient(kind: str, optimizer: Any, share: float) -> None:
    """Embeddings of frames, which a GIT for videos brings, are left as they are: nothing waits for a gradient that does not come."""
    peer = small_peer(kind, **({"num_image_with_embedding": 3} if kind == "git" else {}))
    if share:
        peer.freeze_encoder(share)
    groups = build_optimizer(optimizer, peer.encoder, peer.decoder, learning_rate=1.0, encoder_rate=0.2, weight_decay=0.1).param_groups
    names = {id(parameter): name for name, parameter in peer.named_parameters()}
    seen = [names[id(parameter)] for group in groups for parameter in group["params"]]
    assert sorted(seen) == sorted(name for name, parameter in peer.named_parameters() if parameter.requires_grad)
    assert not any("img_temporal_embedding" in name for name in seen)
    for group in groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            assert group["lr"] == pytest.approx(0.2 if "vision_model" in name else 1.0), name
            plain = parameter.ndim < 2 or any(part in name for part in ("norm", "class_embedding", "position_embedding", "word_embeddings"))
            assert group["weight_decay"] == (0 if plain else 0.1), name
    input_ids, labels = as_the_loop_has_it(peer, TEXTS)
    peer.train().summed_loss(pixels(), input_ids, labels).backward()
    assert {name for name, parameter in peer.named_parameters() if parameter.grad is not None} == set(seen)


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("kind", KINDS)
def test_activations_computed_again_give_the_same_gradients(kind: str, share: float) -> None:
    gradients = []
    for again in (False, True):
        peer = small_peer(kind, hidden_dropout_prob=0.1).train()
        if share:
            peer.freeze_encoder(share)
        if again:
            peer.enable_gradient_checkpointing()
            passes = count_calls(peer)
        torch.manual_seed(5)
        peer.summed_loss(pixels(), *as_the_loop_has_it(peer, TEXTS)).backward()
        gradients.append({name: parameter.grad for name, parameter in peer.named_parameters() if parameter.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-5)
    assert max(passes.values()) == 2  # so it was computed again


def count_calls(peer: PeerNetwork) -> dict[str, int]:
    """How often each linear layer of the decoder computes."""
    calls: dict[str, int] = {}
    for name, module in peer.decoder.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda _module, _inputs, _output, name=name: calls.__setitem__(name, calls.get(name, 0) + 1))
    return calls


@pytest.mark.parametrize("kind", KINDS)
def test_another_one_with_its_weights_computes_the_same(kind: str) -> None:
    peer = small_peer(kind)
    input_ids, _ = as_the_loop_has_it(peer, TEXTS)
    weights = {name: tensor.clone() for name, tensor in peer.state_dict().items()}
    other = peer.with_weights(weights)
    assert not other.training
    assert torch.equal(other(pixels(), input_ids), peer(pixels(), input_ids))
    with torch.no_grad():
        next(other.parameters()).add_(1)
    assert torch.equal(next(peer.parameters()), next(iter(weights.values())))  # it has weights of its own


def test_pictures_prepared_in_a_way_that_training_cannot_follow_are_refused() -> None:
    peer = small_peer("blip")
    peer.processor.image_processor.do_normalize, peer.processor.image_processor.resample = True, 0
    with pytest.raises(CheckpointError, match="resample 0 is not supported"):
        PeerConfig.of(peer.network, peer.processor, max_text_tokens=8, label_smoothing=0.0)
    peer.processor.image_processor.resample, peer.processor.image_processor.size = 3, {"height": 48, "width": 48}
    with pytest.raises(CheckpointError, match="asks for images of"):
        PeerConfig.of(peer.network, peer.processor, max_text_tokens=8, label_smoothing=0.0)
