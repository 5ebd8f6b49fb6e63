"""Files read ahead by threads."""

from __future__ import annotations

import random
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from archives import encoded
from graphs import png
from PIL import Image

from data.images import read_image
from data.metadata.embedding import guessed_text
from inference.files import find_images, listed_paths
from inference.reading import PictureFile, read_ahead, read_picture_file

SETTINGS = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5"


def read(path: Path, *, metadata: bool = True, always_decode: bool = False) -> PictureFile:
    return read_picture_file(path, seen=lambda image: (image,), metadata=metadata, always_decode=always_decode)


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str, bytes], Path]:
    def write(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


def test_outcomes_come_in_order_though_threads_end_out_of_order() -> None:
    draw = random.Random(3)
    pauses = [draw.uniform(0, 0.01) for _ in range(60)]
    ended: list[int] = []

    def work(number: int) -> int:
        time.sleep(pauses[number])
        ended.append(number)
        return number

    assert list(read_ahead(work, range(60), ahead=12, threads=6)) == list(range(60))
    assert ended != sorted(ended)


@pytest.mark.parametrize("ahead", [1, 2, 7])
def test_no_more_than_ahead_are_held(ahead: int) -> None:
    lock, begun, taken, most = threading.Lock(), [0], [0], [0]

    def work(number: int) -> int:
        with lock:
            begun[0] += 1
            most[0] = max(most[0], begun[0] - taken[0])
        return number

    def items() -> Iterator[int]:
        for number in range(50):
            assert threading.current_thread() is threading.main_thread()  # what is asked of outputs is asked by one thread
            yield number

    for _ in read_ahead(work, items(), ahead=ahead, threads=4):
        time.sleep(0.001)
        with lock:
            taken[0] += 1
    assert begun[0] == 50
    assert most[0] == ahead


def test_whoever_stops_listening_does_not_wait() -> None:
    done: list[int] = []

    def work(number: int) -> int:
        time.sleep(0.05)
        done.append(number)
        return number

    begun = time.perf_counter()
    outcomes = read_ahead(work, range(1000), ahead=500, threads=2)
    assert next(outcomes) == 0
    outcomes.close()  # type: ignore[attr-defined]
    assert len(done) < 8
    assert time.perf_counter() - begun < 2


def test_what_goes_wrong_in_a_thread_is_raised_where_it_is_its_turn() -> None:
    outcomes = read_ahead(lambda number: 6 // number, [3, 2, 0, 1], ahead=4)
    assert [next(outcomes), next(outcomes)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(outcomes)
    assert list(read_ahead(str, [], ahead=3)) == []


def test_a_picture_that_carries_its_prompt_is_not_decoded(written: Callable[[str, bytes], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = written("a.png", png({"parameters": f" a castle \n{SETTINGS}"}))
    looked = read(path, always_decode=True)
    assert (looked.prompt, looked.misread, looked.error) == ("a castle", "", None)
    assert looked.images
    plain = read(path, metadata=False)
    assert (plain.prompt, plain.misread) == (None, "")
    assert plain.images
    monkeypatch.setattr("inference.reading.decoded_rgb", lambda *_: pytest.fail("it was decoded"))
    found = read(path)
    assert (found.prompt, found.images, found.error, found.path) == ("a castle", (), None, path)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (png({"parameters": guessed_text("a cat", {"Software": "Reprompt"})}), "a guess of Reprompt's"),
        (png({"prompt": '{"1": {"class_type": "KSampler", "inputs": {}}}'}), "ComfyUI"),
        (png({"parameters": f"\n{SETTINGS}"}), ""),  # a prompt of no words
        (png({"Title": "a castle"}), ""),
    ],
)
def test_metadata_that_give_no_prompt_are_told_by_their_kind(content: bytes, kind: str, written: Callable[[str, bytes], Path]) -> None:
    found = read(written("a.png", content))
    assert (found.prompt, found.misread, found.error) == (None, kind, None)
    assert found.images


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


HUGE = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (b"", "empty image", "the file is empty"),
        (b"no picture", "damaged image", "not a readable image"),
        (encoded()[:46], "damaged image", "not a readable image"),
        (encoded("JPEG", size=(200, 200))[:400], "damaged image", "not a readable image"),
        (HUGE, "huge image", "60000 x 60000 pixels are more than|decompression bomb"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "damaged image", "not a readable image"),
    ],
)
def test_what_cannot_be_read_says_why(content: bytes, kind: str, message: str, written: Callable[[str, bytes], Path]) -> None:
    path = written("a.png", content)
    found = read(path)
    assert (found.images, found.prompt) == ((), None)
    assert found.error is not None
    assert found.error.kind == kind
    assert str(path) in str(found.error)
    with pytest.raises(type(found.error), match=message):
        raise found.error


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    found = read(tmp_path / "none.png")
    assert found.error is not None
    assert found.error.kind == "missing image"


def test_of_a_moving_picture_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=50)
    (found,) = read(tmp_path / "a.gif").images
    assert found is not None
    assert np.array_equal(np.asarray(found), np.asarray(frames[0]))
    assert np.array_equal(np.asarray(found), np.asarray(read_image(tmp_path / "a.gif")))


# which files are meant


def found_below(*paths: Path | str) -> list[tuple[str, str]]:
    return [(str(file), str(root)) for file, root in find_images(map(Path, paths), lambda folder, error: pytest.fail(str(folder)))]


@pytest.fixture
def renders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("r/a/1.png", "r/a/2.jpg", "r/b/1.png", "r/notes.txt", "r/[x]/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_pattern_stands_for_files_below_what_comes_before_its_first_sign(renders: Path) -> None:
    assert found_below("r/**/*.png") == [("r/[x]/1.png", "r"), ("r/a/1.png", "r"), ("r/b/1.png", "r")]
    assert found_below(renders / "r/[ab]/1.*") == [(f"{renders}/r/a/1.png", f"{renders}/r"), (f"{renders}/r/b/1.png", f"{renders}/r")]
    assert found_below("r/a/?.png") == [("r/a/1.png", "r/a")]
    assert found_below("*") == [(file, ".") for file in ("r/[x]/1.png", "r/a/1.png", "r/a/2.jpg", "r/b/1.png")]
    assert found_below("r/[x]/1.png") == [("r/[x]/1.png", "r/[x]")]  # what has this name is meant
    assert found_below("r/[x]") == [("r/[x]/1.png", "r/[x]")]
    with pytest.raises(FileNotFoundError, match=r"r/\*\.webp does not exist, and no name fits it"):
        found_below("r/*.webp")


def test_each_file_comes_once_however_it_is_called(renders: Path) -> None:
    found = found_below("r/a/2.jpg", "r", renders / "r", "r/../r/a", "r/a/*.png")
    assert [file for file, _ in found] == ["r/a/2.jpg", "r/[x]/1.png", "r/a/1.png", "r/b/1.png"]
    assert [root for _, root in found] == ["r/a", "r", "r", "r"]


def test_a_link_to_nothing_is_no_file(renders: Path) -> None:
    (renders / "r/gone.png").symlink_to(renders / "none.png")
    with pytest.raises(FileNotFoundError, match=r"r/gone\.png does not exist"):
        found_below("r/gone.png")
    with pytest.raises(FileNotFoundError, match=r"r/g\*\.png does not exist, and no name fits it"):
        found_below("r/g*.png")
    assert found_below("r/b", "r/*.txt") == [("r/b/1.png", "r/b"), ("r/notes.txt", "r")]


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"", []),
        (b"\n \n", []),
        (b"a.png\nb c.png\n", ["a.png", "b c.png"]),
        (b"a.png\r\nb.png", ["a.png", "b.png"]),
        (b"a\nb.png\0c.png\0", ["a\nb.png", "c.png"]),
        (b"caf\xe9.png\0\xe7\x8c\xab.png", ["caf\udce9.png", "猫.png"]),
    ],
)
def test_a_list_of_names_is_one_in_a_line_or_with_zeros_between(content: bytes, names: list[str]) -> None:
    assert listed_paths(content.splitlines(keepends=True)) == [Path(name) for name in names]
