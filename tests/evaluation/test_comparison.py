import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from compared import PROMPTS, Told, judge_of, pictures

from data.errors import DiskFullError
from evaluation.captioners import Caption
from evaluation.comparison import compare
from evaluation.processes import Processes
from evaluation.slices import slices

RIGHT = PROMPTS * 10
WRONG = ["a pig"] * 40


def broken() -> Told:
    raise OSError("no such model; get it with: hf download")


class FailsLater(Told):
    def caption(self, images: list) -> list[Caption]:  # type: ignore[override]
        if len(self.seen) == 2:
            raise RuntimeError("half-way")
        return super().caption(images)


def test_a_captioner_that_fails_costs_its_own_column() -> None:
    some = pictures(8)
    captioners = {
        "ours": lambda: Told(RIGHT),
        "missing": broken,
        "later": lambda: FailsLater(WRONG),
        "nan": lambda: Told(WRONG, float("nan")),
        "last": lambda: Told(WRONG),
    }
    found = compare(captioners, some, judge_of(some), batch_size=2)
    assert [column.name for column in found.columns] == list(captioners)
    assert [column.name for column in found.judged] == ["ours", "last"]
    why = {column.name: column.failed for column in found.failed}
    assert why["missing"] == "OSError: no such model; get it with: hf download"
    assert why["later"] == "RuntimeError: half-way"
    assert why["nan"] == "it gave a confidence of nan, which is no probability"
    ours, last = found.judged
    assert ours.differences == {}
    assert last.differences["exact_match"].mean == 1.0
    assert last.differences["exact_match"].established


def test_scores_that_are_no_numbers_cost_a_column_too() -> None:
    some = pictures(4)
    judge = judge_of(some)
    judge.clip_scores = lambda texts: {"clip_score": np.full(4, np.inf if texts[0] == "a pig" else 0.5)}
    found = compare({"ours": lambda: Told(RIGHT), "broken": lambda: Told(WRONG)}, some, judge)
    assert [column.name for column in found.judged] == ["ours"]
    assert found.failed[0].failed == "ValueError: a score of clip_score is infinite"


def test_where_the_first_fails_the_others_stand_alone() -> None:
    some = pictures(4)
    found = compare({"ours": broken, "other": lambda: Told(RIGHT)}, some, judge_of(some))
    assert found.columns[1].judgement is not None
    assert found.columns[1].differences == {}


def test_a_full_disk_is_nobodys_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = pictures(4)
    monkeypatch.setattr("evaluation.comparison.caption_all", lambda *_, **__: (_ for _ in ()).throw(DiskFullError(28, "the disk is full")))
    with pytest.raises(DiskFullError, match="the disk is full"):
        compare({"ours": lambda: Told(RIGHT)}, some, judge_of(some), keep=tmp_path)


def test_each_captioner_keeps_what_it_wrote_apart(tmp_path: Path) -> None:
    some = pictures(8)
    build = {"a": partial(Told, RIGHT), "a=b": partial(Told, WRONG)}
    compare(build, some, judge_of(some), keep=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a_b"]
    again = compare(build, some, judge_of(some), keep=tmp_path)
    assert [column.captioned.kept for column in again.columns if column.captioned is not None] == [8, 8]


def test_a_captioner_that_one_process_cannot_build_fails_in_all_of_them() -> None:
    class Beside(Processes):
        """The first of two, the other of which cannot build what is missing there."""

        def gather(self, thing: object) -> list:  # type: ignore[override]
            return [thing, "no such model there" if thing == "" and not told.seen else thing]

    told, some = Told(RIGHT), pictures(4)
    (column,) = compare({"ours": lambda: told}, some, judge_of(some), processes=Beside(0, 2)).columns
    assert column.failed == "no such model there"
    assert told.seen == []


def test_slices_are_of_ten_pictures_or_more_and_of_all_captioners() -> None:
    some = pictures(40)
    judge = judge_of(some)
    for number, about in enumerate(some.metadata):
        about["source"] = "few" if number < 5 else "many" if number < 25 else "others"  # type: ignore[index]
    half = [RIGHT[i] if i < 25 else WRONG[i] for i in range(40)]
    found = {(one.trait, one.value): one for one in slices({"a": judge(half), "b": judge(WRONG)}, some, judge)}
    assert [key for key in found if key[0] == "source"] == [("source", "many"), ("source", "others")]
    many, others = found["source", "many"].estimates, found["source", "others"].estimates
    assert many["a"].mean == pytest.approx(1.0)
    assert others["a"].mean == pytest.approx(others["b"].mean)
    assert (many["a"].count, others["b"].count) == (20, 15)
    assert ("generator", "mini") not in found  # nobody says it


def test_a_source_that_each_picture_has_its_own_of_or_that_is_blank_makes_no_slices() -> None:
    some = pictures(24)
    judge = judge_of(some)
    for number, about in enumerate(some.metadata):
        about["source"], about["model"] = f"https://example.org/{number}", " " if number < 12 else "sd"  # type: ignore[index]
    assert {one.trait for one in slices({"a": judge(RIGHT[:24])}, some, judge)} <= {"prompt length", "modifiers"}


def test_slices_are_in_the_order_of_their_numbers_of_ten_pictures_each_and_by_the_groups_of_theirs() -> None:
    lengths = (3, 8, 9, 20, 70)
    some = pictures(50)
    for number in range(50):
        some.references[number][:] = ["word " * lengths[number // 10]]  # type: ignore[index]
    some = dataclasses.replace(some, groups=[str(number // 2) for number in range(50)])
    judge = judge_of(some)
    found = [one for one in slices({"a": judge(["word"] * 50)}, some, judge) if one.trait == "prompt length"]
    assert [one.value for one in found] == ["0-8 words", "9-16 words", "17-32 words", "65+ words"]
    assert [(one.estimates["a"].count, one.estimates["a"].units) for one in found] == [(20, 10), (10, 5), (10, 5), (10, 5)]


def test_slices_by_length_and_modifiers_have_the_right_pictures() -> None:
    some = pictures(40)
    for number in range(40):
        some.references[number][:] = ["one two three, a, b" if number % 2 else "word " * 12 + "x"]  # type: ignore[index]
    judge = judge_of(some)
    found = {(one.trait, one.value): one.estimates["a"] for one in slices({"a": judge(["one two three, a, b"] * 40)}, some, judge)}
    assert found["prompt length", "0-8 words"].mean == pytest.approx(1.0)
    assert found["modifiers", "1-2 modifiers"].mean == pytest.approx(1.0)
    assert found["modifiers", "0 modifiers"].mean < 1
    assert found["prompt length", "9-16 words"].count == 20
    assert slices({}, some, judge) == []
    assert np.isfinite([one.mean for one in found.values()]).all()
