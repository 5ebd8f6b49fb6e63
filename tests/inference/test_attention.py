"""Where a network looks for each word, beside its own attention, taken apart by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from examples import painted
from inverters import TOKENIZER, tiny_inverter
from PIL import Image

from inference import PromptInverter
from inference.attention import lit, word_maps
from model import CaptionModel, EncoderConfig, Preprocessing

PICTURE = painted("cat", "red", 40)


def inverter_of(**changes: object) -> PromptInverter:
    """Of 4 x 4 places."""
    shape = {"encoder": EncoderConfig(name="test_vit", arguments={"img_size": 64}), "preprocessing": Preprocessing(image_size=64)}
    return tiny_inverter(**(shape | {"label_smoothing": 0.0} | changes))


def by_hand(inverter: PromptInverter, tokens: list[int]) -> tuple[torch.Tensor, list[float]]:
    """The map of each token, and how likely it is after those before it."""
    model, preprocess = inverter.model, inverter.preprocess
    assert isinstance(model, CaptionModel)
    pixels = preprocess(PICTURE)[None]
    text = torch.tensor([[model.config.bos_token_id, *tokens[:-1]]])
    maps = model.attention_maps(pixels, text)
    assert maps is not None
    with torch.no_grad():
        chances = model(pixels, text)[0].softmax(-1)
    return maps[0], [float(chances[place, token]) for place, token in enumerate(tokens)]


def test_a_words_map_is_the_mean_of_its_tokens_and_its_confidence_their_product() -> None:
    inverter = inverter_of()
    prompt = "a zebra, two  dogs"
    pieces = ["a", " ", "zebra", ",", " ", "two", " ", " dogs"]  # commas and spaces of their own belong to no word
    tokens = [TOKENIZER.encode(piece) for piece in pieces]
    together = [token for own in tokens for token in own]
    assert together == TOKENIZER.encode(prompt)
    assert len(tokens[2]) == 5
    maps, chances = by_hand(inverter, together)
    assert maps.shape == (len(together), 4, 4)
    found = word_maps(inverter, PICTURE, prompt)
    assert [one.word for one in found] == ["a", "zebra", "two", "dogs"]
    ends = np.cumsum([len(own) for own in tokens])
    for one, number in zip(found, (0, 2, 5, 7), strict=True):
        own = list(range(ends[number] - len(tokens[number]), ends[number]))
        np.testing.assert_allclose(one.where, maps[own].mean(0), atol=1e-6)
        assert one.where.sum() == pytest.approx(1, abs=1e-5)
        assert one.confidence == pytest.approx(math.prod(chances[place] for place in own), rel=1e-4)
    assert not np.allclose(found[0].where, found[1].where)


def test_a_prompt_that_was_edited_has_maps_of_its_own() -> None:
    inverter = inverter_of()
    one, other = word_maps(inverter, PICTURE, "a cat on a beach"), word_maps(inverter, PICTURE, "two cat on a beach")
    assert [found.word for found in one[1:]] == [found.word for found in other[1:]] == ["cat", "on", "a", "beach"]
    for before, after in zip(one[1:], other[1:], strict=True):
        assert not np.allclose(before.where, after.where, atol=1e-6)
        assert before.confidence != after.confidence
    again = word_maps(inverter, PICTURE, "a cat on a beach")
    assert all(np.array_equal(before.where, after.where) for before, after in zip(one, again, strict=True))


def test_another_picture_is_looked_at_elsewhere() -> None:
    inverter = inverter_of()
    one, other = word_maps(inverter, PICTURE, "a cat"), word_maps(inverter, painted("dog", "blue", 40), "a cat")
    assert not np.allclose(one[1].where, other[1].where, atol=1e-6)


def test_label_smoothing_is_undone() -> None:
    found = []
    for inverter in (inverter_of(), inverter_of(label_smoothing=0.2)):
        assert isinstance(inverter.model, CaptionModel)
        with torch.no_grad():
            inverter.model.decoder.output_bias[TOKENIZER.encode("a")] += 7.0
        found += [one.confidence for one in word_maps(inverter, PICTURE, "a")]
    plain, smoothed = found
    assert 0.3 < plain < 0.7
    assert smoothed == pytest.approx((plain - 0.2 / TOKENIZER.vocab_size) / 0.8, rel=1e-4)  # arXiv 1512.00567, section 7, solved for what was before


def test_a_word_has_all_tokens_of_its_first_character() -> None:
    """A character of several tokens is text only with its last one."""
    inverter = inverter_of()
    fox, cat = TOKENIZER.encode("\N{FOX FACE}"), TOKENIZER.encode("猫")
    assert min(len(fox), len(cat)) >= 3
    maps, chances = by_hand(inverter, [*fox, *TOKENIZER.encode(","), *cat])
    first, second = word_maps(inverter, PICTURE, "\N{FOX FACE},猫")
    for one, word, own in ((first, "\N{FOX FACE}", range(len(fox))), (second, "猫", range(len(fox) + 1, len(fox) + 1 + len(cat)))):
        assert one.word == word
        np.testing.assert_allclose(one.where, maps[list(own)].mean(0), atol=1e-6)
        assert one.confidence == pytest.approx(math.prod(chances[place] for place in own), rel=1e-4)


def test_a_prompt_is_cut_to_what_the_network_can_read() -> None:
    inverter = inverter_of(max_text_tokens=6)
    tokens = TOKENIZER.encode("a zebra")
    assert len(tokens) == 7
    maps, _ = by_hand(inverter, tokens[:6])
    *_, last = found = word_maps(inverter, PICTURE, "a zebra on a beach")
    assert [one.word for one in found] == ["a", "zebr"]
    np.testing.assert_allclose(last.where, maps[2:6].mean(0), atol=1e-6)
    assert word_maps(inverter, PICTURE, "") == []
    assert word_maps(inverter, PICTURE, " , ,") == []


def test_an_encoder_without_places_gives_none() -> None:
    """Whose tokens are in an order of their own."""
    small = {"embed_dim": 16, "stages": (1, 1, 1, 1), "num_heads": 1}
    inverter = inverter_of(encoder=EncoderConfig(name="hiera_tiny_224", arguments=small))
    assert word_maps(inverter, PICTURE, "a cat") == []


def test_the_picture_is_light_where_the_network_looks() -> None:
    where = np.zeros((4, 8), dtype=np.float32)
    where[0, 7] = 0.75
    where[3, 0] = 0.25
    grey = Image.new("RGB", (160, 120), (200, 100, 40))
    picture = np.asarray(lit(grey, where, Preprocessing(image_size=(32, 64))))
    assert picture.shape == (120, 160, 3)
    assert picture[:10, 150:].mean((0, 1)) == pytest.approx([200, 100, 40], abs=3)
    assert picture[50:70, 70:90].mean((0, 1)) == pytest.approx([50, 25, 10], abs=3)  # a quarter of its light
    third = picture[104:107, 9:12].mean((0, 1)) / [200, 100, 40]
    assert third == pytest.approx(0.25 + 0.75 * math.sqrt(1 / 3), abs=0.05)


def test_what_the_network_does_not_see_of_a_picture_is_dark() -> None:
    preprocess = Preprocessing(image_size=32, crop="center")
    where = np.full((4, 4), 1 / 16, dtype=np.float32)
    for size, seen in (
        ((90, 40), (slice(0, 40), slice(25, 65))),
        ((40, 90), (slice(25, 65), slice(0, 40))),
        ((50, 50), (slice(0, 50), slice(0, 50))),
    ):
        picture = np.asarray(lit(Image.new("RGB", size, (200, 200, 200)), where, preprocess))
        light = np.zeros(picture.shape[:2], dtype=bool)
        light[seen] = True
        assert (picture[light] == 200).all()
        assert (picture[~light] == 50).all()
    # the corner of what is seen is the corner that preprocessing leaves
    marked = Image.new("RGB", (90, 40))
    marked.paste((255, 255, 255), (25, 0, 30, 5))
    pixels = preprocess.pixels(marked)
    assert pixels[:, :4, :4].float().mean() > 200
    assert pixels[:, 8:, 8:].max() == 0


def test_the_picture_itself_is_not_changed() -> None:
    before = PICTURE.copy()
    lit(PICTURE, np.ones((2, 2), dtype=np.float32), Preprocessing(image_size=32))
    assert PICTURE.tobytes() == before.tobytes()
