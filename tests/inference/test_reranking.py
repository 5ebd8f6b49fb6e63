"""Choosing among drawn prompts, against tables worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from examples import painted
from inverters import TOKENIZER, tiny_inverter
from PIL import Image

from inference import PromptInverter
from inference.prediction import Candidate, Prediction
from inference.reranking import BayesRisk, ClipFit, Pool, Rendering, _pool, reranked

IMAGES = [painted("cat", "red"), painted("dog", "blue"), painted("owl", "green")]


def pool(**probabilities: float) -> Pool:
    return Pool([Candidate(prompt, 0.0, 0.5, float(np.log(probability))) for prompt, probability in probabilities.items()])


class Known:
    """Utilities by a table, and the pools that were asked about."""

    def __init__(self, better: Any) -> None:
        self.better, self.pools = better, list[Pool]()

    def __call__(self, images: Sequence[Image.Image], pools: Sequence[Pool]) -> list[list[float]]:
        self.pools += pools
        return [[self.better(prompt) for prompt in pool.prompts] for pool in pools]


def test_bayes_risk_is_the_expected_similarity() -> None:
    """ "a" is likeliest, but "b" and "c" say nearly the same."""
    vectors = {"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [0.6, 0.8]}
    risk = BayesRisk(lambda texts: np.array([vectors[text] for text in texts]))
    ((a, b, c), (alone,)) = risk([IMAGES[0]] * 2, [pool(a=0.2, b=0.15, c=0.15), pool(b=0.01)])
    assert a == pytest.approx(0.4 * 1 + 0.3 * 0 + 0.3 * 0.6)
    assert b == pytest.approx(0.4 * 0 + 0.3 * 1 + 0.3 * 0.8)
    assert c == pytest.approx(0.4 * 0.6 + 0.3 * 0.8 + 0.3 * 1)
    assert alone == pytest.approx(1)


def test_clip_is_weighed_with_the_networks_own_likelihood() -> None:
    def clip(images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        assert len(images) == len(prompts) == 2
        return [{"a": 0.20, "b": 0.21}[prompt] for prompt in prompts]

    ((a, b),) = ClipFit(clip)(IMAGES[:1], [pool(a=0.6, b=0.2)])  # type: ignore[arg-type]
    assert a - b == pytest.approx(np.log(3) - 1)
    ((a, b),) = ClipFit(clip, evidence=1000)(IMAGES[:1], [pool(a=0.6, b=0.2)])  # type: ignore[arg-type]
    assert a < b


def test_rendering_compares_what_is_painted_with_the_picture() -> None:
    asked: list[tuple[str, int]] = []

    def render(prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        asked.extend(zip(prompts, seeds, strict=True))
        return [
            Image.new("RGB", (1, 1), {"red": (200, 0, 0), "blue": (0, 0, 99 + seed)}[prompt]) for prompt, seed in zip(prompts, seeds, strict=True)
        ]

    def features(images: Sequence[Image.Image]) -> np.ndarray:
        return np.array([image.getpixel((0, 0)) for image in images], dtype=np.float64)

    images = [Image.new("RGB", (1, 1), colour) for colour in ((30, 0, 40), (9, 0, 0))]
    reranker = Rendering(render, features, evidence=10, seeds=(1, 2), most=2)
    first, second = reranker(images, [pool(red=0.5, blue=0.5, green=0.1), pool(blue=0.5)])
    assert asked == [("red", 1), ("red", 2), ("blue", 1), ("blue", 2), ("blue", 1), ("blue", 2)]
    assert first[1] - first[0] == pytest.approx(10 * (0.8 - 0.6))
    assert first[2] == -np.inf  # not painted
    assert second == pytest.approx([0.0])


def test_the_best_comes_first_with_its_own_scores_and_the_next_best_after_it() -> None:
    one, known = tiny_inverter(label_smoothing=0.1), Known(len)
    found = reranked(one, IMAGES, known, candidates=6, batch_size=2, num_return_sequences=3, max_new_tokens=7)
    for prediction, candidates in zip(found, known.pools, strict=True):
        longest = sorted(candidates.prompts, key=len, reverse=True)
        assert len(set(candidates.prompts)) == len(candidates.prompts) > 4
        assert candidates.log_probs.tolist() == sorted(candidates.log_probs.tolist(), reverse=True)
        assert np.exp(candidates.log_probs).sum() == pytest.approx(1)
        assert len(prediction.prompt) == len(longest[0])
        assert [len(other.prompt) for other in prediction.alternatives] == [len(text) for text in longest[1:3]]
    for prediction, (again,) in zip(found, [one.assess([image], [p.prompt]) for image, p in zip(IMAGES, found, strict=True)], strict=True):
        assert prediction.score == pytest.approx(again.score, abs=1e-5)
        assert prediction.confidence == pytest.approx(again.confidence, rel=1e-3)


def test_draws_are_the_same_every_time_and_for_every_batch() -> None:
    one = tiny_inverter(label_smoothing=0.1)

    def prompts(batch_size: int, **options: Any) -> list[str]:
        return [p.prompt for p in reranked(one, IMAGES, Known(len), candidates=5, batch_size=batch_size, max_new_tokens=7, **options)]

    assert prompts(1) == prompts(3) == prompts(3, seed=0)
    assert prompts(3, seed=1) != prompts(3)
    assert all(text.startswith("two") for text in prompts(3, prefix="two"))
    with pytest.raises(ValueError, match="candidates must be 2 or more, not 1"):
        reranked(one, IMAGES, Known(len), candidates=1)


def test_a_prompt_that_the_network_wrote_is_assessed_as_it_was_written() -> None:
    one = tiny_inverter(label_smoothing=0.1)
    with_end = one.model.decoder.output_bias
    with_end.data[TOKENIZER.eos_id] += 5.0
    written = one.predict(IMAGES, max_new_tokens=10)
    again = one.assess(IMAGES, [p.prompt for p in written], batch_size=2)
    same = [(w, a) for w, a in zip(written, again, strict=True) if [t.text for t in w.tokens] == [t.text for t in a.tokens]]
    assert len(same) >= 1  # others have texts that the tokenizer spells otherwise
    for wrote, assessed in same:
        assert assessed.log_probs == pytest.approx(wrote.log_probs, abs=1e-4)
        assert assessed.confidence == pytest.approx(wrote.confidence, rel=1e-3)
    (longer,) = one.assess(IMAGES[:1], ["a cat on a beach " * 40])
    assert len(longer.tokens) == one.model.config.max_text_tokens


def test_of_a_prompt_that_was_spelled_in_several_ways_the_likeliest_stands_once() -> None:
    def saying(*candidates: tuple[str, float]) -> Prediction:
        first, *others = [Candidate(prompt, log_prob, 0.5, log_prob) for prompt, log_prob in candidates]
        return Prediction(first.prompt, first.score, 0.5, None, log_prob=first.log_prob, alternatives=others, tokens=[])

    found = _pool(saying(("a", -3.0), ("b", -2.0)), saying(("a", -1.0), ("b", -4.0), ("c", -2.5)))
    assert [(one.prompt, one.log_prob) for one in found.candidates] == [("a", -1.0), ("b", -2.0), ("c", -2.5)]


def test_what_a_search_finds_is_chosen_among_too() -> None:
    """All of its beams."""
    one = tiny_inverter(label_smoothing=0.1)
    one.pytorch_model().decoder.output_bias.data[TOKENIZER.eos_id] += 3.0
    for how in ({"length_penalty": 3.0}, {"length_penalty": -3.0}):
        known = Known(len)
        reranked(one, IMAGES, known, candidates=2, num_beams=4, max_new_tokens=7, **how)
        searched = one.predict(IMAGES, num_beams=4, num_return_sequences=4, max_new_tokens=7, **how)
        for found, candidates in zip(searched, known.pools, strict=True):
            assert {found.prompt, *(other.prompt for other in found.alternatives)} <= set(candidates.prompts)


def test_rendering_is_weighed_with_the_networks_own_likelihood() -> None:
    reranker = Rendering(lambda prompts, seeds: [IMAGES[0]] * len(prompts), lambda images: np.ones((len(images), 2)), evidence=10)
    ((a, b),) = reranker(IMAGES[:1], [pool(a=0.6, b=0.2)])
    assert a - b == pytest.approx(np.log(3))


def test_the_drawing_and_the_search_keep_to_the_same_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = {"prefix": "two", "bad_words": ("cat",), "min_new_tokens": 2, "max_new_tokens": 7}
    asked, predict = list[dict[str, Any]](), PromptInverter.predict

    def noting(self: PromptInverter, images: Any, **how: Any) -> Any:
        asked.append(how)
        return predict(self, images, **how)

    monkeypatch.setattr(PromptInverter, "predict", noting)
    reranked(tiny_inverter(), IMAGES[:1], Known(len), candidates=5, **rules)
    assert [how["do_sample"] for how in asked if how | rules == how] == [True, False]


def test_of_equally_good_prompts_the_likelier_comes_first() -> None:
    one, known = tiny_inverter(label_smoothing=0.1), Known(lambda prompt: len(prompt) % 2)
    (found,) = reranked(one, IMAGES[:1], known, candidates=60, num_return_sequences=60, max_new_tokens=7)
    written = known.pools[0].prompts
    assert len(written) > 40
    expected = sorted(written, key=lambda prompt: -(len(prompt) % 2))[:60]
    assert [found.prompt, *(other.prompt for other in found.alternatives)] == expected
