"""caption.py as a user runs it: mostly inside the test's process, on a tiny model."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tyro
from archives import encoded
from commands import ROOT, command, run
from examples import painted
from graphs import png
from inverters import StubInverter, coloured, said, tiny_inverter
from PIL import Image

import caption
import inference.captioning
import inference.reading
from caption import CaptionConfig
from data.console import begin_command
from data.metadata.embedding import guessed_text
from evaluation.overlap import token_f1
from inference.captioning import Outcome
from inference.line_files import JsonLines
from inference.outputs import OutputError
from inference.prediction import NOT_FAMILIAR
from model import CaptionModel, NotFiniteError

SETTINGS = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint of random weights."""
    directory = tmp_path_factory.mktemp("model") / "tiny"
    tiny_inverter(max_text_tokens=40).save_pretrained(directory)
    return str(directory)


@pytest.fixture
def write(model: str, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[Outcome, str, str]]:
    """What a command line counts, prints on standard output, and on standard error."""

    def here(*arguments: object) -> tuple[Outcome, str, str]:
        given = list(map(str, arguments))
        outcome = caption.main(tyro.cli(CaptionConfig, args=given if "--checkpoint" in given else [*given, "--checkpoint", model]))
        found = capsys.readouterr()
        return outcome, found.out, found.err

    return here


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> StubInverter:
    """In the place of the model."""
    inverter = StubInverter(lambda red: said(f"picture {red}", f"other {red}", confidence=0.2 if red == 2 else 0.9))
    monkeypatch.setattr(caption, "load_inverter", lambda *_, **__: inverter)
    return inverter


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five pictures, two of them in folders below."""
    for red, name in enumerate(("0.png", "1.webp", "a/2.jpg", "a/b/3.png", "c.gif")):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        coloured(red).save(tmp_path / "in" / name, **({"lossless": True} if name.endswith("webp") else {"quality": 100}))
    return tmp_path / "in"


def listing(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def test_a_line_is_written_for_each_picture_and_what_is_not_is_counted(write: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(3):
        painted("cat", "").save(tmp_path / f"{number}.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n")
    outcome, out, err = write(tmp_path)
    assert [line.split("\t")[0] for line in out.splitlines()] == [str(tmp_path / f"{number}.png") for number in range(3)]
    assert outcome.failed == {"damaged image": 1}
    assert str(outcome) == "4 pictures: 3 by the model, 0 from their metadata, 1 failed (1 damaged image)"
    assert err.startswith(f"{tmp_path / 'broken.png'}: not a readable image")
    with pytest.raises(FileNotFoundError, match="none does not exist"):
        write(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"there are no pictures in .*empty"):
        write(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"name a picture or a folder, for example: python caption\.py docs/examples"):
        write()


def test_what_was_read_and_what_not_is_said_in_any_encoding(model: str, tmp_path: Path) -> None:
    picture = encoded()
    for name in (b"caf\xe9.png", "\N{FOX FACE}.png".encode(), b"a\tb\n.png", b"z.png"):
        with open(os.fsencode(tmp_path) + b"/" + name, "wb") as file:
            file.write(picture)
    for encoding in ("utf-8", "cp1252", "ascii"):
        written = io.BytesIO()
        stream = io.TextIOWrapper(written, encoding=encoding)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            begin_command()
            assert not caption.main(CaptionConfig(paths=(tmp_path,), checkpoint=model)).failed
        stream.flush()
        lines = written.getvalue().decode(encoding).splitlines()
        assert len(lines) == 4
        assert all(line.count("\t") == 1 for line in lines)
        assert sum("a\\tb\\n.png" in line for line in lines) == 1
        assert sum("caf" in line for line in lines) == 1


def test_a_folder_that_cannot_be_entered_is_named(write: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    painted("cat", "").save(tmp_path / "a.png")
    (tmp_path / "closed").mkdir()
    real = Path.iterdir

    def iterdir(folder: Path) -> Iterator[Path]:
        if folder.name == "closed":  # the tests may run as root, whom no mode keeps out
            raise PermissionError(13, "Permission denied", str(folder))
        return real(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    outcome, out, err = write(tmp_path)
    assert out.startswith(f"{tmp_path / 'a.png'}\t")
    assert err.splitlines()[0] == f"{tmp_path / 'closed'}: it cannot be entered (Permission denied)"
    assert outcome.failed == {"folder that cannot be entered": 1}


def test_the_batch_size_is_the_networks(write: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    encode = CaptionModel.encode
    monkeypatch.setattr(CaptionModel, "encode", lambda self, pixels: batches.append(len(pixels)) or encode(self, pixels))
    for number in range(5):
        painted("cat", "").save(tmp_path / f"{number}.png")
    write(tmp_path, "--batch-size", 2)
    write(tmp_path, "--batch-size", 3, "--sample")
    assert batches == [2, 2, 1, 3, 2]


def test_of_large_pictures_only_what_is_seen_is_kept(write: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[Image.Image]] = []
    most, decode = [0], inference.reading.decoded_rgb

    def counted(image: Image.Image, label: str) -> Image.Image:
        found = decode(image, label)
        alive.append(weakref.ref(found))
        most[0] = max(most[0], sum(one() is not None for one in list(alive)))
        return found

    monkeypatch.setattr(inference.reading, "decoded_rgb", counted)
    for number in range(30):
        painted("cat", "", 200).save(tmp_path / f"{number}.png")
    write(tmp_path, "--batch-size", 6)
    assert len(alive) == 30
    assert most[0] <= min(inference.reading.MOST_THREADS, os.cpu_count() or 1) + 1


def test_samples_of_a_seed_are_the_same_whatever_the_batch(write: Callable[..., Any], tmp_path: Path) -> None:
    for name, colour in (("a", "red"), ("b", "blue"), ("c", "green")):
        painted("cat", colour).save(tmp_path / f"{name}.png")
    drawn = ["--sample", "--seed", 4, "--temperature", 3.0, "--num-return", 2]
    written = [write(tmp_path, *drawn, "--batch-size", size)[1] for size in (1, 2, 3)]
    assert written[0] == written[1] == written[2]
    assert len({line.split("\t")[1] for line in written[0].splitlines()}) > 3


def test_samples_have_the_forced_start_and_no_banned_words(write: Callable[..., Any], tmp_path: Path) -> None:
    painted("cat", "red").save(tmp_path / "cat.png")
    arguments = [tmp_path / "cat.png", "--prefix", "a cat on a", "--num-return", 5]
    drawn = ["--sample", "--seed", 3, "--temperature", 1.5, "--ban", "beach", "dogs"]
    out = write(*arguments, *drawn)[1]
    lines = [line.split("\t")[1] for line in out.splitlines()]
    assert len(lines) == 5
    assert all(line.startswith("a cat on a") and "beach" not in line and "dogs" not in line for line in lines)
    assert write(*arguments, *drawn)[1] == out
    with pytest.raises(ValueError, match=r"temperature must be 0\.001 or more"):
        write(*arguments, "--sample", "--temperature", 0)


def test_more_prompts_than_beams_raise_the_beams(write: Callable[..., Any], tmp_path: Path) -> None:
    painted("cat", "red").save(tmp_path / "cat.png")
    six = write(tmp_path, "--num-return", 6)[1].splitlines()
    assert len(six) == len(set(six)) == 6
    assert write(tmp_path, "--num-return", 1, "--num-beams", 6)[1].splitlines() == six[:1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "--batch-size must be 1 or more, not 0"),
        ({"batch_size": -3}, "--batch-size must be 1 or more, not -3"),
        ({"num_beams": 0}, "--num-beams must be 1 or more"),
        ({"num_return": 0}, "--num-return must be 1 or more"),
        ({"max_new_tokens": 0}, "--max-new-tokens must be 1 or more"),
        ({"min_new_tokens": -1}, "--min-new-tokens must be 0 or more"),
        ({"sample": True, "top_k": -1}, "--top-k must be 0 or more"),
        ({"length_penalty": float("nan")}, "--length-penalty must be a number"),
        ({"min_confidence": 1.5}, r"--min-confidence must be between 0 and 1, not 1\.5"),
        ({"min_confidence": float("nan")}, "--min-confidence must be between 0 and 1"),
        ({"seed": 0}, "say how to draw prompts; add --sample"),
        ({"top_p": 0.5}, "say how to draw prompts; add --sample"),
        ({"existing": "append"}, r"--existing append adds to texts beside the pictures; add --sidecar \.txt"),
        ({"existing": "prepend", "jsonl": Path("a")}, "--existing prepend adds to texts"),
        ({"ignore_metadata": True, "verify": True}, "--verify compares with the prompts in the pictures, which --ignore-metadata does not read"),
        ({"json": True, "jsonl": Path("a")}, "--json is for standard output"),
        ({"json": True, "sidecar": ".txt"}, "--json is for standard output"),
    ],
)
def test_what_cannot_be_meant_is_named_before_anything_is_loaded(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CaptionConfig(paths=(), **options)


def test_the_model_in_the_box_reads_an_example() -> None:
    out, err = run("caption.py", "docs/examples")
    truths = {path.with_suffix(".png").name: path.read_text().strip() for path in sorted((ROOT / "docs" / "examples").glob("*.txt"))}
    found = {Path(name).name: prompt for name, _, prompt in (line.partition("\t") for line in out.splitlines())}
    assert list(found) == list(truths)  # one line for each, in order
    assert sum(found[name] == truth for name, truth in truths.items()) >= 5
    assert token_f1([[truth] for truth in truths.values()], list(found.values())).min() > 0.6
    assert err.splitlines()[-1] == f"{len(truths)} pictures: {len(truths)} by the model, 0 from their metadata"


# outputs


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


# which pictures


def listed(content: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(content))


def test_names_come_from_standard_input(write: Callable[..., Any], stub: StubInverter, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "0.png").rename(folder / "new\nline.png")
    names = [str(folder / "new\nline.png"), str(folder / "a/2.jpg"), str(folder / "[none].png")]
    monkeypatch.setattr(sys, "stdin", listed("\0".join(names).encode()))
    outcome, out, err = write("-")
    assert [line.split("\t")[1] for line in out.splitlines()] == ["picture 0", "picture 2"]
    assert outcome.failed == {"missing image": 1}  # of a list one name costs nothing but itself
    assert err == f"{folder}/[none].png: no such file\n"
    monkeypatch.setattr(sys, "stdin", listed(f"{folder / 'c.gif'}\n{folder}/a\n\n".encode()))
    _, out, _ = write(folder / "1.webp", "-", folder / "a" / "2.jpg")
    assert [line.split("\t")[1] for line in out.splitlines()] == ["picture 1", "picture 4", "picture 2", "picture 3"]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\0", b"none.png\n"])
def test_an_empty_list_is_told(content: bytes, write: Callable[..., Any], stub: StubInverter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", listed(content))
    with pytest.raises(ValueError, match="there are no pictures in the list on standard input"):
        write("-")


# metadata


def test_a_prompt_that_a_picture_carries_is_taken_and_a_guess_is_not(write: Callable[..., Any], stub: StubInverter, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png({"parameters": f"a castle\n{SETTINGS}"}, coloured(7)))
    (tmp_path / "b.png").write_bytes(png({"parameters": guessed_text("a guess", {"Software": "Reprompt"})}, coloured(8)))
    outcome, out, _ = write(tmp_path)
    assert [line.split("\t")[1] for line in out.splitlines()] == ["a castle", "picture 8"]
    assert str(outcome) == "2 pictures: 1 by the model, 1 from their metadata; the metadata of 1 gave no prompt (1 a guess of Reprompt's)"
    _, out, _ = write(tmp_path, "--ignore-metadata")
    assert [line.split("\t")[1] for line in out.splitlines()] == ["picture 7", "picture 8"]


def test_what_was_embedded_is_not_read_back_as_a_prompt(write: Callable[..., Any], stub: StubInverter, folder: Path, tmp_path: Path) -> None:
    write(folder, "--embed", tmp_path / "out")
    outcome, out, _ = write(tmp_path / "out")
    assert (outcome.metadata, outcome.misread) == (0, {"a guess of Reprompt's": 5})
    assert [line.split("\t")[1] for line in out.splitlines()] == [f"picture {red}" for red in range(5)]


def test_verify_says_what_both_have_in_common(write: Callable[..., Any], stub: StubInverter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(texts: Sequence[str]) -> np.ndarray:
        assert list(texts) == ["a castle", "picture 7"]
        return np.array([[1.0, 0.0], [0.6, 0.8]])

    monkeypatch.setattr(inference.captioning, "SentenceEncoder", lambda **_: encode)
    (tmp_path / "a.png").write_bytes(png({"parameters": f"a castle\n{SETTINGS}"}, coloured(7)))
    _, out, _ = write(tmp_path, "--verify")
    assert out == f"{tmp_path / 'a.png'}\ta castle\tthe model says: picture 7 (similarity 0.60)\n"


# a network of numbers


def test_a_network_that_computes_no_numbers_writes_no_text(model: str, write: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    inverter = tiny_inverter(max_text_tokens=40)
    with torch.no_grad():
        inverter.model.decoder.output_bias[3] = float("nan")
    inverter.save_pretrained(tmp_path / "nan")
    for options in ([], ["--num-beams", 1], ["--sample"]):
        outputs = ["--jsonl", tmp_path / "a.jsonl", "--sidecar", ".txt"]
        with pytest.raises(NotFiniteError, match=r"its weights are damaged \(decoder\.output_bias holds some\)"):
            write(folder, "--checkpoint", tmp_path / "nan", *outputs, *options)
        assert (tmp_path / "a.jsonl").read_bytes() == b""
        assert not list(folder.rglob("*.txt"))


def test_pictures_unlike_those_known_are_told_and_counted(write: Callable[..., Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strange = StubInverter(lambda red: said(f"picture {red}", familiarity=0.001 if red < 2 else 0.5))
    monkeypatch.setattr(caption, "load_inverter", lambda *_, **__: strange)
    outcome, out, _ = write(folder)
    assert [line.split("\t")[2:] for line in out.splitlines()] == [[NOT_FAMILIAR]] * 2 + [[]] * 3
    assert str(outcome).endswith("; 2 unlike anything this model was trained on, whose prompts are guesses")


# processes


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
