import numpy as np
import pytest
from compared import PROMPTS, SCENES, judge_of, letters, pictures

from evaluation.judging import BLEU_NAMES, Judge
from evaluation.meaning import SentenceSimilarity
from evaluation.overlap import CiderD, bleu, bleu_statistics

WRONG = [PROMPTS[0], *[scene.prompt().replace(scene.subject, "pig") for scene in SCENES[1:]]]


def test_scores_are_what_the_predictions_deserve() -> None:
    judge = judge_of(pictures())
    right, wrong = judge(PROMPTS), judge(WRONG)
    assert right.estimates["exact_match"].mean == right.slots["subject"].mean == 1.0
    assert right.estimates["similarity"].mean == pytest.approx(1.0)
    assert wrong.estimates["exact_match"].mean == wrong.slots["subject"].mean == 0.25
    assert wrong.slots["style"].mean == wrong.slots["background"].mean == 1.0
    assert "colour" not in right.slots  # nobody asked for one
    assert wrong.slots["subject"].count == 4
    assert right.slots["invented"].mean == 0
    assert wrong.vocabulary == len({word for text in WRONG for word in text.split()})


def test_every_metric_knows_prompt_and_prediction_apart() -> None:
    shorter = [" ".join(prompt.split()[:-1]) for prompt in PROMPTS]
    references = [[prompt] for prompt in PROMPTS]
    found = judge_of(pictures())(shorter).estimates
    expected, swapped = (bleu(bleu_statistics(*sides).sum(0)) for sides in ((references, shorter), ([[text] for text in shorter], PROMPTS)))
    assert [found[name].mean for name in BLEU_NAMES] == pytest.approx(expected.tolist())
    assert found["bleu_4"].mean != pytest.approx(swapped[3])
    assert found["cider_d"].mean == pytest.approx(CiderD(references)(shorter).mean())


def test_a_picture_with_several_prompts_is_judged_by_the_best_of_them() -> None:
    judge = Judge([["a cat", "b dog"], ["an owl"]], ["x", "y"], similarity=SentenceSimilarity(letters))
    found = judge(["b dog", "an owl"])
    assert found.estimates["exact_match"].mean == found.estimates["token_f1"].mean == 1
    assert found.estimates["similarity"].mean == pytest.approx(1)
    assert found.estimates["similarity"].count == 2
    assert found.estimates["bleu_1"].mean == pytest.approx(1)


def test_differences_are_paired() -> None:
    """Two captioners that are wrong on the same pictures: the difference is sure where neither figure is."""
    some = pictures(40)
    judge = judge_of(some)
    true = [prompts[0] for prompts in some.references]
    draw = np.random.default_rng(0)
    noise = [" ".join(word for word in prompt.split() if draw.random() < 0.6) or "x" for prompt in true]
    better = [noise[i] if i % 2 else true[i] for i in range(40)]
    slightly = [text + ", zz" for text in better]
    one, other = judge(better), judge(slightly)
    found = judge.differences(one, other)
    assert found["token_f1"].mean == pytest.approx(one.estimates["token_f1"].mean - other.estimates["token_f1"].mean)
    assert found["token_f1"].established
    assert one.estimates["token_f1"].low < other.estimates["token_f1"].high  # by themselves they could be the same
    assert found["bleu_4"].mean == pytest.approx(one.estimates["bleu_4"].mean - other.estimates["bleu_4"].mean)
    assert found["bleu_4"].low > 0
    back = judge.differences(other, one)["token_f1"]
    assert (back.mean, back.low, back.high) == pytest.approx((-found["token_f1"].mean, -found["token_f1"].high, -found["token_f1"].low))
    same = judge.differences(one, one)
    assert not any(estimate.established for estimate in same.values())


def test_the_interval_of_bleu_is_around_it_and_as_wide_as_one_over_resampled_texts() -> None:
    draw = np.random.default_rng(0)
    vocabulary = [f"w{i}" for i in range(30)]
    references = [[" ".join(draw.choice(vocabulary, 12))] for _ in range(150)]
    predictions = [" ".join(word if draw.random() < 0.8 else "x" for word in prompts[0].split()) for prompts in references]
    found = Judge(references, [str(i) for i in range(150)], similarity=None)(predictions).estimates["bleu_4"]
    rounds = []
    for _ in range(300):
        chosen = draw.integers(0, 150, 150)
        rounds.append(bleu(bleu_statistics([references[i] for i in chosen], [predictions[i] for i in chosen]).sum(0))[3])
    assert found.low < found.mean < found.high
    assert found.high - found.low == pytest.approx(np.quantile(rounds, 0.975) - np.quantile(rounds, 0.025), rel=0.25)


def test_the_range_of_a_metric_is_that_of_these_pictures() -> None:
    some = pictures(8)  # four prompts, each twice
    judge = judge_of(some)
    found = judge.extremes()
    assert found["exact_match"] == (0.0, 1.0)
    assert found["cider_d"][1] == pytest.approx(judge.cider_d([prompts[0] for prompts in some.references]).mean())
    assert found["bleu_4"][1] == pytest.approx(1.0)
    short = Judge([["cat"], ["dog"], ["owl"]], list("abc"), similarity=None).extremes()
    assert short["cider_d"][1] == pytest.approx(2.5)  # of one word there is one of four lengths of n-grams


def test_another_prompt_is_that_of_another_group() -> None:
    judge = Judge([["a"], ["a"], ["b"], ["c"]], ["x", "x", "y", "y"], similarity=None)
    assert judge.others() == ["b", "b", "a", "a"]
    assert Judge([["a"]], ["x"], similarity=None).others() == ["a"]


def test_confidence_is_judged_where_there_is_any() -> None:
    judge = judge_of(pictures())
    assert judge(PROMPTS).calibration is None
    found = judge(WRONG, [0.9, None, 0.2, float("nan")]).calibration
    assert found is not None
    assert sum(one.count for one in found.bins) == 2
    assert found.error == pytest.approx((0.1 + 0.2) / 2)


@pytest.mark.parametrize("prediction", ["", "x " * 1000, "猫が座っている", "<script>alert(1)</script>", "\x00\u202e", "a\nb\tc"])
def test_whatever_is_predicted_has_scores_that_are_numbers(prediction: str) -> None:
    judge = Judge([["a cat"], ["y " * 1000], ["кот на пляже"]], list("abc"), similarity=SentenceSimilarity(letters))
    for estimate in judge([prediction] * 3).estimates.values():
        assert np.isfinite(estimate.mean)


def test_shares_of_all_and_their_differences_are_not_certain() -> None:
    """Nor those of slots."""
    some = pictures(40)
    judge, right = judge_of(some), PROMPTS * 10
    found = judge(right)
    for estimate in (found.estimates["exact_match"], found.slots["subject"]):
        assert (estimate.mean, estimate.high) == (1, 1)
        assert 0.85 < estimate.low < 0.95
    for estimate in (found.estimates["degenerate"], found.slots["invented"]):
        assert (estimate.mean, estimate.low) == (0, 0)
        assert 0.05 < estimate.high < 0.15
    wrong_once = judge([*right[:36], *(text.replace(scene.subject, "pig") for text, scene in zip(right[36:], SCENES, strict=True))])
    differences = judge.differences(found, wrong_once)
    for name in ("exact_match", "slot subject"):
        assert differences[name].mean == pytest.approx(0.1)
        assert not differences[name].established  # four against none: the sign test says 0.125


def test_a_score_that_is_no_number_leaves_no_picture_out() -> None:
    judge = judge_of(pictures())
    judge.clip_scores = lambda texts: {"clip_score": np.array([0.5, np.nan, 0.5, 0.5])}
    with pytest.raises(ValueError, match="a score of clip_score is no number"):
        judge(PROMPTS)


def test_one_picture_has_figures_and_no_intervals() -> None:
    found = judge_of(pictures(1))(PROMPTS[:1])
    assert found.estimates["exact_match"].mean == 1
    assert str(found.estimates["token_f1"]) == "1.000 (one group: no interval)"
    with pytest.raises(ValueError, match="no image"):
        Judge([], [], similarity=None)
