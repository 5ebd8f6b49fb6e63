"""Texts against processor, generate and batch_decode called directly, their log-probabilities against a forward pass over the whole text."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blips import DEC, END, KINDS, save_blip, small_peer
from gits import save_git
from PIL import Image
from torch import Tensor

import peers.captioner
from model import NotFiniteError
from peers import PeerCaptioner, Written


def pictures(count: int = 5) -> list[Image.Image]:
    """Coarse noise of several shapes."""
    rng = np.random.default_rng(0)
    sizes = [(64, 64), (90, 41), (33, 70), (32, 32), (200, 120)]
    coarse = [Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)) for _ in range(count)]
    return [image.resize(size, Image.Resampling.NEAREST) for image, size in zip(coarse, sizes, strict=False)]


def captioner(kind: str) -> PeerCaptioner:
    peer = small_peer(kind)
    return PeerCaptioner(peer.network, peer.processor)


def log_probability(writer: PeerCaptioner, image: Image.Image, tokens: list[int]) -> tuple[float, int]:
    """Of the tokens after the first, up to the end token, which counts; and how many they are."""
    text = tokens[1:]
    text = text[: text.index(END) + 1] if END in text else text
    pixel_values = writer.processor(images=[image], return_tensors="pt").pixel_values
    with torch.no_grad():
        logits = writer.network(pixel_values=pixel_values, input_ids=torch.tensor([[tokens[0], *text[:-1]]])).logits[0, -len(text) :]
    return float(logits.log_softmax(-1)[range(len(text)), text].sum()), len(text)


def check_written(writer: PeerCaptioner, images: list[Image.Image], found: list[list[Written]], tokens: Tensor, each: int) -> None:
    texts = [text.strip() for text in writer.processor.batch_decode(tokens, skip_special_tokens=True)]
    assert [[one.text for one in some] for some in found] == [texts[first : first + each] for first in range(0, len(texts), each)]
    lengths = set()
    for place, row in enumerate(tokens.tolist()):
        log_prob, length = log_probability(writer, images[place // each], row)
        one = found[place // each][place % each]
        assert one.log_prob == pytest.approx(log_prob, abs=2e-4)
        assert one.score == pytest.approx(log_prob / length, abs=1e-4)
        lengths.add(length)
    assert len(lengths) > 1, "padding after the end would go unnoticed"


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_beams": 1},
        {"num_beams": 3},
        {"num_beams": 4, "num_return_sequences": 3},
        {"num_beams": 4, "num_return_sequences": 2, "length_penalty": 0.3},
        {"num_beams": 3, "min_new_tokens": 3},
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_it_writes_what_the_documented_way_writes(kind: str, arguments: dict[str, Any]) -> None:
    writer = captioner(kind)
    inputs = writer.processor(images=pictures(), return_tensors="pt")
    tokens = writer.network.generate(**inputs, max_new_tokens=9, do_sample=False, **arguments)
    assert {row[0] for row in tokens.tolist()} == {DEC if kind == "blip" else 1}
    found = writer.write(pictures(), max_new_tokens=9, do_sample=False, **arguments)
    check_written(writer, pictures(), found, tokens, arguments.get("num_return_sequences", 1))


@pytest.mark.parametrize("arguments", [{}, {"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.6}, {"min_new_tokens": 4}])
@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_the_networks_own_log_probability_whatever_they_were_drawn_under(kind: str, arguments: dict[str, Any]) -> None:
    writer = captioner(kind)
    options = {"do_sample": True, "num_return_sequences": 4, "max_new_tokens": 9, "top_k": 0} | arguments
    torch.manual_seed(7)
    tokens = writer.network.generate(**writer.processor(images=pictures(), return_tensors="pt"), **options)
    torch.manual_seed(7)
    check_written(writer, pictures(), writer.write(pictures(), **options), tokens, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_encoded_as_the_network_does_it(kind: str) -> None:
    writer = captioner(kind)
    pixel_values = writer.processor(images=pictures(), return_tensors="pt").pixel_values
    with torch.no_grad():
        if kind == "blip":
            hidden = writer.network(pixel_values=pixel_values, input_ids=torch.tensor([[DEC]] * 5)).last_hidden_state  # of its vision model
        else:
            hidden = writer.network.git.image_encoder(pixel_values).last_hidden_state
    torch.testing.assert_close(writer.encode(pictures()), hidden, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("kind", "save"), [("blip", save_blip), ("git", save_git)])
def test_loaded_again_it_is_the_same_and_any_change_another(tmp_path: Path, kind: Any, save: Any) -> None:
    save(tmp_path / "peer")
    one, two = (PeerCaptioner.load(kind, str(tmp_path / "peer")) for _ in range(2))
    assert one.fingerprint() == two.fingerprint()
    options = {"num_beams": 2, "max_new_tokens": 6, "do_sample": False}
    assert one.write(pictures(), **options) == two.write(pictures(), **options)
    found = {one.fingerprint()}
    with torch.no_grad():
        list(two.network.parameters())[-1].view(-1)[0] += 1e-3
    found.add(two.fingerprint())
    renamed = PeerCaptioner(one.network, copy.deepcopy(one.processor))
    renamed.processor.tokenizer.add_tokens(["harpsichord"])
    found.add(renamed.fingerprint())
    darker = PeerCaptioner(one.network, copy.deepcopy(one.processor))
    darker.processor.image_processor.image_mean = [0.9, 0.9, 0.9]
    found.add(darker.fingerprint())
    one.network.config.update({"layer_norm_eps": 0.1})
    found.add(one.fingerprint())
    assert len(found) == 5


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_computes_no_numbers_writes_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = captioner(kind)
    with torch.no_grad():
        list(writer.network.parameters())[-1].fill_(torch.nan)
    with pytest.raises(NotFiniteError, match="computed no numbers"):
        writer.write(pictures(), do_sample=False, max_new_tokens=4)
    # of one picture of several
    found = torch.zeros(5, 3, dtype=torch.long), torch.tensor([[torch.nan], [-1], [-1], [-1], [-1]]), torch.ones(5, dtype=torch.long)
    monkeypatch.setattr(peers.captioner, "generate", lambda *_, **__: found)
    with pytest.raises(NotFiniteError, match="computed no numbers"):
        writer.write(pictures())
