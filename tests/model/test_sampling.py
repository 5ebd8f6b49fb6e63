"""Drawn texts against their probabilities, on a table of them in place of a network."""

import itertools
import math
from collections import Counter
from typing import Any

import pytest
import torch
from next_tokens import BOS, CPU, EOS, Table, rules

from model import CaptionModel
from model.decoding import Hypothesis, draw, restrict, sample


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_return_sequences": 0}, "num_return_sequences must be 1"),
        ({"temperature": 0.0}, "temperature must be 0.001 or more"),
        ({"top_k": -1}, "top_k must be 0"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"bad_words_ids": [[token] for token in range(23)]}, "leave no token"),
    ],
)
def test_impossible_samples_are_named(tiny_model: CaptionModel, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_model.sample(torch.zeros(1, 3, 32, 32), **arguments)


def test_top_k_and_top_p_by_hand() -> None:
    log_probs = torch.tensor([[0.5, 0.1, 0.25, 0.15]]).log()

    def kept(top_k: int, top_p: float) -> list[bool]:
        return restrict(log_probs, top_k, top_p)[0].isfinite().tolist()

    assert kept(0, 1.0) == [True, True, True, True]
    assert kept(2, 1.0) == [True, False, True, False]
    assert kept(0, 0.5) == [True, False, False, False]  # 0.5 alone reaches it
    assert kept(0, 0.6) == [True, False, True, False]
    assert kept(0, 0.8) == [True, False, True, True]
    assert kept(3, 0.95) == [True, False, True, True]
    assert kept(2, 0.6) == [True, False, False, False]  # among the two, the first has 2/3


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, 0), (0.5, 0), (2.0, 2)])
def test_samples_are_as_frequent_as_their_probability(temperature: float, top_k: int) -> None:
    images, count, length = 2, 4000, 2
    table = Table(images, 4, length, 3)
    chances = torch.rand(images * count, length, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = sample(
        table, images, rules(length), CPU, num_return_sequences=count, temperature=temperature, top_k=top_k, top_p=1.0, smoothing=0.0, chances=chances
    )
    for image in range(images):
        expected = {}
        for first in range(4):
            at_first = restrict(table.table[image, 0, BOS][None] / temperature, top_k, 1.0).softmax(-1)[0]
            after = restrict(table.table[image, 1, first][None] / temperature, top_k, 1.0).softmax(-1)[0]
            if first == EOS:
                expected[(first,)] = float(at_first[first])
            else:
                expected |= {(first, second): float(at_first[first] * after[second]) for second in range(4)}
        seen = Counter(text.tokens for text in found[image])
        for tokens, probability in expected.items():
            assert abs(seen[tokens] / count - probability) < 4 * math.sqrt(probability * (1 - probability) / count) + 1e-9
        for text in found[image][:50]:
            own = [float(table.table[image, i, a, b]) for i, (a, b) in enumerate(itertools.pairwise((BOS, *text.tokens)))]
            assert text.log_probs == pytest.approx(own, abs=1e-5)  # the network's, not the sharpened ones
        assert [text.score for text in found[image]] == sorted((text.score for text in found[image]), reverse=True)


def test_an_impossible_token_is_never_drawn() -> None:
    log_probs = torch.full((20_000, 7), float("-inf"))
    log_probs[:, [1, 4, 5]] = torch.tensor([-9.0, -8.0, -9.0])  # not normalised either
    drawn = draw(log_probs, torch.rand(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    assert drawn.shape == (20_000, 1)
    counts = drawn.flatten().bincount(minlength=7).double() / 20_000
    weight = torch.tensor([0, 1, 0, 0, math.e, 1, 0], dtype=torch.float64)
    torch.testing.assert_close(counts, weight / weight.sum(), atol=0.02, rtol=0)
    assert counts[[0, 2, 3, 6]].sum() == 0


def test_a_generator_for_each_image_draws_the_same_whatever_is_beside_it(tiny_model: CaptionModel) -> None:
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(4))

    def draw(*images: int, count: int = 3) -> list[list[tuple[int, ...]]]:
        generators = [torch.Generator().manual_seed(image) for image in images]
        return [
            [text.tokens for text in texts] for texts in tiny_model.sample(pixels[list(images)], num_return_sequences=count, generator=generators)
        ]

    together = draw(0, 1, 2)
    assert draw(2, 0, 1) == [together[2], together[0], together[1]]
    assert [draw(image)[0] for image in range(3)] == together
    assert all(set(draw(image, count=2)[0]) <= set(draw(image, count=3)[0]) for image in range(3))
    with pytest.raises(ValueError, match="one for each of the 1 images, not 2"):
        tiny_model.sample(pixels[:1], generator=[torch.Generator(), torch.Generator()])


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_is_a_number_above_zero(tiny_model: CaptionModel, temperature: float) -> None:
    with pytest.raises(ValueError, match=r"temperature must be 0\.001 or more"):
        tiny_model.sample(torch.zeros(1, 3, 32, 32), temperature=temperature)


def test_the_temperature_comes_before_the_top_ps() -> None:
    """Flattened, more tokens share the probability that is asked for."""
    table = Table(1, 6, 1, 9)
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0, -1.0, -2.0]]).log_softmax(-1)
    table.table = logits.expand(table.table.shape).clone()
    chances = torch.rand(400, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = sample(table, 1, rules(1), CPU, num_return_sequences=400, temperature=3.0, top_k=0, top_p=0.8, smoothing=0.0, chances=chances)
    kept = restrict(logits / 3.0, 0, 0.8)[0].isfinite().sum()
    assert kept > restrict(logits, 0, 0.8)[0].isfinite().sum()
    assert {text.tokens[0] for text in found[0]} == set(range(int(kept)))


def test_the_generator_decides_the_samples(tiny_model: CaptionModel) -> None:
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(4))

    def draw(seed: int) -> list[list[Hypothesis]]:
        return tiny_model.sample(pixels, num_return_sequences=5, generator=torch.Generator().manual_seed(seed), max_new_tokens=8)

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_samples_of_unequal_length_keep_the_networks_own_scores(tiny_model: CaptionModel) -> None:
    """Finished texts leave the batch; the rest must go on with their own caches and images."""
    pixels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    found = tiny_model.sample(
        pixels, num_return_sequences=6, temperature=2.0, generator=torch.Generator().manual_seed(0), prefix=[5, 7], max_new_tokens=14
    )
    lengths = {len(text.tokens) for texts in found for text in texts}
    assert len(lengths) > 3
    for image, texts in enumerate(found):
        for text in texts:
            ids = torch.tensor([[tiny_model.config.bos_token_id, 5, 7, *text.tokens[:-1]]])
            log_probs = tiny_model(pixels[image : image + 1], ids).log_softmax(-1)[0, 2:]
            assert text.log_probs == pytest.approx(log_probs.gather(-1, torch.tensor(text.tokens)[:, None]).squeeze(1).tolist(), abs=1e-4)


def test_top_k_of_one_is_greedy(tiny_model: CaptionModel) -> None:
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    drawn = tiny_model.sample(pixels, num_return_sequences=2, top_k=1)
    greedy = tiny_model.search(pixels, num_beams=1)
    assert [[text.tokens for text in texts] for texts in drawn] == [[texts[0].tokens] * 2 for texts in greedy]
