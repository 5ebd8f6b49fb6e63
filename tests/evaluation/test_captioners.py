import errno
import io
import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compared import PROMPTS, Told, pictures
from PIL import Image

from data.errors import DiskFullError
from evaluation import captioners
from evaluation.captioners import About, Caption, Captioned, CaptionerError, caption_all, file_name
from evaluation.processes import Processes

TEXTS = [f"text {number}" for number in range(10)]


def run(captioner: Told, count: int = 7, **how: object) -> Captioned:
    return caption_all(captioner, pictures(count), **({"batch_size": 3, "progress": lambda _: None} | how))  # type: ignore[arg-type]


def test_every_picture_is_captioned_once_in_order() -> None:
    told, seen = Told(TEXTS, 0.5), []
    found = run(told, progress=seen.append)
    assert found.texts == TEXTS[:7]
    assert {caption.confidence for caption in found.captions} == {0.5}
    assert told.seen == [3, 3, 1]
    assert sum(seen) == 7
    assert run(Told(TEXTS, batch_size=2)).seconds[0][0] == 2  # its own choice


def test_reading_pictures_is_not_timed_nor_the_first_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    some = pictures(7)
    read = type(some.source).image

    def slow(source: object, index: int) -> Image.Image:
        now[0] += 100.0
        return read(source, index)  # type: ignore[arg-type]

    monkeypatch.setattr(type(some.source), "image", slow)

    class Slow(Told):
        def caption(self, images: list[Image.Image]) -> list[Caption]:  # type: ignore[override]
            now[0] += (9.0 if not self.seen else 0.5) * len(images)
            return super().caption(images)

    found = caption_all(Slow(TEXTS), some, batch_size=3, progress=lambda _: None)
    assert found.images_per_second == pytest.approx(2.0)
    assert found.latency(0.5) == pytest.approx(0.5)
    assert found.latency(0.95) == pytest.approx(9.0)
    assert Captioned([], [(4, 2.0)], 0).images_per_second == 2.0  # where there is one batch alone


def test_who_writes_without_looking_is_shown_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Blind(Told):
        def caption(self, images: list[Image.Image]) -> list[Caption]:  # type: ignore[override]
            assert all(image.size == (1, 1) for image in images)
            return [Caption("x")] * len(images)

    some = pictures(4)
    monkeypatch.setattr(type(some.source), "image", lambda *_: pytest.fail("a picture was read"))
    assert caption_all(Blind(TEXTS, blind=True), some, batch_size=3, progress=lambda _: None).texts == ["x"] * 4


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda images: [Caption("x")], "1 captions for 3 pictures"),
        (lambda images: None, "NoneType captions for 3"),
        (lambda images: ["x"] * len(images), "3 captions for 3"),
        (lambda images: [Caption(None)] * len(images), "None for a text"),
        (lambda images: [Caption("x", float("nan"))] * len(images), "a confidence of nan"),
        (lambda images: [Caption("x", 1.5)] * len(images), "a confidence of 1.5"),
    ],
)
def test_answers_that_are_of_no_use_are_refused(answer: object, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(TEXTS)
    monkeypatch.setattr(told, "caption", answer)
    with pytest.raises(CaptionerError, match=message):
        run(told)


class Stopped(Told):
    """Stops at its third batch, as if the machine had."""

    def caption(self, images: list[Image.Image]) -> list[Caption]:  # type: ignore[override]
        if len(self.seen) == 2:
            raise KeyboardInterrupt
        return super().caption(images)


def test_an_interrupted_run_goes_on_without_captioning_anything_twice(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Stopped(TEXTS), keep=tmp_path)
    (file,) = tmp_path.iterdir()
    with open(file, "a", encoding="utf-8") as torn:
        torn.write('{"first": 6, "capt')  # cut in the middle of a line
    again, seen = Told(TEXTS), []
    found = run(again, keep=tmp_path, progress=seen.append)
    assert again.seen == [1]
    assert found.texts == TEXTS[:7]
    assert (found.kept, sum(seen)) == (6, 7)
    assert run(Told(TEXTS), keep=tmp_path).kept == 7


def test_what_another_captioner_wrote_or_on_other_pictures_is_not_taken(tmp_path: Path) -> None:
    run(Told(TEXTS), keep=tmp_path)
    for other in (Told(TEXTS[::-1]), Told(TEXTS, settings={"num_beams": 2}), Told(TEXTS, precision="bfloat16")):
        assert run(other, keep=tmp_path).kept == 0
    assert run(Told(TEXTS), count=6, keep=tmp_path).kept == 0
    assert run(Told(TEXTS), keep=tmp_path, batch_size=2).kept == 0
    assert run(Told(TEXTS), keep=tmp_path).kept == 7  # its own is still there


def test_each_batch_is_on_the_disk_before_the_next_is_captioned(tmp_path: Path) -> None:
    """A machine that is cut off loses one batch."""
    lines: list[int] = []

    class Looking(Told):
        def caption(self, images: list[Image.Image]) -> list[Caption]:  # type: ignore[override]
            lines.append((tmp_path / "0.jsonl").read_text().count('"first"'))
            return super().caption(images)

    run(Looking(TEXTS), keep=tmp_path)
    assert lines == [0, 1, 2]


def test_two_comparisons_that_write_into_one_place_at_a_time_take_nothing_of_each_other(tmp_path: Path) -> None:
    """The second begins and ends while the first captions."""
    other = Told(TEXTS[::-1])

    class Interrupted(Told):
        def caption(self, images: list[Image.Image]) -> list[Caption]:  # type: ignore[override]
            if not other.seen:
                run(other, keep=tmp_path)
            return super().caption(images)

    run(Interrupted(TEXTS), keep=tmp_path)
    assert run(Told(TEXTS), keep=tmp_path).texts == TEXTS[:7]
    assert run(Told(TEXTS[::-1]), keep=tmp_path).texts == TEXTS[::-1][:7]
    assert run(Told(TEXTS[::-1]), keep=tmp_path).kept == 7


class _Shared(Processes):
    """Processes that are threads."""

    def __new__(cls, *_: object) -> "_Shared":
        return object.__new__(cls)

    def __init__(self, index: int, count: int, board: list[dict[int, object]], barrier: threading.Barrier) -> None:
        object.__setattr__(self, "index", index)
        object.__setattr__(self, "count", count)
        object.__setattr__(self, "board", board)
        object.__setattr__(self, "barrier", barrier)

    def gather(self, thing: object) -> list:  # type: ignore[override]
        board, barrier = vars(self)["board"], vars(self)["barrier"]
        board[0][self.index] = thing
        barrier.wait(20)
        found = [board[0][index] for index in range(self.count)]
        barrier.wait(20)
        return found


def on_threads(captioners: list[Told], **how: object) -> list[object]:
    board, barrier = [{}], threading.Barrier(len(captioners))
    found: list[object] = [None] * len(captioners)

    def work(index: int) -> None:
        try:
            found[index] = run(captioners[index], processes=_Shared(index, len(captioners), board, barrier), **how)
        except Exception as error:
            found[index] = error

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(captioners))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return found


def test_several_processes_caption_the_same_batches_as_one(tmp_path: Path) -> None:
    told = [Told(TEXTS), Told(TEXTS)]
    found = on_threads(told, keep=tmp_path)
    assert [one.texts for one in found] == [TEXTS[:7]] * 2  # type: ignore[attr-defined]
    assert sorted([told[0].seen, told[1].seen]) == [[3], [3, 1]] or [told[0].seen, told[1].seen] == [[3, 1], [3]]
    assert len(list(tmp_path.iterdir())) == 2
    assert run(Told(TEXTS), keep=tmp_path).kept == 7  # whoever goes on


def test_a_failure_of_one_process_is_one_of_all() -> None:
    class Broken(Told):
        def caption(self, images: list[Image.Image]) -> list[Caption]:  # type: ignore[override]
            raise RuntimeError("out of memory")

    one, other = on_threads([Told(TEXTS), Broken(TEXTS)])
    assert isinstance(other, RuntimeError)
    assert isinstance(one, CaptionerError)
    assert "RuntimeError: out of memory" in str(one)


def test_a_process_that_cannot_keep_anything_tells_the_others(tmp_path: Path) -> None:
    (tmp_path / "1.jsonl").mkdir()
    one, other = on_threads([Told(TEXTS), Told(TEXTS)], keep=tmp_path)
    assert isinstance(other, OSError)
    assert isinstance(one, CaptionerError)


def test_what_was_kept_is_progress_once_however_many_processes_there_are(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Stopped(TEXTS), keep=tmp_path)
    seen: list[int] = []
    found = on_threads([Told(TEXTS), Told(TEXTS)], keep=tmp_path, progress=seen.append)
    assert [one.kept for one in found] == [6, 6]  # type: ignore[attr-defined]
    assert sum(seen) == 7


def test_the_memory_of_several_processes_is_that_of_the_largest() -> None:
    class Second(Processes):
        def gather(self, thing: object) -> list:  # type: ignore[override]
            other: object = {} if isinstance(thing, dict) else "" if isinstance(thing, str) else 10**15
            return [thing, other]

    found = run(Told(TEXTS), count=3, processes=Second(0, 2))
    assert found.memory == 10**15


def test_a_share_of_the_pictures_waits_no_longer_than_its_latency() -> None:
    found = Captioned([], [(1, 1.0), (1, 2.0), (1, 3.0), (1, 4.0)], 0)
    assert [found.latency(share) for share in (0.25, 0.5, 0.51, 0.95, 1.0)] == [1, 2, 3, 4, 4]


def test_memory_is_what_the_process_grew_by() -> None:
    class Large(Told):
        def caption(self, images: list[Image.Image]) -> list[Caption]:  # type: ignore[override]
            block = np.ones(50_000_000, dtype=np.uint8)
            time.sleep(0.2)
            return super().caption(images) if block[0] else []

    assert run(Large(TEXTS), count=2).memory > 40_000_000


def test_names_become_names_of_files() -> None:
    assert file_name("blip=/a/b c") == "blip__a_b_c"
    assert json.dumps(About().source) == '""'
    assert PROMPTS


def test_a_full_disk_is_named_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captioners, "open", lambda *_, **__: io.FileIO("/dev/full", "a"), raising=False)
    with pytest.raises(DiskFullError, match="the disk is full"):
        run(Told(TEXTS), keep=tmp_path)


def test_a_disk_that_takes_a_part_of_a_line_is_given_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(io.FileIO):
        def write(self, content: Any) -> int:
            return super().write(bytes(content)[:7])

    monkeypatch.setattr(captioners, "open", lambda path, *_, **__: Slow(path, "a"), raising=False)
    run(Told(TEXTS), keep=tmp_path)
    again = Told(TEXTS)
    assert run(again, keep=tmp_path).kept == 7
    assert again.seen == []


def test_a_disk_that_fills_up_later_is_named_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Filling(io.FileIO):
        def write(self, content: Any) -> int:
            if self.tell():
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(content)

    monkeypatch.setattr(captioners, "open", lambda path, *_, **__: Filling(path, "a"), raising=False)
    with pytest.raises(DiskFullError, match="the disk is full"):
        run(Told(TEXTS), keep=tmp_path)
