import io
import json
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from commands import ROOT
from examples import painted, write_dataset
from PIL import Image

from data.errors import DiskFullError, ShardBusyError, ShardError
from data.metadata.tools import read_image_metadata
from data.store.columns import SCHEMA
from data.store.directory import finished_shards, index_shard
from data.store.pairs import ArchivePairs, PairDataset
from data.store.writer import Format, ShardWriter


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
    assert json.loads((tmp_path / "00000_stats.json").read_text()) == {
        "count": 5, "successes": 4, "failed": 1, "failures": {"not finite": 1}, "truncated": 0
    }  # fmt: skip
    assert sorted(file.name for file in tmp_path.iterdir()) == [".locks", "00000.parquet", "00000.tar", "00000_stats.json"]


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
    assert [path.name for path in tmp_path.iterdir()] == [".locks"]


def test_kill_9_leaves_nothing_that_counts_as_done(tmp_path: Path) -> None:
    """A writer killed while it writes: no stats file, and the next writer completes the shard."""
    code = (
        "import sys, time; from pathlib import Path; from PIL import Image; from data.store.writer import ShardWriter\n"
        "with ShardWriter(Path(sys.argv[1]), 0) as w:\n"
        "    for i in range(10**6):\n"
        "        w.add(str(i), Image.new('RGB', (64, 64)), {'prompt': 'p'}); print(i, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT)
    assert [process.stdout.readline().strip() for _ in range(20)] == [str(i).encode() for i in range(20)]
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


def test_a_finished_shard_is_seen_under_the_lock(tmp_path: Path) -> None:
    late = ShardWriter(tmp_path, 0)
    assert not late.is_done
    tar = write_shard(tmp_path)
    content = tar.read_bytes()
    with pytest.raises(ShardBusyError, match="was written by another run"), late:
        raise AssertionError("written twice")
    assert tar.read_bytes() == content
    with ShardWriter(tmp_path, 0, retry=True) as again:  # one of its samples had failed
        again.add("000000000", painted("cat", "red"), {"prompt": "prompt 0"})
    assert [pair.key for pair in index_shard(tar)] == ["000000000"]
    assert ShardWriter(tmp_path, 0, retry=True).is_done


def test_a_shard_has_one_writer_at_a_time(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, 0) as writer:
        for _ in range(2):  # a lock that was removed by whoever looked would let the second in
            with pytest.raises(ShardBusyError, match="is being written by another run"), ShardWriter(tmp_path, 0):
                raise AssertionError("two writers")
            code = "import sys; from pathlib import Path; from data.store.writer import ShardWriter; ShardWriter(Path(sys.argv[1]), 0).__enter__()"
            process = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=ROOT, check=False)
            assert "ShardBusyError" in process.stderr
        writer.add("0", painted("cat", ""), {"prompt": "p"})
    assert len(index_shard(tmp_path / "00000.tar")) == 1


@pytest.mark.parametrize("broken", ["00000.tar", "00000.parquet", "00000_stats.json"])
def test_a_crash_between_the_files_leaves_nothing_that_counts_as_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    write_shard(tmp_path)  # with a failure, to be made again
    replace = Path.replace

    def crashes(self: Path, target: Path) -> Path:
        if target.name == broken:
            raise SystemExit("the power went")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", crashes)
    with pytest.raises(SystemExit), ShardWriter(tmp_path, 0, retry=True) as writer:
        writer.add("other", painted("owl", ""), {"prompt": "another"})
    assert finished_shards(tmp_path) == []


def test_columns_have_one_type_in_every_shard(tmp_path: Path) -> None:
    for number, metadata in enumerate(({"prompt": "a"}, {"prompt": "b", "seed": 2**64 - 1, "steps": 3, "others": {"x": [1]}, "truncated": True})):
        with ShardWriter(tmp_path, number) as writer:
            writer.add("0", painted("cat", ""), metadata)
    first, second = (pq.read_schema(tmp_path / f"0000{number}.parquet") for number in (0, 1))
    assert first == second == SCHEMA
    assert str(first.field("seed").type) == "uint64"
    assert str(first.field("guidance_scale").type) == "double"
    row = pq.read_table(tmp_path / "00001.parquet").to_pylist()[0]
    assert (row["seed"], row["others"], row["truncated"]) == (2**64 - 1, '{"x": [1]}', True)
    with pytest.raises(ShardError, match="no shard has a column colour"), ShardWriter(tmp_path, 2) as writer:
        writer.add("0", painted("cat", ""), {"prompt": "a", "colour": "red"})
    assert len(finished_shards(tmp_path)) == 2


@pytest.mark.parametrize("form", ["png", "jpg", "webp"])
def test_images_are_kept_in_the_form_asked_for_and_carry_their_prompt(tmp_path: Path, form: Format) -> None:
    image = Image.effect_noise((32, 32), 40).convert("RGB").resize((128, 128), Image.Resampling.BICUBIC)
    with ShardWriter(tmp_path, 0) as writer:
        writer.add("0", image, {"prompt": "a fox – в лесу", "seed": 5, "steps": 20, "guidance_scale": 7.0}, form)
    with tarfile.open(tmp_path / "00000.tar") as archive:
        content = archive.extractfile(f"0.{form}").read()
    with Image.open(io.BytesIO(content)) as file:
        assert file.format == {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}[form]
        assert read_image_metadata(file).prompt == "a fox – в лесу"
        difference = np.abs(np.asarray(file.convert("RGB"), dtype=int) - np.asarray(image, dtype=int)).mean()
    assert difference == 0 if form == "png" else difference < 3
    assert ArchivePairs(index_shard(tmp_path / "00000.tar"))[0].prompt == "a fox – в лесу"


def test_webdataset_and_datasets_read_the_shards(tmp_path: Path) -> None:
    tar = write_shard(tmp_path)
    import datasets
    import webdataset

    found = list(webdataset.WebDataset(str(tar), shardshuffle=False).decode("pil"))
    assert [sample["__key__"] for sample in found] == [f"{i:09d}" for i in range(4)]
    assert [(sample["txt"], sample["json"]["seed"], sample["png"].size) for sample in found] == [(f"prompt {i}", i, (64, 64)) for i in range(4)]
    rows = datasets.load_dataset("webdataset", data_files=str(tar), split="train", cache_dir=str(tmp_path / "cache"))
    assert [(row["__key__"], row["txt"], row["png"].size) for row in rows] == [(f"{i:09d}", f"prompt {i}", (64, 64)) for i in range(4)]
    assert pq.read_table(tar.with_suffix(".parquet"))["prompt"].to_pylist()[:4] == [sample["txt"] for sample in found]
