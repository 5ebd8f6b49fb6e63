from collections import Counter

import pytest

from data.splits import prompt_group, split_of
from synthesis.config import DEFAULT_IMAGES, GenerateConfig
from synthesis.plan import PlannedPair, image_seed, plan_shards
from synthesis.prompts import PromptRecord

RECORDS = [PromptRecord(prompt=f"prompt {i}", group=prompt_group(f"prompt {i}")) for i in range(300)]


def test_every_image_once_in_the_split_of_its_group() -> None:
    shards = plan_shards(RECORDS, num_images=700, seed=3, shard_size=40)
    pairs = [(shard.split, pair) for shard in shards for pair in shard.pairs]
    assert sorted(pair.key for _, pair in pairs) == [f"{i:09d}" for i in range(700)]
    assert all(split == split_of(pair.record.group) for split, pair in pairs)
    assert all(len(shard.pairs) <= 40 for shard in shards)
    assert all(pair.seed == image_seed(3, int(pair.key)) for _, pair in pairs)


def test_several_images_of_a_prompt_stay_in_one_split_with_seeds_of_their_own() -> None:
    pairs = [(shard.split, pair) for shard in plan_shards(RECORDS[:5], num_images=50, seed=0, shard_size=10) for pair in shard.pairs]
    assert len({pair.seed for _, pair in pairs}) == 50
    for record in RECORDS[:5]:
        assert len({split for split, pair in pairs if pair.record is record}) == 1


def test_neighbouring_data_sets_share_no_seed() -> None:
    assert not {image_seed(0, i) for i in range(2000)} & {image_seed(1, i) for i in range(2000)}


def test_each_image_draws_its_settings() -> None:
    def pairs(seed: int) -> list[PlannedPair]:
        shards = plan_shards(RECORDS, num_images=900, seed=seed, shard_size=100, steps=(10, 20, 30), guidance_scales=(5.0, 7.5))
        return sorted((pair for shard in shards for pair in shard.pairs), key=lambda pair: pair.key)

    counts = Counter((pair.steps, pair.guidance_scale) for pair in pairs(0))
    assert len(counts) == 6
    assert min(counts.values()) > 100
    assert pairs(0) == pairs(0)
    assert [pair.steps for pair in pairs(0)] != [pair.steps for pair in pairs(1)]
    assert {pair.steps for shard in plan_shards(RECORDS, num_images=9, seed=0, shard_size=5) for pair in shard.pairs} == {None}


@pytest.mark.parametrize(("arguments", "message"), [({"num_images": 0}, "number of images"), ({"shard_size": 0}, "one image or more")])
def test_impossible_numbers(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_shards(RECORDS, **{"num_images": 3, "seed": 0, "shard_size": 2, **arguments})


def test_how_many_images_are_made_at_once() -> None:
    asked = (GenerateConfig(), GenerateConfig(model="somewhere/else"), GenerateConfig(batch_size=5))
    assert [config.images_at_once for config in asked] == [64, 32, 5]


def test_how_many_images_there_are_is_said_once() -> None:
    for config, total in (
        (GenerateConfig(num_images=12, images_per_prompt=3), 12),
        (GenerateConfig(images_per_prompt=3), DEFAULT_IMAGES),
        (GenerateConfig(prompts="a.txt", images_per_prompt=3), 15),
        (GenerateConfig(prompts="a.txt", num_images=12), 12),
    ):
        config.check()
        assert config.total(5) == total
    with pytest.raises(ValueError, match="of given prompts --images-per-prompt and --num-images both say how many images there are; leave one out"):
        GenerateConfig(prompts="a.txt", num_images=12, images_per_prompt=3).check()
    with pytest.raises(ValueError, match="--images-per-prompt must be 1 or more, not 0"):
        GenerateConfig(images_per_prompt=0).check()
