"""Metrics against hand-worked values, and against pycocoevalcap's scorers on awkward sentences."""

import math
import random
from collections import Counter

import numpy as np
import pytest

from evaluation.overlap import CiderD, bleu, bleu_statistics, exact_match, rouge_l, slot_scores, token_f1
from evaluation.words import words

REFERENCES = [["a cat on a beach, rain"], ["two dogs in a forest"], ["an owl, neon"], ["a red car next to a tree, night"]]
PREDICTIONS = ["a cat on a beach, rain", "two dogs in the desert", "a pig, mosaic", "a car next to a red tree"]


def awkward(count: int, seed: int) -> tuple[list[list[str]], list[str]]:
    """One to five references an image; predictions that share much, little or nothing with them, that are empty, one word, marks alone, repeated, or
    in other scripts."""
    draw = random.Random(seed)
    vocabulary = [
        *["a", "an", "the", "of", "in", "on"],
        *(f"word{i}" for i in range(25)),
        "8k",
        ",",
        "(",
        "cat:1.2",
        "猫",
        "naïve",
        "кот",
        "🦊",
        "don't",
    ]
    references, predictions = [], []
    for number in range(count):
        base = [draw.choice(vocabulary) for _ in range(draw.choice((1, 2, 3, 5, 9, 15, 40)))]
        prompts = [" ".join(word for word in base if draw.random() < 0.8) or "x" for _ in range(draw.randint(1, 5))]
        kinds = ["", "cat", ", , ,", " ".join(["loop"] * 12), prompts[0], " ".join(reversed(base)), "猫が座る", prompts[-1].upper() + "  extra words"]
        changed = " ".join(draw.choice(vocabulary) if draw.random() < 0.4 else word for word in base)
        references.append(prompts)
        predictions.append(kinds[number % len(kinds)] if number % 3 == 0 else changed)
    return references, predictions


def joined(text: str) -> str:
    return " ".join(words(text))


@pytest.mark.parametrize("seed", [0, 1])
def test_they_agree_with_the_scorers_of_coco_on_several_references(seed: int) -> None:
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    references, predictions = awkward(300, seed)
    truths = {number: [joined(prompt) for prompt in prompts] for number, prompts in enumerate(references)}
    guesses = {number: [joined(prediction)] for number, prediction in enumerate(predictions)}
    scorer = BleuScorer()
    for number, of_image in truths.items():
        scorer += (guesses[number][0], of_image)
    expected, _ = scorer.compute_score(option="closest")
    assert bleu(bleu_statistics(references, predictions).sum(0)).tolist() == pytest.approx(expected, abs=1e-6)
    assert rouge_l(references, predictions).tolist() == pytest.approx(Rouge().compute_score(truths, guesses)[1].tolist(), abs=1e-6)
    assert CiderD(references)(predictions).tolist() == pytest.approx(Cider().compute_score(truths, guesses)[1].tolist(), abs=1e-6)
    assert len(set(np.round(rouge_l(references, predictions), 3))) > 50  # of all kinds


def test_bleu_of_one_pair_and_of_nothing_is_what_the_scorer_says() -> None:
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    for prediction, prompts in (("a b c d e", ["a b c d f"]), ("", ["a b"]), ("a", ["a b c d", "a"]), ("x y", ["a b c"])):
        expected = BleuScorer(prediction, prompts).compute_score(option="closest")[0]
        assert bleu(bleu_statistics([prompts], [prediction])[0]).tolist() == pytest.approx(expected, abs=1e-9)


def test_document_frequencies_are_counted_once_and_do_not_grow() -> None:
    cider = CiderD(REFERENCES)
    first = cider(PREDICTIONS)
    cider(["unseen words alone"] * 4)
    assert cider(PREDICTIONS).tolist() == first.tolist()
    with pytest.raises(ValueError, match="3 predictions for 4 images"):
        cider(PREDICTIONS[:3])


def test_an_empty_prediction_is_the_worst_by_every_metric() -> None:
    nothing = [""] * 4
    for metric in (exact_match, token_f1, rouge_l, lambda references, predictions: CiderD(references)(predictions)):
        assert metric(REFERENCES, nothing).tolist() == [0.0] * 4, metric
    assert bleu(bleu_statistics(REFERENCES, nothing).sum(0)).tolist() == pytest.approx([0.0] * 4, abs=1e-6)


def test_exact_match_forgives_case_space_and_forms_of_unicode_only() -> None:
    assert exact_match([["a cat"]] * 3, [" A  cat ", "a cat.", "cat a"]).tolist() == [1, 0, 0]
    assert exact_match([["na\u00efve"]], ["nai\u0308ve"]).tolist() == [1]
    assert exact_match([["a", "b"], ["a", "b"]], ["b", "c"]).tolist() == [1, 0]  # any reference


def test_token_f1_by_hand_and_the_best_over_references() -> None:
    # "a b b" against "b b b c": shared 2, precision 2/4, recall 2/3
    assert token_f1([["a b b"], ["x"], ["x"]], ["b b b c", "y", ""]).tolist() == pytest.approx([4 / 7, 0, 0])
    assert token_f1([["q", "a b b", "b"]], ["b b b c"]).tolist() == pytest.approx([4 / 7])


def test_rouge_l_by_hand() -> None:
    # longest common subsequence of "a b c d" and "a c b d e" is 3: precision 3/5, recall 3/4, beta 1.2
    expected = (1 + 1.44) * 0.6 * 0.75 / (0.75 + 1.44 * 0.6)
    assert rouge_l([["a b c d"], ["猫 犬"]], ["a c b d e", "猫 犬"]).tolist() == pytest.approx([expected, 1.0])
    # the best precision comes of one reference, the best recall of another
    assert rouge_l([["a b c d", "a"]], ["a b"]).tolist() == pytest.approx([(1 + 1.44) * 1 * 1 / (1 + 1.44)])


def test_cider_d_against_its_formula() -> None:
    """Section 4 and 5 of arXiv 1411.5726, written out once more in plain Python."""

    def grams(text: str, n: int) -> Counter[tuple[str, ...]]:
        tokens = words(text)
        return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))

    prompts = [of_image[0] for of_image in REFERENCES]
    expected = []
    for prompt, prediction in zip(prompts, PREDICTIONS, strict=True):
        total = 0.0
        for n in range(1, 5):
            frequency = Counter(gram for other in prompts for gram in grams(other, n))
            frequency = Counter({gram: sum(gram in grams(other, n) for other in prompts) for gram in frequency})

            def weights(text: str, n: int = n, frequency: Counter[tuple[str, ...]] = frequency) -> dict[tuple[str, ...], float]:
                return {gram: count * (math.log(len(prompts)) - math.log(max(1, frequency[gram]))) for gram, count in grams(text, n).items()}

            truth, guess = weights(prompt), weights(prediction)
            dot = sum(min(value, truth.get(gram, 0.0)) * truth.get(gram, 0.0) for gram, value in guess.items())
            norms = math.sqrt(sum(v * v for v in truth.values())) * math.sqrt(sum(v * v for v in guess.values()))
            difference = sum(grams(prediction, 2).values()) - sum(grams(prompt, 2).values())
            total += (dot / norms if norms else 0.0) * math.exp(-(difference**2) / (2 * 6**2))
        expected.append(10 * total / 4)
    assert CiderD(REFERENCES)(PREDICTIONS).tolist() == pytest.approx(expected)


def test_slots_count_on_the_same_pictures_whatever_was_predicted() -> None:
    truths = [{"subject": "cat", "light": ""}, {"subject": "dog", "light": "night"}, {"subject": "owl", "light": ""}, {}]
    guesses = [{"subject": "cat", "light": ""}, {"subject": "fox", "light": "night"}, {"subject": "owl", "light": "night"}, {}]
    found = slot_scores(truths, guesses)
    assert found["subject"][:3].tolist() == [1, 0, 1]
    assert np.isnan(found["subject"][3])
    assert np.isnan(found["light"]).tolist() == [True, False, True, True]
    assert found["light"][1] == 1
    assert found["invented"][:3].tolist() == [0, 0, 1]
    assert np.isnan(found["invented"][3])
    nothing = slot_scores(truths, [{}] * 4)
    assert (np.isnan(nothing["light"]) == np.isnan(found["light"])).all()
    assert nothing["light"][1] == nothing["invented"][2] == 0
    assert slot_scores([{}], [{"subject": "cat"}]) == {}
