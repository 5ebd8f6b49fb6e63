from pathlib import Path

import pytest

from data.pairs import PairDataset
from data.shards import DATASET_FILE, ShardError


def test_a_data_set_gives_back_what_was_written(small_dataset: Path) -> None:
    from diffusion.mini.world import read_slots

    pairs = [pair for split in ("train", "val", "test") for pair in PairDataset(small_dataset, split)]
    assert len(pairs) == 120
    assert len({pair.key for pair in pairs}) == 120
    for one in pairs:
        assert one.image.mode == "RGB"
        assert read_slots(one.prompt) == one.slots


def test_no_group_crosses_a_split(small_dataset: Path) -> None:
    groups = {split: {PairDataset(small_dataset, split).metadata(i)["prompt_group"] for i in range(3)} for split in ("train", "val", "test")}
    assert not groups["train"] & (groups["val"] | groups["test"])


@pytest.mark.parametrize(
    ("make", "message"), [(False, "Make one with: python generate_data.py --out"), (True, "directory that generate_data.py was given")]
)
def test_a_directory_that_is_no_data_set(tmp_path: Path, make: bool, message: str) -> None:
    if make:
        (tmp_path / "x").mkdir()
    with pytest.raises(ShardError, match=message):
        PairDataset(tmp_path / "x", "train")


def test_a_split_without_shards_says_how_to_finish(tmp_path: Path) -> None:
    (tmp_path / DATASET_FILE).write_text('{"arguments": ["--out", "here"]}')
    with pytest.raises(ShardError, match=r"Go on with: python generate_data\.py --out here"):
        PairDataset(tmp_path, "val")
    (tmp_path / DATASET_FILE).write_text("{")
    with pytest.raises(ShardError, match="is not JSON"):
        PairDataset(tmp_path, "val")
