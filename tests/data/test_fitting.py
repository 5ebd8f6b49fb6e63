import math
from itertools import islice
from pathlib import Path

import pytest

from data.fitting import CurriculumBatches, FittingPairs, fits
from data.pairs import PairDataset
from data.shards import ShardError, finished_shards, index_shard, write_column


def test_pairs_above_a_fit_and_their_ranking(small_dataset: Path) -> None:
    pairs = PairDataset(small_dataset, "train")
    with pytest.raises(ShardError, match=r"has no scores; make them with: python score\.py"):
        fits(pairs, small_dataset / "train")
    before = pairs[3].prompt
    for tar in finished_shards(small_dataset / "train"):
        keys = [location.key for location in index_shard(tar)]
        write_column(tar, "fit", {key: math.sin(int(key)) for key in keys if int(key) != 7})
        write_column(tar, "other", {})
    scores = fits(pairs, small_dataset / "train")
    assert pairs[3].prompt == before
    keys = [int(location.key) for location in pairs.locations]
    assert scores == [None if key == 7 else pytest.approx(math.sin(key)) for key in keys]
    kept = FittingPairs(pairs, scores, 0.5)
    assert [int(kept[i].key) for i in range(len(kept))] == [key for key in keys if key != 7 and math.sin(key) >= 0.5]
    ranked = [math.sin(int(kept[i].key)) for i in kept.ranking]
    assert ranked == sorted(ranked, reverse=True)
    assert len(FittingPairs(pairs, scores, -math.inf)) == len(pairs) - (7 in keys)
    assert kept.fingerprint() not in (pairs.fingerprint(), FittingPairs(pairs, scores, 0.4).fingerprint())
    with pytest.raises(ShardError, match="lower --min-fit"):
        FittingPairs(pairs, scores, 2)


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
