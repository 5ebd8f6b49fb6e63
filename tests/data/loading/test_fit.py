import math
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from data.errors import ShardError
from data.loading.fit import CurriculumBatches, FittingPairs, WeighedBatches, read_scores, two_hills
from data.store.columns import column_origin, write_column
from data.store.directory import finished_shards, index_shard
from data.store.pairs import PairDataset


def test_pairs_above_a_fit_and_their_ranking(small_dataset: Path) -> None:
    pairs = PairDataset(small_dataset, "train")
    with pytest.raises(ShardError, match=r"has no scores; make them with: python score\.py"):
        read_scores(pairs, small_dataset / "train", "fit")
    before = pairs[3].prompt
    for tar in finished_shards(small_dataset / "train"):
        keys = [location.key for location in index_shard(tar)]
        write_column(tar, "fit", {key: math.sin(int(key)) for key in keys if int(key) != 7}, origin="one")
        write_column(tar, "other", {}, origin="two")
        assert (column_origin(tar, "fit"), column_origin(tar, "other"), column_origin(tar, "none")) == ("one", "two", None)
    scores = read_scores(pairs, small_dataset / "train", "fit")
    assert pairs[3].prompt == before
    keys = [int(location.key) for location in pairs.locations]
    assert scores == [None if key == 7 else pytest.approx(math.sin(key)) for key in keys]
    chances = [None if score is None else score**2 for score in scores]
    kept = FittingPairs(pairs, scores, chances, 0.5)
    assert [int(kept[i].key) for i in range(len(kept))] == [key for key in keys if key != 7 and math.sin(key) >= 0.5]
    ranked = [math.sin(int(kept[i].key)) for i in kept.ranking]
    assert ranked == sorted(ranked, reverse=True)
    assert len(FittingPairs(pairs, scores, chances, -math.inf)) == len(pairs) - (7 in keys)
    assert kept.chances == [pytest.approx(math.sin(int(kept[i].key)) ** 2) for i in range(len(kept))]
    assert kept.fingerprint() != FittingPairs(pairs, scores, [1.0] * len(scores), 0.5).fingerprint()
    assert kept.fingerprint() not in (pairs.fingerprint(), FittingPairs(pairs, scores, chances, 0.4).fingerprint())
    with pytest.raises(ShardError, match="lower --min-fit"):
        FittingPairs(pairs, scores, chances, 2)


def test_scores_of_two_models_are_not_mixed(small_dataset: Path) -> None:
    first, *others = finished_shards(small_dataset / "train")
    write_column(first, "fit", {}, origin="one")
    for tar in others:
        write_column(tar, "fit", {}, origin="another")
    with pytest.raises(ShardError, match=r"were scored by different models.*python score\.py"):
        read_scores(PairDataset(small_dataset, "train"), small_dataset / "train", "fit")


def test_a_curriculum_begins_with_the_best_and_ends_with_all() -> None:
    ranking = list(range(100, 0, -1))
    whole = list(islice(CurriculumBatches(ranking, 8, ramp_steps=50, seed=1), 120))
    assert {place.index for place in whole[0]} <= set(ranking[:50])
    for step, batch in enumerate(whole):
        shown = round(100 * (0.5 + 0.5 * min(1, step / 50)))
        assert {place.index for place in batch} <= set(ranking[:shown])
    assert {place.index for batch in whole[50:] for place in batch} == set(ranking)
    assert list(islice(CurriculumBatches(ranking, 8, ramp_steps=50, seed=1, start_step=70), 5)) == whole[70:75]
    halves = [list(islice(CurriculumBatches(ranking, 4, ramp_steps=50, seed=1, rank=rank, world_size=2), 3)) for rank in (0, 1)]
    assert [one + other for one, other in zip(*halves, strict=True)] == whole[:3]


def test_pairs_are_drawn_as_often_as_they_are_likely_to_fit() -> None:
    chances = [1.0, 0.0, 0.25, 0.75]
    batches = list(islice(WeighedBatches(chances, 8, seed=1), 1000))
    counts = Counter(place.index for batch in batches for place in batch)
    assert counts[1] == 0
    for index, chance in enumerate(chances):
        assert counts[index] / 8000 == pytest.approx(chance / 2, abs=0.02)
    assert list(islice(WeighedBatches(chances, 8, seed=1, start_step=40), 3)) == batches[40:43]
    halves = [list(islice(WeighedBatches(chances, 4, seed=1, rank=rank, world_size=2), 3)) for rank in (0, 1)]
    assert [one + other for one, other in zip(*halves, strict=True)] == batches[:3]
    with pytest.raises(ShardError, match="no pair is likely to fit"):
        WeighedBatches([0.0], 8, seed=1)


def test_two_hills_are_told_apart_and_one_is_left_alone() -> None:
    generator = np.random.default_rng(0)
    bad, good = generator.normal(-0.3, 0.2, 2000), generator.normal(0.9, 0.25, 8000)
    hills = two_hills([*bad, *good])
    assert hills is not None
    assert hills.means == (pytest.approx(-0.3, abs=0.03), pytest.approx(0.9, abs=0.03))
    grid = np.linspace(-3, 3, 601)

    def hill(mean: float, deviation: float, share: float) -> np.ndarray:
        return share / deviation * np.exp(-((grid - mean) ** 2) / (2 * deviation**2))

    upper, lower = hill(0.9, 0.25, 0.8), hill(-0.3, 0.2, 0.2)
    between = (grid > -0.25) & (grid < 0.85)
    assert hills.chance(grid)[between] == pytest.approx((upper / (upper + lower))[between], abs=0.05)  # Bayes
    assert (np.diff(hills.chance(grid)) >= -1e-12).all()  # a worse score is never likelier to fit
    assert hills.chance(np.array([hills.threshold]))[0] == pytest.approx(0.5, abs=0.02)
    assert two_hills(list(generator.normal(0.9, 0.25, 8000))) is None
    assert two_hills([1.0] * 50) is None
    assert two_hills([0.0, 1.0]) is None
