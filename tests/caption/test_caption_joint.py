"""caption.py --joint and --grid as a user runs them, inside the test's process, on a tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from examples import painted
from inverters import joint_inverter, tiny_inverter
from PIL import Image

from caption import CaptionConfig
from inference import PromptInverter
from inference.outputs import OutputError

SUBJECTS = ("cat", "dog", "owl", "fox", "car", "robot")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint of random weights that sees three pictures at once."""
    directory = tmp_path_factory.mktemp("model") / "tiny"
    joint_inverter().save_pretrained(directory)
    return str(directory)


@pytest.fixture
def reads(model: str) -> Callable[..., str]:
    """What the network makes of some files, asked directly."""
    inverter = PromptInverter.from_pretrained(model, device="cpu")
    return lambda *pictures: inverter.predict_joint([pictures])[0].prompt


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures of a prompt in one folder, two in the other, in the order of SUBJECTS."""
    for number, subject in enumerate(SUBJECTS):
        (tmp_path / "in" / "ab"[number // 4]).mkdir(parents=True, exist_ok=True)
        painted(subject, "red").save(tmp_path / "in" / "ab"[number // 4] / f"{number}.png")
    return tmp_path / "in"


def spread(directory: Path) -> list[Path]:
    return sorted(directory.rglob("*.png"))


def test_pictures_of_a_folder_have_the_prompt_that_the_network_reads_from_them(
    write: Callable[..., Any], reads: Callable[..., str], folder: Path, tmp_path: Path
) -> None:
    files = spread(folder)
    expected = [reads(*files[:3])] * 4 + [reads(*files[4:])] * 2
    outcome, out, err = write(folder, "--joint", "--jsonl", tmp_path / "a.jsonl", "--sidecar", ".txt", "--batch-size", 2)
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [row["file"] for row in rows] == list(map(str, files))
    assert [row["prompt"] for row in rows] == expected
    assert [row["note"] for row in rows] == ["read from the first 3 of 4 pictures"] * 4 + [""] * 2
    assert [file.with_suffix(".txt").read_text() for file in files] == [f"{text.strip()}\n" for text in expected]
    assert (outcome.model, out, err) == (6, "", "")
    alone = [line.split("\t")[1] for line in write(folder)[1].splitlines()]
    assert len(set(alone)) > 2
    (folder / "a" / "3.txt").unlink()  # of which the prompt is that of all four again
    outcome, _, _ = write(folder, "--joint", "--sidecar", ".txt")
    assert (folder / "a" / "3.txt").read_text() == f"{expected[3].strip()}\n"
    assert (outcome.model, outcome.already) == (1, 5)


def test_pictures_in_a_grid_have_the_prompt_that_the_network_reads_from_them(
    write: Callable[..., Any], reads: Callable[..., str], tmp_path: Path
) -> None:
    tiles = [painted(subject, "blue") for subject in SUBJECTS[:3]]
    for name, across in (("row.png", True), ("column.png", False)):
        grid = Image.new("RGB", (192, 64) if across else (64, 192))
        for number, tile in enumerate(tiles):
            grid.paste(tile, (64 * number, 0) if across else (0, 64 * number))
        grid.save(tmp_path / name)
    expected = reads(*tiles)
    for name, rows, columns in (("row.png", 1, 3), ("column.png", 3, 1)):
        outcome, out, _ = write(tmp_path / name, "--grid", rows, columns)
        assert out == f"{tmp_path / name}\t{expected}\n"
        assert outcome.model == 1
    assert write(tmp_path / "row.png")[1].split("\t")[1] != f"{expected}\n"


@pytest.mark.parametrize("options", [["--joint"], ["--grid", 1, 2]])
def test_a_model_that_reads_one_picture_at_a_time_is_refused_before_anything_is_written(
    options: list[object], write: Callable[..., Any], folder: Path, tmp_path: Path
) -> None:
    tiny_inverter().save_pretrained(tmp_path / "single")
    with pytest.raises(ValueError, match="this model reads one picture at a time"):
        write(folder, *options, "--checkpoint", tmp_path / "single", "--jsonl", tmp_path / "a.jsonl")
    assert not (tmp_path / "a.jsonl").exists()


def test_prompts_of_single_pictures_are_not_gone_on_with_by_those_of_several(write: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    write(folder, "--jsonl", tmp_path / "a.jsonl")
    for options in (["--joint"], ["--grid", 1, 2]):
        with pytest.raises(OutputError, match="was written by another model or with other options"):
            write(folder, "--jsonl", tmp_path / "a.jsonl", *options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": (0, 2)}, "--grid takes rows and columns, each 1 or more, not 0 2"),
        ({"grid": (2, -1)}, "--grid takes rows and columns, each 1 or more, not 2 -1"),
        ({"joint": True, "rerank": "mbr"}, "--rerank is of one picture at a time; leave it, or --joint and --grid out"),
        ({"grid": (1, 2), "rerank": "render"}, "--rerank is of one picture at a time"),
    ],
)
def test_what_cannot_be_meant_is_named_before_anything_is_loaded(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CaptionConfig(paths=(), **options)
    assert CaptionConfig(paths=(), rerank="mbr").grid == (1, 1)
