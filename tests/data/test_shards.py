import json
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from examples import painted, write_dataset
from PIL import Image

from data.pairs import PairDataset
from data.shards import DiskFullError, ShardError, ShardWriter, finished_shards, index_shard


def write_shard(directory: Path, count: int = 4) -> Path:
    with ShardWriter(directory, 0) as writer:
        for i in range(count):
            writer.add(f"{i:09d}", painted("cat", "red"), {"prompt": f"prompt {i}", "seed": i, "slots": {"subject": "cat"}})
        writer.add_failure("000000099", {"prompt": "bad", "seed": 99, "slots": {}}, "not finite", "values that are not finite")
    return directory / "00000.tar"


def test_a_shard_is_what_webdataset_and_img2dataset_expect(tmp_path: Path) -> None:
    tar = write_shard(tmp_path)
    with tarfile.open(tar) as archive:
        names = archive.getnames()
        assert names[:3] == ["000000000.png", "000000000.txt", "000000000.json"]
        assert len(names) == 12
        assert archive.extractfile("000000002.txt").read() == b"prompt 2"
        assert json.load(archive.extractfile("000000002.json"))["seed"] == 2
        with Image.open(archive.extractfile("000000001.png")) as image:
            assert image.size == (64, 64)
    rows = pq.read_table(tmp_path / "00000.parquet").to_pylist()
    assert [row["status"] for row in rows] == ["success"] * 4 + ["failed"]
    assert (rows[4]["error_kind"], rows[4]["error_message"]) == ("not finite", "values that are not finite")
    assert json.loads((tmp_path / "00000_stats.json").read_text()) == {"count": 5, "successes": 4, "failed": 1, "failures": {"not finite": 1}}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["00000.parquet", "00000.tar", "00000_stats.json"]


def test_pairs_are_written_in_order_however_long_their_images_take(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, 0) as writer:
        for i in range(150):
            side = 700 if i % 50 == 0 else 8
            writer.add(f"{i:03d}", Image.effect_noise((side, side), 50).convert("RGB"), {"prompt": f"prompt {i}"})
            if i == 70:
                writer.add_failure("failed", {"prompt": "bad"}, "not finite", "")
    assert [pair.key for pair in index_shard(tmp_path / "00000.tar")] == [f"{i:03d}" for i in range(150)]
    keys = [row["key"] for row in pq.read_table(tmp_path / "00000.parquet").to_pylist()]
    assert keys == [*(f"{i:03d}" for i in range(71)), "failed", *(f"{i:03d}" for i in range(71, 150))]


def test_the_same_pairs_make_the_same_bytes(tmp_path: Path) -> None:
    assert write_shard(tmp_path / "a").read_bytes() == write_shard(tmp_path / "b").read_bytes()


def test_an_exception_leaves_nothing_that_counts_as_done(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path, 0) as writer:
        writer.add("0", painted("cat", ""), {"prompt": "p"})
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_kill_9_leaves_nothing_that_counts_as_done(tmp_path: Path) -> None:
    """A writer killed while it writes: no stats file, and the next writer completes the shard."""
    code = (
        "import sys, time; from pathlib import Path; from PIL import Image; from data.shards import ShardWriter\n"
        "with ShardWriter(Path(sys.argv[1]), 0) as w:\n"
        "    for i in range(10**6):\n"
        "        w.add(str(i), Image.new('RGB', (64, 64)), {'prompt': 'p'}); print(i, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    for _ in range(20):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert finished_shards(tmp_path) == []
    assert len(index_shard(write_shard(tmp_path))) == 4


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's always-full device")
def test_a_full_disk_is_reported_and_costs_nothing_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shard(tmp_path)
    writer = ShardWriter(tmp_path, 1)
    writer._temporary = Path("/dev/full")
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: None)
    with pytest.raises(DiskFullError, match=r"disk is full.*what was done before is whole"), writer:
        for i in range(2000):
            writer.add(str(i), painted("cat", ""), {"prompt": "p"})
    assert [tar.name for tar in finished_shards(tmp_path)] == ["00000.tar"]


def test_a_shard_cut_short_is_named_with_the_remedy(tmp_path: Path) -> None:
    directory = write_dataset(tmp_path / "data", 60)
    tar = finished_shards(directory / "train")[0]
    whole = tar.read_bytes()
    for part in (0.9, 0.5, 0.01):
        tar.write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(ShardError, match=r"train/00000\.tar .*Delete .*00000_stats\.json and run the command that made"):
            PairDataset(directory, "train")


def test_random_damage_never_escapes_as_another_error(tmp_path: Path) -> None:
    import random

    rng = random.Random(0)
    tar = write_shard(tmp_path)
    whole = tar.read_bytes()
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 20)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        tar.write_bytes(bytes(damaged))
        try:
            index_shard(tar)
        except ShardError as error:
            assert "00000.tar" in str(error)


def test_unfinished_shards_are_not_read(tmp_path: Path) -> None:
    directory = write_dataset(tmp_path / "data", 60)
    before = len(PairDataset(directory, "train"))
    (directory / "train" / "00007.tar").write_bytes(b"half a shard")
    assert len(PairDataset(directory, "train")) == before
