from pathlib import Path

import pytest
import torch
from PIL import Image

from data.batches import ShuffledBatches
from data.images import Preprocess
from data.pairs import Collate, Pair, PairDataset
from data.shards import DATASET_FILE, ShardError

TOKENS = {"a": 5, "b": 6, "c": 7}


def collate(max_tokens: int = 10) -> Collate:
    preprocess = Preprocess((8, 8), (0.5,) * 3, (0.5,) * 3, "bicubic")
    return Collate(preprocess, lambda text: [TOKENS[letter] for letter in text], bos_id=1, eos_id=2, pad_id=0, max_tokens=max_tokens)


def pair(prompt: str) -> Pair:
    return Pair("0", Image.new("RGB", (8, 8), (255, 0, 0)), prompt, {"prompt": prompt})


def test_labels_are_the_inputs_one_step_on() -> None:
    batch = collate()([pair("abc"), pair("a")])
    assert batch.input_ids.tolist() == [[1, 5, 6, 7], [1, 5, 0, 0]]
    assert batch.labels.tolist() == [[5, 6, 7, 2], [5, 2, -100, -100]]
    assert batch.pixel_values.shape == (2, 3, 8, 8)
    assert batch.pixel_values[0, :, 0, 0].tolist() == [1, -1, -1]


def test_a_prompt_that_is_cut_has_no_end() -> None:
    batch = collate(max_tokens=2)([pair("abc")])
    assert batch.input_ids.tolist() == [[1, 5]]
    assert batch.labels.tolist() == [[5, 6]]


def test_an_empty_prompt_is_begin_and_end() -> None:
    batch = collate()([pair("")])
    assert (batch.input_ids.tolist(), batch.labels.tolist()) == ([[1]], [[2]])


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


def draw(count: int, steps: int, **arguments: int) -> list[list[int]]:
    batches = iter(ShuffledBatches(count, 4, seed=1, **arguments))
    return [next(batches) for _ in range(steps)]


def test_every_epoch_sees_every_pair_once_in_another_order() -> None:
    order = [index for batch in draw(12, 6) for index in batch]
    assert sorted(order[:12]) == sorted(order[12:]) == list(range(12))
    assert order[:12] != order[12:]


def test_a_resumed_order_goes_on_where_it_stopped() -> None:
    assert draw(10, 9)[5:] == draw(10, 4, start_step=5)


def test_two_processes_share_the_batches_of_one_with_twice_the_size() -> None:
    whole = iter(ShuffledBatches(10, 8, seed=1))
    halves = [draw(10, 5, rank=rank, world_size=2) for rank in (0, 1)]
    for step in range(5):
        assert halves[0][step] + halves[1][step] == next(whole)


def test_order_depends_on_the_seed() -> None:
    assert next(iter(ShuffledBatches(50, 8, seed=1))) != next(iter(ShuffledBatches(50, 8, seed=2)))
    assert torch.tensor(draw(50, 1)).shape == (1, 4)
