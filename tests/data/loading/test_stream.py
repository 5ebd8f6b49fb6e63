import functools
import http.server
import io
import json
import socket
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from archives import encoded, numbered, write_tar
from PIL import Image

from data.errors import PairError, ShardError
from data.files import write_json
from data.loading.augmentation import RandomCrop
from data.loading.examples import Collate, TextFormat
from data.loading.stream import Position, StreamedExamples, StreamLoader, StreamState, _blocks, held_out, spread
from data.sources.opening import open_pairs
from data.sources.pictures import picture_numbers
from data.sources.streams import RawPair, TarShards, open_stream
from data.splits import SPLITS, Split, prompt_group, split_of
from data.store.directory import DATASET_FILE
from data.store.writer import ShardWriter
from model import IGNORED_LABEL, Preprocessing

PREPROCESS = Preprocessing(image_size=8)
TEXT = TextFormat(lambda text: [int(text.split()[-1]) + 10], bos_id=1, eos_id=2, pad_id=0, max_tokens=10)


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    for shard in range(5):
        write_tar(tmp_path / "tars" / f"{shard}.tar", numbered(20 * shard, 20 * shard + 20))
    return tmp_path / "tars"


def loader(tars: Path, *, workers: int = 0, rank: int = 0, world_size: int = 1, batch_size: int = 4, seed: int = 0) -> StreamLoader:
    state = StreamState((Position(),) * max(1, workers))
    augment = RandomCrop(PREPROCESS.size, PREPROCESS.interpolation)
    examples = StreamedExamples(
        open_stream(str(tars), "train"), PREPROCESS, TEXT, state, augment=augment, seed=seed, rank=rank, world_size=world_size
    )
    return StreamLoader(examples, batch_size, Collate(0, IGNORED_LABEL), num_workers=workers)


def numbers(stream: Iterator, batches: int) -> list[list[int]]:
    return [[int(token) - 10 for token in next(stream).input_ids[:, 1]] for _ in range(batches)]


TRAINING = sorted(i for i in range(100) if split_of(prompt_group(f"prompt number {i}")) == "train")


def test_every_training_pair_comes_once_an_epoch_in_another_order(tars: Path) -> None:
    stream = iter(loader(tars, batch_size=1))
    epochs = [[number for (number,) in numbers(stream, len(TRAINING))] for _ in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == TRAINING
    assert epochs[0] != epochs[1]
    assert epochs[0] != TRAINING


@pytest.mark.parametrize("shards", [5, 1])
def test_processes_share_the_stream(tars: Path, shards: int) -> None:
    if shards == 1:  # fewer shards than processes: each reads it and takes its share
        for shard in range(1, 5):
            (tars / f"{shard}.tar").unlink()
    every = TRAINING if shards == 5 else [number for number in TRAINING if number < 20]
    seen: list[int] = []
    for rank in (0, 1):
        for batch in loader(tars, rank=rank, world_size=2, batch_size=1):
            if batch.after[1].epoch == 1:
                break
            seen.append(int(batch.input_ids[0, 1]) - 10)
    assert sorted(seen) == every


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_goes_on_exactly_where_it_stopped(tars: Path, workers: int) -> None:
    straight = iter(loader(tars, workers=workers))
    whole = [next(straight) for _ in range(40)]  # into the second epoch
    for stop in (0, 1, 7, 22):
        first = loader(tars, workers=workers)
        stream = iter(first)
        for _ in range(stop):
            next(stream)
        again = loader(tars, workers=workers)
        again.load_state_dict(first.state_dict())
        stream = iter(again)
        for expected in whole[stop : stop + 8]:
            batch = next(stream)
            assert torch.equal(batch.input_ids, expected.input_ids)
            assert torch.equal(batch.images, expected.images)  # the augmentation too


def test_over_http(tars: Path) -> None:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tars))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tars_at = f"http://127.0.0.1:{server.server_port}/{{0..4}}.tar"
        assert len(open_stream(tars_at, "train")) == 5
        pairs = held_out(open_stream(tars_at, "val"), 100, "val")
        assert sorted(pairs.prompt(i) for i in range(len(pairs))) == sorted(
            f"prompt number {i}" for i in range(100) if split_of(prompt_group(f"prompt number {i}")) == "val"
        )
        assert pairs[0].image.size == (12, 10)
        server.shutdown()


def test_what_cannot_be_read_is_counted_and_passed_over(tars: Path) -> None:
    path = tars / "0.tar"
    path.write_bytes(path.read_bytes()[: 10 * 2048 + 600])
    (tars / "1.tar").write_bytes(b"no tar at all, but long enough to look like one" * 50)
    good = [number for number in TRAINING if number < 10 or 40 <= number < 80]
    files = numbered(0, 0) | {"a.png": b"", "a.txt": b"an empty image 7", "b.png": encoded(), "b.txt": b" ", "c.png": encoded(), "c.json": b"{}"}
    write_tar(tars / "4.tar", files)
    seen, skipped = [], Counter[str]()
    stream = iter(loader(tars, batch_size=1))
    for _ in range(len(good) + 1):  # what follows the last pair of the epoch is counted with the next pair
        batch = next(stream)
        seen.append(int(batch.input_ids[0, 1]) - 10)
        skipped += batch.skipped
    assert sorted(seen[: len(good)]) == good
    once = {"cut archive": 2, "empty image": 1, "empty prompt": 1, "no prompt": 1}
    assert all(once[kind] <= skipped[kind] <= 2 * once[kind] for kind in once)
    assert set(skipped) == set(once)


def test_a_stream_without_pairs_says_so(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"a.txt": b"x"})
    with pytest.raises(ShardError, match="not one readable training pair"):
        next(iter(loader(tmp_path)))
    with pytest.raises(ShardError, match="no pair of the stream falls into the val split"):
        held_out(TarShards([str(tmp_path / "0.tar")]), 3, "val")
    with pytest.raises(ShardError, match=r"there is no \.tar in"):
        open_stream(str(tmp_path / "none"), "train")


def test_a_data_set_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    columns = {"image": [Image.new("RGB", (12, 10))] * 60, "text": [f"prompt number {i}" for i in range(60)]}
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    rows = datasets.Dataset.from_dict(columns, features=features).to_iterable_dataset(num_shards=3)
    monkeypatch.setattr("data.sources.streams.load_hub", lambda name, streaming: {"train": rows})
    shards = open_stream("someone/something", "train")
    assert len(shards) == 3
    val = held_out(open_stream("someone/something", "val"), 60, "val")
    assert all(split_of(prompt_group(val.prompt(i))) == "val" for i in range(len(val)))
    assert val[0].image.size == (12, 10)
    every = [raw.text for split in SPLITS for raw in spread(open_stream("someone/something", split), 60)]
    assert sorted(map(str, every)) == sorted(columns["text"])
    monkeypatch.setattr("data.sources.streams.load_hub", lambda name, streaming: {"train": rows, "validation": rows, "test": rows})
    assert len(held_out(open_stream("someone/something", "val"), 100, "val")) == 60


def test_rows_of_several_prompts_are_as_many_pairs_by_number_and_as_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of one row in one split, by whichever way it is read."""
    datasets = pytest.importorskip("datasets")
    texts = [[f"row {i} said {word}" for word in ("one", "two", "three")[: 1 + i % 3]] for i in range(100)]
    texts[7] = []
    features = datasets.Features({"image": datasets.Image(), "captions": datasets.Sequence(datasets.Value("string"))})
    rows = datasets.Dataset.from_dict({"image": [Image.new("RGB", (12, 10))] * 100, "captions": texts}, features=features)
    monkeypatch.setattr("data.sources.opening.load_hub", lambda name, streaming: {"train": rows})
    monkeypatch.setattr("data.sources.streams.load_hub", lambda name, streaming: {"train": rows.to_iterable_dataset(num_shards=2)})
    where: dict[str, str] = {}
    for split in SPLITS:
        pairs = open_pairs("someone/something", split, prompt_name="captions")
        streamed = [raw.text for raw in spread(open_stream("someone/something", split, prompt_name="captions"), 300)]
        numbered = []
        for index in range(len(pairs)):
            with suppress(PairError):
                numbered.append(pairs.prompt(index))
                where[pairs.prompt(index)] = split
        assert sorted(filter(None, streamed)) == sorted(numbered)
        pictures = picture_numbers(pairs)
        assert all((pictures[i] == pictures[j]) == (pairs.key(i) == pairs.key(j)) for i, j in ((0, 1), (1, 2), (2, 3), (3, 4)))
    assert sorted(where) == sorted(text for some in texts for text in some)
    assert all(len({where[text] for text in some}) <= 1 for some in texts)


class Flaky(http.server.SimpleHTTPRequestHandler):
    """A server that answers some requests with an error, cuts bodies, or drops connections, as often as it is told, and then serves."""

    trouble: ClassVar[list[str]] = []
    served: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        if self.trouble:
            what = self.trouble.pop(0)
            if what == "503":
                self.send_error(503)
            elif what == "cut":
                content = Path(self.translate_path(self.path)).read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2])
                self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self.served.append(self.path)
        super().do_GET()

    def do_HEAD(self) -> None:
        self.send_error(405)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def flaky(tars: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr("data.sources.streams.time.sleep", lambda seconds: None)
    Flaky.trouble, Flaky.served = [], []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Flaky, directory=str(tars))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("trouble", [["503"], ["503", "503"], ["cut"], ["cut", "503", "drop"], ["drop", "drop"]])
def test_what_fails_for_a_moment_over_a_network_is_read_again_from_where_it_stopped(flaky: str, trouble: list[str]) -> None:
    Flaky.trouble = list(trouble)
    found = list(TarShards([f"{flaky}/0.tar"]).read(0))
    assert [pair.prompt for pair in found] == [f"prompt number {i}" for i in range(20)]  # each once
    assert not Flaky.trouble


def test_what_fails_for_good_is_counted_and_training_goes_on(flaky: str, tars: Path) -> None:
    (tars / "1.tar").write_bytes((tars / "1.tar").read_bytes()[:9000])  # broken on the server
    (tars / "2.tar").unlink()
    state = StreamState((Position(),))
    shards = open_stream(f"{flaky}/{{0..4}}.tar", "train")
    examples = StreamedExamples(shards, PREPROCESS, TEXT, state)
    stream = iter(StreamLoader(examples, 1, Collate(0, IGNORED_LABEL)))
    skipped, seen = Counter[str](), []
    for _ in range(120):
        batch = next(stream)
        skipped += batch.skipped
        seen.append(int(batch.input_ids[0, 1]) - 10)
    assert skipped["unreachable archive"] >= 1
    assert skipped["cut archive"] >= 1
    good = [number for number in TRAINING if number < 20 or number >= 60]
    assert set(good) <= set(seen)
    assert Flaky.served.count("/2.tar") <= 3  # what is not there is not asked for again and again


def test_a_failure_of_the_network_that_lasts_is_tried_a_few_times(flaky: str) -> None:
    Flaky.trouble = ["503"] * 1000
    with pytest.raises(PairError) as error:
        list(TarShards([f"{flaky}/0.tar"]).read(0))
    assert error.value.kind == "unreachable archive"
    assert 5 <= 1000 - len(Flaky.trouble) <= 40


def test_blocks_are_bounded_in_pairs_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    def pairs() -> Iterator[RawPair]:
        for i in range(10):
            yield RawPair(str(i), bytes(100), f"prompt {i}", {})
        raise PairError("cut", "cut archive")

    monkeypatch.setattr("data.loading.stream.BLOCK", 4)
    assert [len(block) for block in _blocks(pairs())] == [4, 4, 3]
    monkeypatch.setattr("data.loading.stream.BLOCK", 1000)
    monkeypatch.setattr("data.loading.stream.BLOCK_BYTES", 250)
    blocks = list(_blocks(pairs()))
    assert [len(block) for block in blocks] == [3, 3, 3, 2]
    assert isinstance(blocks[-1][-1], PairError)


def test_a_connection_that_drops_in_the_middle_gives_no_pair_twice(tars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first time after half of the bytes, when pairs have been handed on already."""
    monkeypatch.setattr("data.sources.streams.time.sleep", lambda seconds: None)
    content, opened = (tars / "0.tar").read_bytes(), []

    class Dropping(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if len(opened) == 1 and self.tell() > len(content) // 2:
                raise ConnectionResetError("dropped")
            return super().read(size)

    def dropping(url: str, mode: str) -> io.BytesIO:
        opened.append(url)
        return Dropping(content)

    monkeypatch.setattr("data.sources.streams.fsspec.open", dropping)
    monkeypatch.setattr("tarfile.open", functools.partial(tarfile.open, bufsize=2048))  # read in small pieces
    found = list(TarShards(["https://host/0.tar"]).read(0))
    assert len(opened) == 2
    assert [pair.prompt for pair in found] == [f"prompt number {i}" for i in range(20)]


@pytest.mark.parametrize("layout", ["directories", "names", "ours"])
def test_declared_splits_are_kept_by_streams_too(tmp_path: Path, layout: str) -> None:
    """Test pairs of ours are no training pairs because they are streamed; and of what is declared nothing else is carved out."""
    parts = {"train": range(100), "val": range(100, 130), "test": range(130, 160)}
    for split, numbers_of in parts.items():
        path = tmp_path / (f"mine-{split}-0.tar" if layout == "names" else f"{split}/00000.tar")
        if layout == "ours":
            with ShardWriter(tmp_path / split, 0) as writer:
                for i in numbers_of:
                    writer.add(f"{i:05d}", Image.new("RGB", (12, 10)), {"prompt": f"prompt number {i}"})
        else:
            write_tar(path, numbered(numbers_of.start, numbers_of.stop))
    if layout == "ours":
        write_json(tmp_path / DATASET_FILE, {"shards": {"train": 1, "val": 1, "test": 1}})

    def streamed(split: Split) -> list[int]:
        return sorted(int(str(raw.text).split()[-1]) for raw in spread(open_stream(str(tmp_path), split), 1000))

    assert {split: streamed(split) for split in SPLITS} == {split: list(numbers_of) for split, numbers_of in parts.items()}
    for path in [path for pattern in ("test/*", "*test*.tar") for path in tmp_path.glob(pattern) if path.is_file()]:
        path.unlink()
    if layout == "ours":
        with pytest.raises(ShardError, match="has 2 of 3 shards"):
            open_stream(str(tmp_path), "train")
        assert open_stream(str(tmp_path), "val", partial=True)
        write_json(tmp_path / DATASET_FILE, {"shards": {"train": 1, "val": 1, "test": 0}})
    hashed = [i for i in parts["train"] if split_of(prompt_group(f"prompt number {i}")) == "test"]
    assert streamed("test") == hashed
    assert streamed("val") == list(parts["val"])
    assert streamed("train") == [i for i in parts["train"] if i not in hashed]


def test_a_streamed_pair_may_say_its_split_and_its_group(tmp_path: Path) -> None:
    group = next(name for name in map(str, range(100)) if split_of(name) == "val")
    files: dict[str, bytes] = {}
    for i in range(9):
        said = {"split": "test"} if i < 3 else {"prompt_group": group} if i < 6 else {"split": "train", "prompt_group": group}
        files |= {f"{i}.png": encoded(), f"{i}.json": json.dumps({"prompt": f"prompt number {i}"} | said).encode()}
    write_tar(tmp_path / "0.tar", files)
    found = {split: [raw.key for raw in spread(open_stream(str(tmp_path), split), 9)] for split in SPLITS}
    assert found == {"train": ["6", "7", "8"], "val": ["3", "4", "5"], "test": ["0", "1", "2"]}


def test_what_is_held_out_comes_from_all_over_a_stream(tmp_path: Path) -> None:
    for shard in range(40):
        write_tar(tmp_path / "val" / f"{shard:02d}.tar", numbered(100 * shard, 100 * shard + 20))
    write_tar(tmp_path / "train" / "0.tar", numbered(0, 3))
    pairs = held_out(open_stream(str(tmp_path), "val"), 64, "val")
    shards = Counter(int(pairs.prompt(i).split()[-1]) // 100 for i in range(len(pairs)))
    assert len(pairs) == 64
    assert set(shards.values()) == {4}
    assert max(shards) > 30
    write_tar(tmp_path / "val" / "large.tar", numbered(9000, 9200))
    every = [raw.text for raw in spread(open_stream(str(tmp_path), "val"), 64)]
    assert len(every) == len(set(every)) == 1000  # all there are, each once, and the first of them from everywhere
    first = Counter(int(str(text).split()[-1]) // 100 for text in every[: 41 * 4])
    assert set(first.values()) == {4}
    fingerprints = {open_stream(str(tmp_path), split).fingerprint() for split in SPLITS}
    assert len(fingerprints) == 3
