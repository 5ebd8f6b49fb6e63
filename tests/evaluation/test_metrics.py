"""Metrics against hand-worked values and independent implementations."""

import math
from collections import Counter

import numpy as np
import pytest
import sacrebleu

from evaluation.metrics import SentenceSimilarity, bleu_4, cider_d, exact_match, rouge_l, slot_accuracy, token_f1, words

PROMPTS = ["a cat on a beach, rain", "two dogs in a forest", "an owl, neon", "a red car next to a tree, night"]
PREDICTIONS = ["a cat on a beach, rain", "two dogs in the desert", "a pig, mosaic", "a car next to a red tree"]


def test_words_are_lower_case_and_marks_are_words() -> None:
    assert words("A (cat:1.2), Naïve") == ["a", "(", "cat", ":", "1", ".", "2", ")", ",", "naïve"]


def test_words_of_scripts_without_spaces_and_forms_of_unicode() -> None:
    assert words("猫が座る, cat") == ["猫", "が", "座", "る", ",", "cat"]
    assert words("แมว") == ["แ", "ม", "ว"]
    assert words("बिल्ली सोती") == ["बिल्ली", "सोती"]  # marks belong to their letters
    composed, decomposed = "na\u00efve caf\u00e9", "nai\u0308ve cafe\u0301"
    assert words(composed) == words(decomposed) == ["na\u00efve", "caf\u00e9"]
    assert exact_match([composed], [decomposed]).tolist() == [1]
    assert token_f1([composed], [decomposed]).tolist() == [1]
    assert 0 < token_f1(["一只猫坐着"], ["一只狗坐着"])[0] < 1
    assert 0 < rouge_l(["一只猫坐着"], ["一只狗坐着"])[0] < 1


def test_an_empty_prediction_is_the_worst_by_every_metric() -> None:
    nothing = [""] * len(PROMPTS)
    for metric in (exact_match, token_f1, rouge_l, cider_d):
        assert metric(PROMPTS, nothing).tolist() == [0.0] * len(PROMPTS), metric
        assert metric(PROMPTS, [PROMPTS[0], "", "", ""])[1:].tolist() == [0.0] * 3, metric
    assert bleu_4(PROMPTS, nothing) == (0.0, (0.0, 0.0))
    assert cider_d(["", " "], ["", "x"]).tolist() == [0.0, 0.0]


def test_exact_match_forgives_case_and_space_only() -> None:
    assert exact_match(["a cat", "a cat", "a cat"], [" A  cat ", "a cat.", "cat a"]).tolist() == [1, 0, 0]


def test_token_f1_by_hand() -> None:
    # "a b b" against "b b b c": shared 2, precision 2/4, recall 2/3
    assert token_f1(["a b b", "x", "", ""], ["b b b c", "y", "", "z"]).tolist() == pytest.approx([4 / 7, 0, 1, 0])


def test_rouge_l_by_hand() -> None:
    # longest common subsequence of "a b c d" and "a c b d e" is 3: precision 3/5, recall 3/4
    assert rouge_l(["a b c d", "猫 犬"], ["a c b d e", "猫 犬"]).tolist() == pytest.approx([2 * 0.6 * 0.75 / 1.35, 1.0])


def test_cider_d_against_its_formula() -> None:
    """Section 4 and 5 of arXiv 1411.5726, written out once more in plain Python."""

    def grams(text: str, n: int) -> Counter[tuple[str, ...]]:
        tokens = words(text)
        return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))

    expected = []
    for prompt, prediction in zip(PROMPTS, PREDICTIONS, strict=True):
        total = 0.0
        for n in range(1, 5):
            frequency = Counter(gram for other in PROMPTS for gram in grams(other, n))
            frequency = Counter({gram: sum(gram in grams(other, n) for other in PROMPTS) for gram in frequency})

            def weights(text: str, n: int = n, frequency: Counter[tuple[str, ...]] = frequency) -> dict[tuple[str, ...], float]:
                return {gram: count * (math.log(len(PROMPTS)) - math.log(max(1, frequency[gram]))) for gram, count in grams(text, n).items()}

            truth, guess = weights(prompt), weights(prediction)
            dot = sum(min(value, truth.get(gram, 0.0)) * truth.get(gram, 0.0) for gram, value in guess.items())
            norms = math.sqrt(sum(v * v for v in truth.values())) * math.sqrt(sum(v * v for v in guess.values()))
            difference = sum(grams(prediction, 2).values()) - sum(grams(prompt, 2).values())
            total += (dot / norms if norms else 0.0) * math.exp(-(difference**2) / (2 * 6**2))
        expected.append(10 * total / 4)
    assert cider_d(PROMPTS, PREDICTIONS).tolist() == pytest.approx(expected)


def test_bleu_of_the_same_is_one_and_of_nothing_shared_is_small() -> None:
    same, interval = bleu_4(PROMPTS, PROMPTS)
    assert same == pytest.approx(1.0)
    assert interval[0] == pytest.approx(1.0)
    assert bleu_4(PROMPTS, ["zzz yyy"] * 4)[0] < 0.05


def test_bleu_against_its_formula() -> None:
    """Papineni et al., ACL 2002, section 2.3: n-grams of one to four, and a penalty for short predictions alone."""

    def grams(text: str, n: int) -> Counter[tuple[str, ...]]:
        tokens = words(text)
        return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))

    for prompts, predictions in ((PROMPTS, PREDICTIONS), (PREDICTIONS, PROMPTS)):
        logs = 0.0
        for n in range(1, 5):
            shared = sum((grams(a, n) & grams(b, n)).total() for a, b in zip(prompts, predictions, strict=True))
            logs += math.log(shared / sum(grams(b, n).total() for b in predictions)) / 4
        truth, guess = sum(len(words(a)) for a in prompts), sum(len(words(b)) for b in predictions)
        assert bleu_4(prompts, predictions)[0] == pytest.approx(math.exp(logs + min(0.0, 1 - truth / guess)))


def test_the_interval_of_bleu_is_around_it_and_as_wide_as_a_bootstraps() -> None:
    draw = np.random.default_rng(0)
    vocabulary = [f"w{i}" for i in range(30)]
    prompts = [" ".join(draw.choice(vocabulary, 12)) for _ in range(150)]
    predictions = [" ".join(word if draw.random() < 0.8 else "x" for word in prompt.split()) for prompt in prompts]
    value, (low, high) = bleu_4(prompts, predictions)
    assert low < value < high
    rounds = []
    for _ in range(150):
        chosen = draw.integers(0, 150, 150)
        rounds.append(
            sacrebleu.corpus_bleu([predictions[i] for i in chosen], [[prompts[i] for i in chosen]], tokenize="none", force=True).score / 100
        )
    assert high - low == pytest.approx(np.quantile(rounds, 0.975) - np.quantile(rounds, 0.025), rel=0.3)
    small, (low, high) = bleu_4(PROMPTS, PREDICTIONS)
    assert 0 <= low <= small <= high <= 1


def test_slots_count_where_asked_for_or_predicted() -> None:
    truths = [{"subject": "cat", "light": ""}, {"subject": "dog", "light": "night"}, {"subject": "owl", "light": ""}]
    guesses = [{"subject": "cat", "light": ""}, {"subject": "fox", "light": "night"}, {"subject": "owl", "light": "night"}]
    found = slot_accuracy(truths, guesses)
    assert found["subject"].tolist() == [1, 0, 1]
    assert found["light"].tolist() == [1, 0]


class Letters:
    """A sentence model whose vectors can be worked out by hand: the share of each letter a to c."""

    def __call__(self, texts: list[str]) -> np.ndarray:
        counts = np.array([[text.count(letter) for letter in "abc"] for text in texts], dtype=float)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def test_similarity_is_the_cosine() -> None:
    scores = SentenceSimilarity(Letters())(["ab", "c", "ab"], ["ab", "ab", "a"])
    assert scores.tolist() == pytest.approx([1.0, 0.0, math.sqrt(0.5)])


def test_the_packaged_sentence_model_orders_prompts_as_people_do() -> None:
    scores = SentenceSimilarity()(
        ["a watercolor painting of a fox"] * 3, ["a watercolor painting of a fox", "a fox, watercolor", "a blueprint of a pizza"]
    )
    assert scores[0] == pytest.approx(1.0, abs=1e-5)
    assert scores[1] > 0.8 > 0.6 > scores[2]
