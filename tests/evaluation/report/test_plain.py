import dataclasses
import json
import re
from pathlib import Path

import pytest
from compared import PROMPTS, SCENES, Told, judge_of, pictures

from evaluation.captioners import Captioned
from evaluation.comparison import Comparison, compare
from evaluation.report.plain import Table, as_json, failures, markdown, tables, verdicts
from evaluation.round_trip import Drift, RoundTrip
from evaluation.statistics import Estimate

WRONG = [scene.prompt().replace(scene.subject, "pig") for scene in SCENES]


def broken() -> Told:
    raise OSError("not here | there")


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    some = pictures(40)
    return compare(
        {"ours": lambda: Told(PROMPTS * 10, 0.9), "same": lambda: Told(PROMPTS * 10), "wrong": lambda: Told(WRONG * 10), "missing": broken},
        some,
        judge_of(some),
    )


def cells(table: str, row: str) -> list[str]:
    line = next(line for line in table.splitlines() if line.startswith(f"| {row} |"))
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[2:-1]]


def test_tables_have_a_column_for_each_captioner_and_the_range_of_each_metric(comparison: Comparison) -> None:
    text = markdown(comparison)
    assert cells(text, "metric") == ["ours", "same", "wrong", "missing", "another's prompt to the true one"]
    row = cells(text, "exact_match")
    assert row[0].startswith("1.000 [0.9")
    assert row[0].endswith("1.000]")
    assert row[3:] == ["failed", "0.000 to 1.000"]
    assert cells(text, "subject")[0] == "40"
    assert cells(text, "subject")[3].startswith("0.000 [0.000")
    assert cells(text, "calibration error")[:2] == ["0.100", ""]
    assert "missing failed: OSError: not here | there" in text


def test_what_is_established_is_said_in_words(comparison: Comparison) -> None:
    found = verdicts(comparison)
    assert found is not None
    same, wrong = found.lines
    assert "not established either way: similarity +0.000 [+0.000, +0.000]" in same
    assert "better" not in same
    assert "established that ours is better: similarity +0." in wrong
    assert "exact_match +1.000" in wrong
    assert "not established" not in wrong
    assert "Of 10 such statements" in found.note


def test_a_difference_is_said_once_by_whether_its_interval_holds_nothing() -> None:
    """Whatever its sign."""
    some = pictures(4)
    sure, unsure, below = Estimate(0.2, 0.1, 0.3, 4, 4), Estimate(0.2, -0.1, 0.3, 4, 4), Estimate(-0.2, -0.3, -0.1, 4, 4)
    whole = compare({"ours": lambda: Told(PROMPTS), "other": lambda: Told(PROMPTS)}, some, judge_of(some))
    differences = {"similarity": sure, "cider_d": unsure, "token_f1": below}
    whole = dataclasses.replace(whole, columns=[whole.columns[0], dataclasses.replace(whole.columns[1], differences=differences)])
    found = verdicts(whole)
    assert found is not None
    assert found.lines == [
        "ours beside other: established that ours is better: similarity +0.200 [+0.100, +0.300]. "
        "established that ours is worse: token_f1 -0.200 [-0.300, -0.100]. "
        "not established either way: cider_d +0.200 [-0.100, +0.300]."
    ]


def test_who_does_not_look_has_no_speed() -> None:
    some = pictures(4)
    text = markdown(compare({"ours": lambda: Told(PROMPTS), "blind": lambda: Told(["x"], blind=True)}, some, judge_of(some)))
    assert cells(text, "words")[1]
    for row in ("images/s", "ms an image, p50 / p95", "memory, MB"):
        assert cells(text, row)[0]
        assert not cells(text, row)[1]


def test_what_was_captioned_before_took_no_memory_that_is_known(tmp_path: Path) -> None:
    some = pictures(4)
    first, again = (compare({"ours": lambda: Told(PROMPTS)}, some, judge_of(some), keep=tmp_path) for _ in range(2))
    assert cells(markdown(first), "memory, MB") != [""]
    assert "memory, MB" not in markdown(again)
    assert as_json(again, {})["results"][0]["peak_memory_bytes"] is None
    assert cells(markdown(again), "images/s") == cells(markdown(first), "images/s")  # of when it was captioned


def test_bars_and_ends_of_lines_break_no_table() -> None:
    table = Table("", ["a|b", "c"], [["d\ne", "f"]])
    assert str(table) == "| a\\|b | c |\n| --- | --- |\n| d e | f |"


def test_json_holds_every_figure_and_is_json(comparison: Comparison) -> None:
    content = json.loads(json.dumps(as_json(comparison, {"data": {"pictures": 40}}), allow_nan=False))
    ours, same, wrong, missing = content["results"]
    assert content["data"] == {"pictures": 40}
    assert ours["metrics"]["exact_match"]["mean"] == 1
    assert ours["calibration"]["error"] == pytest.approx(0.1)
    assert wrong["first_minus_this"]["exact_match"]["established"]
    assert not same["first_minus_this"]["exact_match"]["established"]
    assert missing["failed"].startswith("OSError")
    assert "metrics" not in missing
    assert content["range"]["exact_match"] == {"another_prompt": 0.0, "true_prompt": 1.0}
    assert content["round_trip"] is None


def test_one_group_has_no_interval_in_json_either() -> None:
    some = pictures(1)
    content = json.loads(json.dumps(as_json(compare({"ours": lambda: Told(PROMPTS)}, some, judge_of(some)), {}), allow_nan=False))
    assert content["results"][0]["metrics"]["token_f1"]["low"] is None


def test_a_round_trip_has_a_table_between_floor_and_ceiling() -> None:
    some = pictures(4)
    one = Estimate(0.5, 0.4, 0.6, 4, 4)
    trip = RoundTrip("mini", "dino", one, one, {"ours": one}, {"ours": Drift([one, one], [one, one])}, {"other": "round 2: no"})
    whole = compare({"ours": lambda: Told(PROMPTS)}, some, judge_of(some))
    whole = Comparison(whole.columns, whole.extremes, whole.slices, trip)
    titles = {table.title: table for table in tables(whole)}
    assert [row[0] for row in titles["Painted again by mini, compared by dino"].rows] == [
        "ours",
        "the true prompt, other seeds",
        "another picture's prompt",
    ]
    assert [row[1] for row in titles["Drift"].rows] == ["1", "2"]
    assert failures(whole) == [("other", "round 2: no")]
    assert as_json(whole, {})["round_trip"]["drifts"]["ours"]["image"][1]["mean"] == 0.5
    assert Captioned([], [(1, 1.0)], 0).latency(0.5) == 1.0
