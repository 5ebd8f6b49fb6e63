import math

import numpy as np
import pytest
from scipy.stats import binomtest, norm, t, ttest_1samp

from evaluation.statistics import Estimate, Units, interval, mean_estimates, share_difference_interval, share_interval


def grouped(draw: np.random.Generator, groups: int, correlation: float) -> tuple[np.ndarray, np.ndarray]:
    """Normal values with this correlation inside of groups of one to eight, and the groups."""
    of_image = np.repeat(np.arange(groups), draw.integers(1, 9, groups))
    own = draw.normal(size=len(of_image))
    return math.sqrt(correlation) * draw.normal(size=groups)[of_image] + math.sqrt(1 - correlation) * own, of_image


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8])
def test_intervals_of_means_and_shares_hold_what_they_promise(correlation: float) -> None:
    """Over 1,000 draws of 60 groups: between 93 and 97 %."""
    draw = np.random.default_rng(7)
    means = shares = 0
    for number in range(1000):
        values, of_image = grouped(draw, 60, correlation)
        units = Units([str(group) for group in of_image])
        scores = {"mean": values, "share": (values < norm.ppf(0.3)).astype(float)}
        found = mean_estimates(scores, units, shares=frozenset({"share"}), seed=number)
        means += found["mean"].low <= 0 <= found["mean"].high
        shares += found["share"].low <= 0.3 <= found["share"].high
    assert 930 <= means <= 970
    assert 930 <= shares <= 970


def test_images_of_one_prompt_are_one_piece_of_evidence() -> None:
    values = np.random.default_rng(0).normal(size=200)
    alone = mean_estimates({"x": values}, Units([str(i) for i in range(200)]))["x"]
    copies = mean_estimates({"x": np.repeat(values, 5)}, Units([str(i) for i in range(200) for _ in range(5)]))["x"]
    taken_apart = mean_estimates({"x": np.repeat(values, 5)}, Units([str(i) for i in range(1000)]))["x"]
    assert (copies.low, copies.high) == pytest.approx((alone.low, alone.high))
    assert taken_apart.high - taken_apart.low < 0.6 * (alone.high - alone.low)
    assert (copies.count, copies.units) == (1000, 200)


def test_few_independent_numbers_have_the_interval_of_student() -> None:
    values = np.random.default_rng(3).normal(0.5, 0.2, 12)
    found = mean_estimates({"x": values}, Units([str(i) for i in range(12)]))["x"]
    expected = ttest_1samp(values, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.1 * (expected.high - expected.low))


def test_a_share_of_nothing_and_of_all_has_the_interval_of_wilson() -> None:
    units = Units([str(i) for i in range(500)])
    low, high = share_interval(np.zeros(500), units)
    assert low == 0
    assert high == pytest.approx(3.86 / 503.86, rel=0.01)  # z^2 / (n + z^2) with Student's quantile of 499
    assert share_interval(np.ones(500), units) == pytest.approx((1 - high, 1))
    in_groups = share_interval(np.ones(500), Units([str(i // 10) for i in range(500)]))
    assert in_groups[0] < 1 - 5 * high  # fifty groups are worth fifty


def test_a_share_of_independent_images_has_the_interval_of_wilson() -> None:
    from statistics import NormalDist

    scores = np.array([1.0] * 30 + [0.0] * 70)
    low, high = share_interval(scores, Units([str(i) for i in range(100)]))
    z, n, p = NormalDist().inv_cdf(0.975), 100, 0.3
    centre, half = (p + z * z / 2 / n) / (1 + z * z / n), z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / 4 / n / n)
    assert (low, high) == pytest.approx((centre - half, centre + half), abs=0.004)


def test_a_share_of_few_independent_images_is_wilsons_exactly_with_students_quantile_and_one_image_less() -> None:
    scores = np.array([1.0] * 3 + [0.0] * 7)
    z, n, p = -t.ppf(0.025, 9), 9, 0.3
    centre, half = (p + z * z / 2 / n) / (1 + z * z / n), z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / 4 / n / n)
    assert share_interval(scores, Units([str(i) for i in range(10)])) == pytest.approx((centre - half, centre + half))


@pytest.mark.parametrize(("right", "size", "groups"), [(1, 49, 30), (1, 3, 20), (5, 10, 50)])
def test_groups_that_are_all_alike_are_worth_no_more_than_twice_their_images(right: int, size: int, groups: int) -> None:
    """Where the variance over groups is nothing, or what rounding leaves of nothing."""
    scores = np.tile(np.r_[np.ones(right), np.zeros(size - right)], groups)
    low, high = share_interval(scores, Units([str(i // size) for i in range(size * groups)]))
    alone_low, alone_high = share_interval(scores, Units([str(i) for i in range(size * groups)]))
    assert high - low == pytest.approx((alone_high - alone_low) / math.sqrt(2), rel=0.1)


def test_groups_of_which_nothing_counts_are_no_evidence() -> None:
    scores, groups = np.array([1.0, 0, 1, 0, 1, 1]), list("abcdef")
    with_others, more = np.r_[scores, [np.nan] * 50], [*groups, *map(str, range(50))]
    assert share_interval(with_others, Units(more)) == share_interval(scores, Units(groups))
    some = scores - 0.0
    some[1] = -1
    assert share_difference_interval(np.r_[some, [np.nan] * 50], Units(more)) == share_difference_interval(some, Units(groups))


def test_few_units_widen_the_quantiles_as_hesterberg_has_it() -> None:
    low, high = interval(np.linspace(0, 1, 100_001), 5)
    assert low == pytest.approx(norm.cdf(math.sqrt(5 / 4) * t.ppf(0.025, 4)), abs=1e-4)
    assert high == pytest.approx(1 - low)


@pytest.mark.parametrize(("better", "worse"), [(1, 0), (4, 0), (5, 0), (6, 0), (7, 1), (8, 1), (9, 2), (12, 3), (30, 14), (2, 2), (0, 0)])
def test_a_difference_of_shares_is_established_where_a_sign_test_says_so(better: int, worse: int) -> None:
    scores = np.zeros(500)
    scores[:better], scores[better : better + worse] = 1, -1
    units = Units([str(i) for i in range(500)])
    found = mean_estimates({"x": scores}, units, shares=frozenset({"x"}), differences=True)["x"]
    assert found.mean == (better - worse) / 500
    assert found.low < found.mean < found.high
    assert found.established == (better + worse > 0 and binomtest(better, better + worse).pvalue < 0.05)
    back = share_difference_interval(-scores, units)
    assert back == pytest.approx((-found.high, -found.low))


def test_a_difference_of_shares_does_not_collapse_and_groups_are_the_evidence() -> None:
    assert share_difference_interval(np.ones(2), Units(list("ab"))) == (-1, 1)
    assert share_difference_interval(np.ones(2), Units(list("aa"))) == (-math.inf, math.inf)
    same = share_difference_interval(np.zeros(100), Units([str(i) for i in range(100)]))
    assert same[0] < -0.01 < 0.01 < same[1]
    scores = np.array([1.0] * 8 + [0.0] * 92)
    copies = share_difference_interval(np.repeat(scores, 5), Units([str(i // 5) for i in range(500)]))
    alone = share_difference_interval(scores, Units([str(i) for i in range(100)]))
    assert copies == pytest.approx(alone)


@pytest.mark.parametrize(("correlation", "groups"), [(0.0, 60), (0.8, 60), (0.5, 30)])
def test_intervals_of_differences_of_shares_hold_what_they_promise(correlation: float, groups: int) -> None:
    draw, held = np.random.default_rng(5), 0
    for _ in range(400):
        of_image = np.repeat(np.arange(groups), draw.integers(1, 9, groups))
        common = math.sqrt(correlation) * draw.normal(size=groups)[of_image]
        one, other = (common + math.sqrt(1 - correlation) * draw.normal(size=len(of_image)) < norm.ppf(share) for share in (0.3, 0.2))
        low, high = share_difference_interval(one.astype(float) - other, Units([str(group) for group in of_image]))
        held += low <= 0.1 <= high
    assert 372 <= held <= 394


def test_what_does_not_count_does_not_count() -> None:
    values = np.array([1.0, np.nan, 3.0, np.nan, 5.0, 7.0])
    found = mean_estimates({"x": values}, Units(list("aabbcd")))["x"]
    assert (found.mean, found.count, found.units) == (4.0, 4, 4)
    only = mean_estimates({"x": np.array([1.0, np.nan, np.nan])}, Units(list("abc")))["x"]
    assert (only.mean, only.count, only.units) == (1.0, 1, 1)
    assert str(only) == "1.000 (one group: no interval)"


def test_scores_that_are_no_numbers_are_refused() -> None:
    units = Units(list("ab"))
    with pytest.raises(ValueError, match="a score of y is infinite"):
        mean_estimates({"x": np.zeros(2), "y": np.array([0, np.inf])}, units)
    with pytest.raises(ValueError, match="no scores of x"):
        mean_estimates({"x": np.full(2, np.nan)}, units)
    assert mean_estimates({}, units) == {}


def test_the_same_draws_for_every_column_and_every_time() -> None:
    units = Units([str(i % 30) for i in range(90)])
    values = np.random.default_rng(0).random((90, 2))
    totals = units.totals(values)
    assert totals.sum(0) == pytest.approx(values.sum(0))
    one, other = units.resampled(totals, resamples=50), units.resampled(totals[:, :1], resamples=50)
    assert one[:, 0] == pytest.approx(other[:, 0])
    assert units.resampled(totals, resamples=50, seed=1)[0, 0] != one[0, 0]


def test_many_units_are_drawn_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    units = Units([str(i) for i in range(100)])
    totals = units.totals(np.random.default_rng(0).random((100, 1)))
    whole = units.resampled(totals, resamples=30)
    monkeypatch.setattr("evaluation.statistics._BLOCK", 700)
    assert units.resampled(totals, resamples=30)[:, 0] == pytest.approx(whole[:, 0])


def test_established_is_what_holds_no_zero() -> None:
    assert Estimate(0.1, 0.01, 0.2, 5, 5).established
    assert Estimate(-0.1, -0.2, -0.01, 5, 5).established
    assert not Estimate(0.1, -0.01, 0.2, 5, 5).established
    assert not Estimate(0.0, 0.0, 0.0, 5, 5).established
    assert interval(np.array([1.0]), 1) == (-math.inf, math.inf)
