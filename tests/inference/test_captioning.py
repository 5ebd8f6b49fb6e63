"""Folders captioned by an inverter whose answers are known."""

from __future__ import annotations

import errno
import json
import random
import time
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archives import encoded
from captioned import Kept, Ran, carrying
from graphs import png
from inverters import StubInverter, coloured, said
from PIL import Image

import inference.captioning
import inference.reading
from data.errors import DiskFullError
from data.metadata.embedding import guessed_text
from inference.beside import Sidecars
from inference.captioning import Outcome, Wording
from inference.line_files import JsonLines
from inference.prediction import NOT_FAMILIAR, UNFAMILIAR, Prediction
from inference.rows import Row


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for red in range(10):
        coloured(red).save(tmp_path / f"{red:02}.png")
    return tmp_path


def test_rows_come_in_the_order_of_the_files_though_threads_end_out_of_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw, ended, read = random.Random(0), list[int](), inference.captioning.read_picture_file

    def slowly(path: Path, **options: Any) -> Any:
        time.sleep(draw.uniform(0, 0.02))
        ended.append(int(path.stem))
        return read(path, **options)

    monkeypatch.setattr(inference.captioning, "read_picture_file", slowly)
    monkeypatch.setattr(inference.reading.os, "cpu_count", lambda: 4)
    files = sorted(folder.iterdir())
    random.Random(1).shuffle(files)
    kept = Kept()
    ran = Ran(files, kept, batch_size=4)
    assert [row.file for row in kept.rows] == files
    assert kept.prompts == [f"picture {int(file.stem)}" for file in files]
    assert ended != [int(file.stem) for file in files]
    assert ran.stub.batches == [[int(file.stem) for file in files[first : first + 4]] for first in (0, 4, 8)]
    assert (ran.outcome.model, ran.done, ran.failed) == (10, 10, [])


def test_pictures_are_held_for_a_few_batches_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(60):
        coloured(number).save(tmp_path / f"{number:02}.png")
    alive: list[weakref.ref[Image.Image]] = []
    most = [0]

    class Counting(StubInverter):
        def reduced(self, image: Image.Image) -> Image.Image:
            alive.append(weakref.ref(image))
            most[0] = max(most[0], sum(one() is not None for one in list(alive)))
            return image

    kept = Kept()
    Ran(sorted(tmp_path.iterdir()), kept, stub=Counting(), batch_size=3)
    assert len(kept.rows) == 60
    assert most[0] <= 3 * 3 + 3 + 1  # three batches ahead, and one in the network's hands


def test_a_bad_file_costs_nothing_but_itself(folder: Path) -> None:
    (folder / "00a.png").write_bytes(b"")
    (folder / "01a.png").write_bytes(b"no picture")
    (folder / "02a.png").write_bytes(encoded()[:46])
    (folder / "b\nc.png").write_bytes(b"")
    kept = Kept()
    files = [*sorted(folder.iterdir()), folder / "none.png"]
    ran = Ran(files, kept, batch_size=4)
    assert kept.prompts == [f"picture {red}" for red in range(10)]
    assert ran.outcome.failed == {"empty image": 2, "damaged image": 2, "missing image": 1}
    assert ran.done == len(files) == 15
    assert len(ran.failed) == 5
    assert all(len(line.splitlines()) == 1 and line.count(str(folder)) >= 1 for line in ran.failed)
    assert ran.failed[0] == f"{folder / '00a.png'}: not a readable image (the file is empty)"
    expected = "15 pictures: 10 by the model, 0 from their metadata, 5 failed (2 empty image, 2 damaged image, 1 missing image)"
    assert str(ran.outcome) == expected


def test_what_all_outputs_have_is_not_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [path.name for path in sorted(folder.iterdir())]
    one, other = Kept(names[:5]), Kept(names[3:7])
    ran = Ran(sorted(folder.iterdir()), one, other)
    assert [row.file.name for row in one.rows] == names[5:]
    assert [row.file.name for row in other.rows] == names[:3] + names[7:]
    assert ran.stub.batches == [[0, 1, 2, 5, 6, 7, 8, 9]]
    assert (ran.outcome.model, ran.outcome.already, ran.done) == (8, 2, 10)
    assert str(ran.outcome) == "10 pictures: 8 by the model, 0 from their metadata, 2 there already"
    monkeypatch.setattr(inference.captioning, "read_picture_file", lambda *_, **__: pytest.fail("it was read"))
    nothing = Ran(sorted(folder.iterdir()), Kept(names))
    assert (nothing.outcome.already, nothing.stub.batches) == (10, [])


def test_a_prompt_that_a_picture_carries_goes_first(folder: Path) -> None:
    for red in (1, 2, 6):
        carrying(folder / f"{red:02}.png", f"a castle {red}", red)
    kept = Kept()
    ran = Ran(sorted(folder.iterdir()), kept, batch_size=3)
    assert kept.prompts == [f"a castle {red}" if red in (1, 2, 6) else f"picture {red}" for red in range(10)]
    assert [row.source for row in kept.rows] == ["metadata" if red in (1, 2, 6) else "model" for red in range(10)]
    assert all(row.prediction is None and row.parts is None for row in kept.rows if row.source == "metadata")
    assert (ran.outcome.model, ran.outcome.metadata, ran.done) == (7, 3, 10)
    assert ran.stub.batches == [[0, 3, 4], [5, 7, 8], [9]]  # the network's batches are full
    ignored = Kept()
    assert Ran(sorted(folder.iterdir()), ignored, metadata=False).outcome.model == 10
    assert ignored.prompts == [f"picture {red}" for red in range(10)]
    assert {row.metadata for row in ignored.rows} == {None}


def test_rows_that_need_no_network_do_not_wait_for_it(tmp_path: Path) -> None:
    for number in range(30):
        carrying(tmp_path / f"{number:02}.png", f"a castle {number}")
    coloured(7).save(tmp_path / "99.png")
    kept = Kept()
    ran = Ran(sorted(tmp_path.iterdir()), kept, batch_size=2)
    assert kept.prompts == [*(f"a castle {number}" for number in range(30)), "picture 7"]
    assert ran.stub.batches == [[7]]
    held: list[int] = []
    coloured(8).save(tmp_path / "00a.png")  # one that waits for its batch holds up no more than three batches of others
    waits = Kept(fails=lambda row: held.append(len(waits.rows)))
    ran = Ran(sorted(tmp_path.iterdir()), waits, batch_size=2)
    assert ran.stub.batches == [[8], [7]]
    assert waits.prompts[:3] == ["a castle 0", "picture 8", "a castle 1"]


def test_rows_are_written_as_soon_as_they_are_known(tmp_path: Path) -> None:
    """And not when a batch that they have no part in is full: whoever ends the run keeps them."""
    files, written = [], list[int]()
    for number in range(40):
        files.append(tmp_path / f"{number:02}.png")
        carrying(files[-1], f"a castle {number}")
    kept = Kept()

    def asked() -> Iterator[Path]:
        for file in files:
            written.append(len(kept.rows))
            yield file

    Ran(asked(), kept, batch_size=2)
    assert [number - count for number, count in enumerate(written)] == [0, 1, 2, 3, 4, 5] + 34 * [5]  # three batches are read ahead


def test_guesses_and_what_is_not_understood_are_counted_by_kind(folder: Path) -> None:
    guess = png({"parameters": guessed_text("a castle", {"Software": "Reprompt", "Confidence": "0.10"})}, coloured(1))
    (folder / "01.png").write_bytes(guess)
    (folder / "02.png").write_bytes(guess)
    (folder / "03.png").write_bytes(png({"prompt": '{"1": {"class_type": "KSampler", "inputs": {}}}'}, coloured(3)))
    kept = Kept()
    ran = Ran(sorted(folder.iterdir()), kept)
    assert [row.source for row in kept.rows] == ["model"] * 10
    assert kept.prompts[:4] == ["picture 0", "picture 1", "picture 1", "picture 3"]
    assert ran.outcome.misread == {"a guess of Reprompt's": 2, "ComfyUI": 1}
    assert str(ran.outcome).endswith("10 by the model, 0 from their metadata; the metadata of 3 gave no prompt (2 a guess of Reprompt's, 1 ComfyUI)")


class Letters:
    """A sentence encoder by hand: how often each letter occurs, to the length 1."""

    def __init__(self, **_: Any) -> None: ...

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        counts = np.array([[text.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts], dtype=np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def test_to_verify_is_to_ask_the_model_too_and_to_compare(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference.captioning, "SentenceEncoder", Letters)
    carrying(folder / "01.png", "abb", 1)
    stub = StubInverter(lambda red: said("aab" if red == 1 else f"picture {red}", "other", familiarity=0.0001, confidence=0.2))
    kept = Kept()
    ran = Ran(sorted(folder.iterdir()), kept, stub=stub, verify=True, min_confidence=0.5)
    row = kept.rows[1]
    assert (row.prompts, row.source, row.metadata) == (("abb",), "metadata", "abb")
    assert row.similarity == pytest.approx(4 / 5)  # (2, 1) and (1, 2)
    assert row.note == "the model says: aab (similarity 0.80)"
    assert row.prediction is not None
    assert row.prediction.prompt == "aab"
    assert row.parts is not None
    assert {one.similarity for one in kept.rows if one is not row} == {None}
    assert (ran.outcome.metadata, ran.outcome.model, ran.outcome.unfamiliar, ran.outcome.unsure) == (1, 9, 9, 9)
    assert json.loads(json.dumps(row.as_json()))["model_prompt"] == "aab"


def test_without_verify_no_sentence_model_is_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference.captioning, "SentenceEncoder", lambda **_: pytest.fail("it was loaded"))
    assert Ran(sorted(folder.iterdir()), Kept()).outcome.model == 10


@pytest.mark.parametrize(
    ("confidence", "familiarity", "note"),
    [
        (0.9, 0.5, ""),
        (0.5, None, ""),
        (0.5, UNFAMILIAR, ""),
        (0.4999, 0.5, "unsure: confidence 0.50"),
        (0.9, UNFAMILIAR / 2, NOT_FAMILIAR),
        (0.1, 0.0, f"{NOT_FAMILIAR}; unsure: confidence 0.10"),
    ],
)
def test_what_one_must_know_before_believing_a_prompt_is_noted(confidence: float, familiarity: float | None, note: str, folder: Path) -> None:
    def say(red: int) -> Prediction:
        return said("a cat", confidence=confidence, familiarity=familiarity)

    kept = Kept()
    ran = Ran(sorted(folder.iterdir())[:3], kept, stub=StubInverter(say), min_confidence=0.5)
    assert [row.note for row in kept.rows] == [note] * 3
    assert ran.outcome.unfamiliar == 3 * (NOT_FAMILIAR in note)
    assert ran.outcome.unsure == 3 * ("unsure" in note)
    assert ("3 unlike anything this model was trained on, whose prompts are guesses" in str(ran.outcome)) == (NOT_FAMILIAR in note)
    assert ("3 below --min-confidence" in str(ran.outcome)) == ("unsure" in note)


@pytest.mark.parametrize(
    ("prompt", "triggers", "suffix", "expected"),
    [
        ("a cat", (), "", "a cat"),
        ("a cat", ("my style",), "", "my style, a cat"),
        ("a cat", ("one", "two"), "4k", "one, two, a cat, 4k"),
        ("one, a cat", ("one", "two"), "", "two, one, a cat"),
        ("a cat, My Style", ("my style",), "", "a cat, My Style"),
        ("a cat in my style", ("my style",), "", "my style, a cat in my style"),
        ("a cat", ("a", "cat"), "", "a, cat, a cat"),
        ("a cat, 4K , sharp", (), " 4k", "a cat, 4K , sharp"),
        ("a cat by night", (), "by night", "a cat by night"),
        ("a cat, sharp, 4k", (), "4K, Sharp", "a cat, sharp, 4k"),
        ("one, a cat, two", ("two, one",), "", "one, a cat, two"),
        ("one, a cat", ("two, one",), "", "two, one, one, a cat"),
        ("", ("one",), "4k", "one, 4k"),
        ("", ("",), "", ""),
        ("a cat", ("",), "", "a cat"),
    ],
)
def test_words_around_a_prompt_are_not_put_there_twice(prompt: str, triggers: tuple[str, ...], suffix: str, expected: str) -> None:
    wording = Wording(triggers=triggers, suffix=suffix)
    assert wording(prompt) == expected
    if expected != "two, one, one, a cat":
        assert wording(expected) == expected


def test_all_prompts_are_worded_and_the_parts_are_the_models(folder: Path) -> None:
    carrying(folder / "01.png", "a castle")
    stub = StubInverter(lambda red: said("a cat", "a dog", "x, an owl"))
    kept = Kept()
    Ran(sorted(folder.iterdir())[:2], kept, stub=stub, wording=Wording(triggers=("x",), suffix="4k"), decoding={"num_beams": 3})
    assert [row.prompts for row in kept.rows] == [("x, a cat, 4k", "x, a dog, 4k", "x, an owl, 4k"), ("x, a castle, 4k",)]
    assert kept.rows[1].metadata == "a castle"
    assert kept.rows[0].parts is not None
    assert kept.rows[0].parts.subject.text == "a cat"
    assert kept.rows[0].by == kept.rows[1].by == "me"
    assert stub.options == [{"num_beams": 3}]
    alternatives = kept.rows[0].as_json()["alternatives"]
    assert [one["prompt"] for one in alternatives] == ["x, a dog, 4k", "x, an owl, 4k"]


def test_what_cannot_be_written_for_one_picture_is_named_and_the_others_are(folder: Path) -> None:
    def fails(row: Row) -> None:
        if row.file.name == "02.png":
            raise PermissionError(13, "Permission denied", "somewhere")

    one, other = Kept(), Kept(fails=fails)
    ran = Ran(sorted(folder.iterdir()), one, other)
    assert len(one.rows) == 10
    assert len(other.rows) == 9
    assert ran.failed == [f"{folder / '02.png'}: Permission denied"]
    assert (ran.outcome.model, ran.outcome.failed, ran.done) == (9, {"not written": 1}, 10)


@pytest.mark.parametrize(
    "error",
    [
        DiskFullError(errno.ENOSPC, "the disk is full"),
        OSError(errno.ENOSPC, "No space left on device"),  # as standard output says it
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
    ],
)
def test_where_nothing_more_can_be_written_a_run_ends(error: OSError, folder: Path) -> None:
    def fails(row: Row) -> None:
        if row.file.name == "05.png":
            raise error

    kept, stub = Kept(fails=fails), StubInverter()
    with pytest.raises(type(error)) as raised:
        Ran(sorted(folder.iterdir()), kept, stub=stub, batch_size=2)
    assert raised.value is error
    assert kept.prompts == [f"picture {red}" for red in range(5)]
    assert stub.batches == [[0, 1], [2, 3], [4, 5]]


def test_a_name_that_is_too_long_with_another_suffix_costs_nothing_but_itself(folder: Path) -> None:
    long = folder / f"00{'x' * 249}.png"  # of 255 bytes, the most there are
    coloured(77).save(long)
    ran = Ran(sorted(folder.iterdir()), Sidecars(".caption", "skip"))
    assert ran.failed == [f"{long}: File name too long"]
    assert ran.outcome.failed == {"not written": 1}
    assert sorted(path.read_text() for path in folder.glob("*.caption")) == [f"picture {red}\n" for red in range(10)]


def test_pictures_that_share_a_text_are_named_and_the_first_has_it(folder: Path) -> None:
    coloured(33).save(folder / "03.webp")
    kept = Kept()
    ran = Ran(sorted(folder.iterdir()), Sidecars(".txt", "overwrite"), kept)
    assert ran.failed == [f"{folder / '03.webp'} and {folder / '03.png'} would share the text 03.txt"]
    assert ran.outcome.failed == {"name taken": 1}
    assert (folder / "03.txt").read_text() == "picture 3\n"
    assert ran.done == 11


def test_a_run_that_ended_is_gone_on_with(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever its batches were."""
    out = tmp_path_factory.mktemp("out")
    files = sorted(folder.iterdir())

    class Ends(StubInverter):
        def predict(self, *images: Any, **options: Any) -> list[Prediction]:
            if len(self.batches) == 2:
                raise KeyboardInterrupt
            return super().predict(*images, **options)

    def lines() -> JsonLines:
        return JsonLines(out / "a.jsonl", "skip", "me")

    first = lines()
    with pytest.raises(KeyboardInterrupt):
        Ran(files, first, stub=Ends(), batch_size=3)
    first.close()
    before = (out / "a.jsonl").read_bytes()
    assert before.count(b"\n") == 6
    second = lines()
    ran = Ran(files, second, batch_size=4)
    second.close()
    assert (out / "a.jsonl").read_bytes().startswith(before)
    assert [json.loads(line)["prompt"] for line in (out / "a.jsonl").read_text().splitlines()] == [f"picture {red}" for red in range(10)]
    assert (ran.outcome.already, ran.outcome.model) == (6, 4)


def test_an_outcome_is_a_sentence() -> None:
    assert str(Outcome(model=1)) == "1 picture: 1 by the model, 0 from their metadata"
    every = Outcome(model=3, metadata=2, already=1, unfamiliar=1, unsure=2, failed=Counter({"a": 1, "b": 2}), misread=Counter({"c": 1}))
    assert str(every) == (
        "9 pictures: 3 by the model, 2 from their metadata, 1 there already, 3 failed (2 b, 1 a)"
        "; 1 unlike anything this model was trained on, whose prompts are guesses; 2 below --min-confidence; the metadata of 1 gave no prompt (1 c)"
    )
