from dataclasses import replace
from pathlib import Path

import pytest

from data.errors import ShardError
from data.files import read_json, write_json
from data.store.directory import DATASET_FILE, stats_path
from data.store.pairs import ArchivePairs, PairDataset


def test_a_data_set_gives_back_what_was_written(small_dataset: Path) -> None:
    from diffusion.mini.world import read_slots

    pairs = [pair for split in ("train", "val", "test") for pair in PairDataset(small_dataset, split)]
    assert len(pairs) == 120
    assert len({pair.key for pair in pairs}) == 120
    for one in pairs:
        assert one.image.mode == "RGB"
        assert read_slots(one.prompt) == one.slots


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


def test_a_data_set_that_is_not_finished_is_refused_unless_told(small_dataset: Path) -> None:
    whole = len(PairDataset(small_dataset, "train"))
    stats_path(small_dataset / "train" / "00001").unlink()
    shards = sum(read_json(small_dataset / DATASET_FILE)["shards"].values())
    for split in ("train", "val"):  # of which one is whole
        with pytest.raises(ShardError, match=rf"has {shards - 1} of {shards} shards\. Go on with: python generate_data\.py .* --partial"):
            PairDataset(small_dataset, split)
    assert len(PairDataset(small_dataset, "train", partial=True)) == whole - 25
    about = read_json(small_dataset / DATASET_FILE)
    counts = {"train": whole, "val": 1, "test": 1}
    write_json(small_dataset / DATASET_FILE, {"settings": {"shard_size": 25}, "counts": counts, "arguments": about["arguments"]})  # an older one
    with pytest.raises(ShardError, match="of 7 shards" if whole > 100 else "shards"):
        PairDataset(small_dataset, "train")


def test_the_fingerprint_knows_sizes_and_names(small_dataset: Path) -> None:
    pairs = PairDataset(small_dataset, "train")
    first, *others = pairs.locations
    changes = [{"key": "other"}, *({part: (getattr(first, part)[0], getattr(first, part)[1] + 1)} for part in ("image", "metadata", "text"))]
    seen = {pairs.fingerprint(), ArchivePairs(others).fingerprint()}
    seen |= {ArchivePairs([replace(first, **change), *others]).fingerprint() for change in changes}
    assert len(seen) == 6
    moved = [replace(place, tar=Path("/elsewhere") / place.tar.name) for place in pairs.locations]
    assert ArchivePairs(moved).fingerprint() == pairs.fingerprint()
