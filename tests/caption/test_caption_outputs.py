"""What caption.py writes, goes on with and refuses to go on with."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import ROOT, command
from inverters import StubInverter, coloured, tiny_inverter
from PIL import Image

import caption
from caption import CaptionConfig
from inference.line_files import JsonLines
from inference.outputs import OutputError


def listing(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def test_all_outputs_have_the_same_prompts(write: Callable[..., Any], stub: StubInverter, folder: Path, tmp_path: Path) -> None:
    texts = ["--jsonl", tmp_path / "a.jsonl", "--csv", tmp_path / "a.csv", "--sidecar", ".txt", "--embed", tmp_path / "out"]
    outcome, out, _ = write(folder, *texts, "--trigger", "x", "--num-return", 2, "--min-confidence", 0.5)
    assert out == ""
    names = ["0.png", "1.webp", "a/2.jpg", "a/b/3.png", "c.gif"]
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [row["file"] for row in rows] == [str(folder / name) for name in names]
    assert [row["prompt"] for row in rows] == [f"x, picture {red}" for red in range(5)]
    assert [row["note"] for row in rows] == ["", "", "unsure: confidence 0.20", "", ""]
    assert [row["alternatives"][0]["prompt"] for row in rows] == [f"x, other {red}" for red in range(5)]
    assert [row["subject"]["text"] for row in rows] == [f"picture {red}" for red in range(5)]
    with open(tmp_path / "a.csv", newline="") as file:
        assert [row["prompt"] for row in csv.DictReader(file)] == [row["prompt"] for row in rows]
    assert [Path(folder / name).with_suffix(".txt").read_text() for name in names] == [f"{row['prompt']}\n" for row in rows]
    assert listing(tmp_path / "out") == ["0.png", "1.png", "a/2.jpg", "a/b/3.png", "c.png"]
    with Image.open(tmp_path / "out" / "1.png") as image:
        assert image.info["parameters"].startswith("x, picture 1\nSoftware: Reprompt, Confidence: 0.90, Familiarity: 0.500")
    assert (outcome.model, outcome.unsure, len(stub.batches)) == (5, 1, 1)
    assert stub.options[0]["num_return_sequences"] == 2
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    outcome, _, _ = write(folder, *texts, "--trigger", "x", "--num-return", 2, "--min-confidence", 0.5)
    assert (outcome.already, outcome.model, len(stub.batches)) == (5, 0, 1)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_json_is_printed_where_it_is_asked_for(write: Callable[..., Any], stub: StubInverter, folder: Path) -> None:
    lines = [json.loads(line) for line in write(folder, "--json")[1].splitlines()]
    assert [line["prompt"] for line in lines] == [f"picture {red}" for red in range(5)]
    assert lines[0].keys() == {
        *("file", "prompt", "source", "confidence", "familiarity", "score", "alternatives"),
        *("subject", "medium", "modifiers", "note", "by"),
    }


def test_copies_that_lie_where_was_looked_are_no_pictures_to_copy(write: Callable[..., Any], stub: StubInverter, folder: Path) -> None:
    write(folder, "--embed", folder / "copies")
    copies = ["copies/0.png", "copies/1.png", "copies/a/2.jpg", "copies/a/b/3.png", "copies/c.png"]
    assert [name for name in listing(folder) if name.startswith("copies")] == copies
    outcome, _, _ = write(folder, "--embed", folder / "copies")
    assert (outcome.already, outcome.model) == (5, 0)
    assert [name for name in listing(folder) if name.startswith("copies")] == copies
    outcome, _, _ = write(folder / "copies", "--csv", folder / "a.csv")  # unless they are what is meant
    assert outcome.model == 5
    outcome, _, err = write(folder, "--embed", folder)
    assert outcome.failed == {"name taken": 10}
    assert err.count("would be the file itself; give --embed another folder") == 10


def test_a_pattern_s_copies_lie_as_the_pictures_do(write: Callable[..., Any], stub: StubInverter, tmp_path: Path) -> None:
    for number, name in enumerate(("r/a/1.png", "r/b/1.png")):
        (tmp_path / name).parent.mkdir(parents=True)
        coloured(number).save(tmp_path / name)
    outcome, _, _ = write(tmp_path / "r" / "**" / "*.png", "--embed", tmp_path / "out")
    assert not outcome.failed
    assert listing(tmp_path / "out") == ["a/1.png", "b/1.png"]


@pytest.mark.parametrize("existing", ["append", "prepend"])
def test_a_table_is_gone_on_with_while_texts_are_added_to(
    existing: str, write: Callable[..., Any], stub: StubInverter, folder: Path, tmp_path: Path
) -> None:
    (folder / "0.txt").write_text("mine\n")
    for _ in range(2):
        write(folder, "--sidecar", ".txt", "--existing", existing, "--csv", tmp_path / "a.csv")
        assert (folder / "0.txt").read_text() == ("mine, picture 0\n" if existing == "append" else "picture 0, mine\n")
        assert (folder / "1.txt").read_text() == "picture 1\n"
        assert (tmp_path / "a.csv").read_text().count("\n") == 6


def test_a_file_of_another_model_or_other_options_is_refused_and_kept(write: Callable[..., Any], folder: Path, model: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(folder, "--jsonl", path)
    before = path.read_bytes()
    other = tmp_path / "other"
    tiny_inverter(max_text_tokens=40, dropout=0.2).save_pretrained(other)
    for options in (["--checkpoint", other], ["--num-beams", 3], ["--trigger", "x"], ["--ignore-metadata"], ["--dtype", "bfloat16"]):
        with pytest.raises(OutputError, match="was written by another model or with other options"):
            write(folder, "--jsonl", path, *options)
    for options, models in ((["--batch-size", 2], 0), (["--csv", tmp_path / "a.csv"], 5), (["--existing", "skip"], 0)):  # which change no prompt
        assert write(folder, "--jsonl", path, *options)[0].model == models
    assert path.read_bytes() == before
    outcome, _, _ = write(folder, "--jsonl", path, "--num-beams", 3, "--existing", "overwrite")
    assert outcome.model == 5
    assert path.read_bytes() != before


def test_a_wrong_option_costs_nothing_that_was_done(write: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    """Also one that only the network knows to be wrong."""
    path = tmp_path / "a.jsonl"
    write(folder, "--jsonl", path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="top_p must be above 0"):
        write(folder, "--jsonl", path, "--existing", "overwrite", "--sample", "--top-p", 0)
    assert path.read_bytes() == before


def test_two_runs_on_one_file_are_one_too_many(write: Callable[..., Any], stub: StubInverter, folder: Path, tmp_path: Path) -> None:
    other = JsonLines(tmp_path / "a.jsonl", "skip", "me")
    for option in ("--jsonl", "--csv"):
        with pytest.raises(OutputError, match=r"another run is writing .*a\.jsonl"):
            write(folder, option, tmp_path / "a.jsonl")
    other.close()
    assert write(folder, "--jsonl", tmp_path / "a.jsonl")[0].model == 5


def test_what_was_embedded_is_not_read_back_as_a_prompt(write: Callable[..., Any], stub: StubInverter, folder: Path, tmp_path: Path) -> None:
    write(folder, "--embed", tmp_path / "out")
    outcome, out, _ = write(tmp_path / "out")
    assert (outcome.metadata, outcome.misread) == (0, {"a guess of Reprompt's": 5})
    assert [line.split("\t")[1] for line in out.splitlines()] == [f"picture {red}" for red in range(5)]


@pytest.mark.slow
def test_a_run_that_was_killed_is_gone_on_with(model: str, write: Callable[..., Any], tmp_path: Path) -> None:
    count, path = 250, tmp_path / "a.jsonl"
    (tmp_path / "in").mkdir()
    for number in range(count):
        coloured(number, 32).save(tmp_path / "in" / f"{number:03}.png")
    options = ["--jsonl", path, "--sidecar", ".txt", "--num-beams", 1]
    process = command("caption.py", tmp_path / "in", "--checkpoint", model, "--batch-size", 1, *options)
    for _ in range(3000):
        if (path.exists() and path.read_bytes().count(b"\n") > 20) or process.poll() is not None:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    before = path.read_bytes()
    whole = before[: before.rfind(b"\n") + 1]
    assert 20 < whole.count(b"\n") < count
    outcome, _, _ = write(tmp_path / "in", *options)
    assert path.read_bytes().startswith(whole)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["file"] for row in rows] == [str(tmp_path / "in" / f"{number:03}.png") for number in range(count)]
    assert all((tmp_path / "in" / f"{number:03}.txt").read_text().strip() == rows[number]["prompt"].strip() for number in range(count))
    assert outcome.already + outcome.model == count
    assert outcome.already >= whole.count(b"\n") - 1
    assert listing(tmp_path)[:1] == ["a.jsonl"]  # no lock stays


@pytest.mark.slow
def test_whoever_reads_the_first_lines_alone_sees_no_error(model: str, tmp_path: Path) -> None:
    for number in range(200):
        coloured(number, 32).save(tmp_path / f"{number:03}.png")
    line = [sys.executable, str(ROOT / "caption.py"), str(tmp_path), "--checkpoint", model, "--batch-size", "1", "--num-beams", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith(f"{tmp_path}/000.png\t")
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 0
    assert not re.search(r"[Bb]roken|Traceback|Exception", errors), errors


def test_a_full_disk_behind_standard_output_ends_the_run(model: str, stub: StubInverter, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(OSError, match="No space left on device"):
            caption.main(CaptionConfig(paths=(folder,), checkpoint=model, batch_size=1))
        monkeypatch.undo()
        with pytest.raises(OSError, match="No space left on device"):
            full.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())  # where closing writes the rest
    assert len(stub.batches) == 1  # and not once for each picture


def test_names_that_differ_in_their_suffix_alone_are_told(write: Callable[..., Any], stub: StubInverter, tmp_path: Path) -> None:
    for number, name in enumerate(("a.jpg", "a.png", "b.png")):
        coloured(number).save(tmp_path / name)
    outcome, _, err = write(tmp_path, "--sidecar", ".txt")
    assert err == f"{tmp_path}/a.png and {tmp_path}/a.jpg would share the text a.txt\n"
    assert outcome.failed == {"name taken": 1}
    assert {path.name: path.read_text() for path in tmp_path.glob("*.txt")} == {"a.txt": "picture 0\n", "b.txt": "picture 2\n"}


def test_what_cannot_be_written_is_named_and_the_rest_is_done(write: Callable[..., Any], stub: StubInverter, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file where a folder would be")
    outcome, _, err = write(folder, "--embed", tmp_path / "out", "--csv", tmp_path / "a.csv")
    assert outcome.failed == {"not written": 5}
    assert all(line.startswith(f"{folder}/") for line in err.splitlines())
    assert (tmp_path / "a.csv").read_text().count("\n") == 6
    (folder / "a").rename(tmp_path / "b")
    (tmp_path / "b" / "2.txt").mkdir()
    outcome, _, err = write(tmp_path / "b", "--sidecar", ".txt", "--existing", "overwrite")
    assert err == f"{tmp_path}/b/2.jpg: Is a directory\n"
    assert (tmp_path / "b" / "b" / "3.txt").read_text() == "picture 3\n"
