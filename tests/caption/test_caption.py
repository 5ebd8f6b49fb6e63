"""caption.py as a user runs it: mostly inside the test's process, on a tiny model."""

from __future__ import annotations

import io
import os
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from archives import encoded
from commands import ROOT, run
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
from inference.prediction import NOT_FAMILIAR
from model import CaptionModel, NotFiniteError

SETTINGS = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5"


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
