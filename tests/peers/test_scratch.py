"""BLIP and GIT from nothing: their sizes, our tokenizer and preprocessing in them, and what transformers alone reads of them."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blips import KINDS
from PIL import Image
from transformers import AutoProcessor, BlipForConditionalGeneration, GitForCausalLM

from diffusion.mini.world import random_scenes
from model import Preprocessing
from peers import PeerNetwork, Shape, build_peer
from tokenizer import PromptTokenizer

SHAPE = Shape(
    patch_size=8,
    encoder_width=48,
    encoder_layers=3,
    encoder_heads=4,
    encoder_ffn_width=80,
    width=40,
    layers=2,
    heads=5,
    ffn_width=96,
    dropout=0.25,
)
PREPROCESSING = Preprocessing(image_size=32, mean=(0.3, 0.4, 0.5), std=(0.2, 0.25, 0.3))
THEIRS: dict[str, Any] = {"blip": BlipForConditionalGeneration, "git": GitForCausalLM}


@pytest.fixture(scope="module")
def tokenizer() -> PromptTokenizer:
    return PromptTokenizer.train([prompt for _, prompt in zip(range(300), (p for _, p in random_scenes(2, held_out=False)), strict=False)], 400)


def build(kind: str, tokenizer: PromptTokenizer, preprocessing: Preprocessing = PREPROCESSING, **changes: object) -> PeerNetwork:
    shape = dataclasses.replace(SHAPE, **changes)  # type: ignore[arg-type]
    return build_peer(kind, shape, preprocessing, tokenizer, max_text_tokens=20, label_smoothing=0.15)


def picture(width: int, height: int) -> Image.Image:
    """Smooth, as photographs are."""
    coarse = np.random.default_rng(1).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("kind", KINDS)
def test_it_has_the_sizes_that_were_asked_for(kind: str, tokenizer: PromptTokenizer) -> None:
    """Counted by hand from the papers' layers: width x width and so on, biases and norms with them."""
    peer = build(kind, tokenizer)

    def block(width: int, ffn: int, keys: int) -> int:
        """An attention to vectors of the width `keys`, a feed-forward network, and a norm for each."""
        attention = 2 * (width * width + width) + 2 * (keys * width + width)
        return attention + 2 * width * ffn + width + ffn + 2 * 2 * width

    patches = 48 * 3 * 8 * 8
    before = patches + 48 if kind == "blip" else patches  # CLIP's patches have no bias
    norms = 2 * 48 if kind == "blip" else 4 * 48  # CLIP has one before its layers too
    encoder = before + 48 + 17 * 48 + 3 * block(48, 80, 48) + norms
    words = tokenizer.vocab_size * 40 + 20 * 40 + 2 * 40  # embedded, placed, normalised
    if kind == "blip":
        across = 2 * (40 * 40 + 40) + 2 * (48 * 40 + 40) + 2 * 40  # BLIP looks at the picture between attention and feed-forward
        decoder = words + 2 * (block(40, 96, 40) + across) + (40 * 40 + 40 + 2 * 40) + tokenizer.vocab_size
    else:
        decoder = words + 2 * block(40, 96, 40) + (48 * 40 + 40 + 2 * 40) + tokenizer.vocab_size
    assert sum(parameter.numel() for parameter in peer.encoder.parameters()) == encoder
    assert sum(parameter.numel() for parameter in peer.decoder.parameters()) == decoder
    assert sum(parameter.numel() for parameter in peer.parameters()) == encoder + decoder
    assert peer.num_image_tokens == 17
    assert {module.p for name, module in peer.decoder.named_modules() if isinstance(module, torch.nn.Dropout)} == {0.25}
    config = peer.config
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)
    assert (config.max_text_tokens, config.label_smoothing, config.preprocessing) == (20, 0.15, PREPROCESSING)


@pytest.mark.parametrize("kind", KINDS)
def test_it_begins_as_uncertain_as_can_be_and_with_an_encoder_that_sees(kind: str, tokenizer: PromptTokenizer) -> None:
    """BLIP's own configuration draws its encoder's weights with a deviation of 1e-10."""
    torch.manual_seed(0)
    peer = build(kind, tokenizer).eval()
    ids = torch.randint(3, tokenizer.vocab_size, (4, 9))
    pixels = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        loss = float(peer.summed_loss(pixels, ids, ids.roll(-1, 1)))
        features = peer.encoder(pixel_values=pixels).last_hidden_state
    assert loss / ids.numel() == pytest.approx(math.log(tokenizer.vocab_size), rel=0.02)
    for name, parameter in peer.encoder.named_parameters():
        if parameter.ndim == 2 and "layers" in name:
            assert 0.002 < float(parameter.detach().std()) < 0.1, name
    assert float((features[0] - features[1]).abs().mean()) > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_alone_reads_it_and_writes_the_same(
    tmp_path: Path, kind: str, tokenizer: PromptTokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    peer = build(kind, tokenizer, encoder_width=64).eval()
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    peer.save_pretrained(tmp_path)
    network, processor = THEIRS[kind].from_pretrained(tmp_path).eval(), AutoProcessor.from_pretrained(tmp_path)
    image = picture(32, 32)
    pixel_values = processor(images=image, return_tensors="pt").pixel_values
    ids = torch.tensor([[tokenizer.bos_id, *tokenizer.encode("a red fox on a beach")]])
    with torch.no_grad():
        theirs = network(pixel_values=pixel_values, input_ids=ids).logits[:, -ids.shape[1] :]
        assert torch.equal(theirs, peer(pixel_values, ids))
    (tokens,), _ = peer.generate(pixel_values, num_beams=1)
    written = tokenizer.decode(tokens.tolist())
    assert written
    assert processor.decode(network.generate(pixel_values=pixel_values, max_new_tokens=20)[0], skip_special_tokens=True) == written
    card = (tmp_path / "README.md").read_text()  # whose code runs
    exec(card.split("```python\n")[1].split("```")[0].replace("this directory", str(tmp_path)), {"image": image})
    assert capsys.readouterr().out == written + "\n"


@pytest.mark.parametrize("text", ["a red fox on a beach", "two  owls , at night.", "naïve café 猫 🙂", "don't 'stop' it's"])
@pytest.mark.parametrize("kind", KINDS)
def test_its_tokenizer_reads_and_writes_as_ours(tmp_path: Path, kind: str, tokenizer: PromptTokenizer, text: str) -> None:
    build(kind, tokenizer).save_pretrained(tmp_path)
    theirs = AutoProcessor.from_pretrained(tmp_path).tokenizer
    ids = tokenizer.encode(text)
    assert theirs(text, add_special_tokens=False).input_ids == ids
    assert theirs.decode([tokenizer.bos_id, *ids, tokenizer.eos_id, tokenizer.pad_id], skip_special_tokens=True) == tokenizer.decode(ids) == text
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("crop", ["squeeze", "center"])
@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_prepared_as_in_training(tmp_path: Path, kind: str, tokenizer: PromptTokenizer, crop: Any, interpolation: Any) -> None:
    preprocessing = dataclasses.replace(PREPROCESSING, crop=crop, interpolation=interpolation)
    peer = build(kind, tokenizer, preprocessing)
    assert peer.config.preprocessing == preprocessing
    peer.save_pretrained(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)

    def theirs(image: Image.Image) -> torch.Tensor:
        return processor(images=image, return_tensors="pt").pixel_values[0]

    as_it_is = picture(32, 32)
    torch.testing.assert_close(theirs(as_it_is), preprocessing(as_it_is), atol=1e-5, rtol=1e-5)
    for size in ((90, 41), (33, 70), (200, 120), (20, 24)):  # the resizers round apart
        found, ours = theirs(picture(*size)), preprocessing(picture(*size))
        assert found.shape == ours.shape == (3, 32, 32)
        levels = (found - ours).abs() * torch.tensor(PREPROCESSING.std).view(3, 1, 1) * 255
        assert float(levels.max()) <= 2.01, size


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_that_do_not_fit_together_are_named(kind: str, tokenizer: PromptTokenizer) -> None:
    for size in (30, (32, 40)):
        with pytest.raises(ValueError, match="take square pictures that patches of 8 pixels fill"):
            build(kind, tokenizer, Preprocessing(image_size=size))
    with pytest.raises(ValueError, match="a width of 40 is not divided by 3 heads"):
        build(kind, tokenizer, heads=3)
    with pytest.raises(ValueError, match="a width of 48 is not divided by 5 heads"):
        build(kind, tokenizer, encoder_heads=5)
