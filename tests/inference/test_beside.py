"""Texts and copies as Pillow and the file system read them back."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archives import encoded
from graphs import png
from inverters import row, said
from PIL import Image

from data.errors import DiskFullError, ImageError
from data.images import read_image
from data.metadata.tools import GuessedPromptError, read_image_metadata
from inference.beside import Copies, Sidecars
from inference.outputs import OutputError


def test_a_text_lies_beside_its_picture(tmp_path: Path) -> None:
    for suffix in (".txt", ".caption"):
        output = Sidecars(suffix, "skip")
        file = tmp_path / "a.b.png"
        assert not output.has(file)
        output.write(row(file, "a 猫,\nsitting\u2028 there"))
        assert (tmp_path / f"a.b{suffix}").read_text(encoding="utf-8") == "a 猫, sitting there\n"
        assert output.has(file)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.b.caption", "a.b.txt"]


@pytest.mark.parametrize(
    ("existing", "before", "prompt", "after"),
    [
        ("overwrite", "old", "new", "new"),
        ("append", "old", "new", "old, new"),
        ("prepend", "old", "new", "new, old"),
        ("append", " old,\n", "new", "old,, new"),
        ("append", "", "new", "new"),
        ("prepend", "\n", "new", "new"),
        ("append", "old", "", "old"),
        ("prepend", "old", "", "old"),
        ("append", "same", "same", "same"),
        ("prepend", "same", "same", "same"),
        ("append", "renew", "new", "renew, new"),
        ("prepend", "newer", "new", "new, newer"),
        ("append", "old, new", "new", "old, new"),
        ("prepend", "new, old", "new", "new, old"),
    ],
)
def test_texts_are_added_to_and_never_twice(existing: Any, before: str, prompt: str, after: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(before)
    for _ in range(3):
        output = Sidecars(".txt", existing)
        assert not output.has(tmp_path / "a.png")
        output.write(row(tmp_path / "a.png", prompt))
        assert (tmp_path / "a.txt").read_text().strip() == after


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "cp1252"])
def test_a_text_of_any_encoding_is_added_to(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("ein Café, grün", encoding=encoding)
    Sidecars(".txt", "append").write(row(tmp_path / "a.png", "猫"))
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "ein Café, grün, 猫\n"


@pytest.mark.parametrize("existing", ["append", "prepend"])
def test_a_text_to_which_nothing_is_added_stays_to_the_byte(existing: Any, tmp_path: Path) -> None:
    before = "  ein Café".encode("utf-16")
    (tmp_path / "a.txt").write_bytes(before)
    for prompt in ("ein Café", ""):
        Sidecars(".txt", existing).write(row(tmp_path / "a.png", prompt))
        assert (tmp_path / "a.txt").read_bytes() == before


@pytest.mark.parametrize("existing", ["append", "prepend"])
def test_what_cannot_be_read_as_text_is_left_as_it_is(existing: Any, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\x81\x8d\xff\xfe\x00")
    with pytest.raises(OutputError, match=r"a\.txt is not text that can be read; nothing was added to it"):
        Sidecars(".txt", existing).write(row(tmp_path / "a.png"))
    assert (tmp_path / "a.txt").read_bytes() == b"\x81\x8d\xff\xfe\x00"


@pytest.mark.parametrize("existing", ["skip", "overwrite", "append"])
def test_pictures_that_would_share_a_text_are_both_named(existing: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    output = Sidecars(".txt", existing)
    assert not output.has(tmp_path / "a.jpg")
    for other in (tmp_path / "a.png", Path("a.webp"), tmp_path / "b" / ".." / "a.gif"):  # however the folder is called
        with pytest.raises(OutputError) as error:
            output.has(other)
        assert str(error.value) == f"{other} and {tmp_path / 'a.jpg'} would share the text a.txt"
    assert not output.has(tmp_path / "a.jpg")
    assert not output.has(tmp_path / "b" / "a.png")
    with pytest.raises(OutputError, match=r"the text of .*c\.txt would be the file itself"):
        output.has(tmp_path / "c.txt")


def test_a_text_that_cannot_be_written_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("old")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DiskFullError):
        Sidecars(".txt", "overwrite").write(row(tmp_path / "a.png"))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.txt": "old"}


# copies


def copies(tmp_path: Path, existing: Any = "skip", *, root: str = "in", into: str = "out") -> Copies:
    files = [path for path in (tmp_path / "in").rglob("*") if path.is_file()]
    return Copies(tmp_path / into, existing, dict.fromkeys(files, tmp_path / root))


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[..., Path]:
    def save(name: str, content: bytes) -> Path:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return save


def listing(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def test_copies_lie_as_the_pictures_do_and_carry_the_guess(tmp_path: Path, pictures: Callable[..., Path]) -> None:
    files = [pictures(f"{kind}/x.{kind.lower()}", encoded(kind)) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")]
    output = copies(tmp_path)
    for file in files:
        assert not output.has(file)
        output.write(row(file, "a 猫", prediction=said("a 猫", confidence=0.456, familiarity=0.1234)))
        assert output.has(file)
    assert listing(tmp_path / "out") == sorted(["PNG/x.png", "JPEG/x.jpeg", "WEBP/x.png", "GIF/x.png", "BMP/x.png", "TIFF/x.png"])
    for path in (tmp_path / "out").rglob("x.*"):
        with Image.open(path) as image:
            assert image.format == ("JPEG" if path.suffix == ".jpeg" else "PNG")
            with pytest.raises(GuessedPromptError):
                read_image_metadata(image)
        original = next((tmp_path / "in" / path.parent.name).iterdir())
        assert np.array_equal(np.asarray(read_image(path)), np.asarray(read_image(original)))
    with Image.open(tmp_path / "out" / "PNG" / "x.png") as image:
        about = "Software: Reprompt, Confidence: 0.46, Familiarity: 0.123, Version: guessed by Reprompt"
        assert image.info["parameters"] == f"a 猫\n{about}"


def test_a_picture_that_carries_its_prompt_is_copied_as_it_is(tmp_path: Path, pictures: Callable[..., Path]) -> None:
    file = pictures("a.png", png({"parameters": "a castle\nSteps: 20, Sampler: Euler a, Seed: 5"}))
    output = copies(tmp_path)
    output.has(file)
    output.write(row(file, "x, a castle", source="metadata", metadata="a castle", prediction=None))
    assert (tmp_path / "out" / "a.png").read_bytes() == file.read_bytes()
    compared = copies(tmp_path, into="other")  # where the model was asked as well
    compared.write(row(file, "x, a castle", source="metadata", metadata="a castle"))
    assert (tmp_path / "other" / "a.png").read_bytes() == file.read_bytes()


@pytest.mark.parametrize(("existing", "again"), [("skip", True), ("append", True), ("prepend", True), ("overwrite", False)])
def test_copies_that_are_there_are_left_or_written_anew(existing: Any, again: bool, tmp_path: Path, pictures: Callable[..., Path]) -> None:
    files = [pictures("a.png", encoded()), pictures("b.webp", encoded("WEBP"))]
    output = copies(tmp_path)
    for file in files:
        output.write(row(file))
    output = copies(tmp_path, existing)
    assert [output.has(file) for file in files] == [again, again]


def test_pictures_of_one_name_and_several_kinds_have_copies_of_their_own(tmp_path: Path, pictures: Callable[..., Path]) -> None:
    files = [pictures("a.jpg", encoded("JPEG", size=(5, 4))), pictures("a.png", encoded("PNG", size=(7, 4)))]
    output = copies(tmp_path)
    assert [output.has(file) for file in files] == [False, False]
    for file in files:
        output.write(row(file))
    assert {name: Image.open(tmp_path / "out" / name).size for name in listing(tmp_path / "out")} == {"a.jpg": (5, 4), "a.png": (7, 4)}


def test_two_pictures_that_would_have_one_copy_are_both_named(tmp_path: Path, pictures: Callable[..., Path]) -> None:
    one, other = pictures("a.png", encoded()), pictures("a.webp", encoded("WEBP"))
    output = copies(tmp_path)
    assert not output.has(one)
    with pytest.raises(OutputError, match=r"in/a\.webp and .*in/a\.png would have the same copy"):
        output.has(other)
    # of another kind than its name says
    wrong = pictures("b.jpg", encoded("WEBP", size=(5, 4)))
    right = pictures("b.png", encoded("PNG", size=(7, 4)))
    output = copies(tmp_path)
    assert not output.has(wrong)
    assert not output.has(right)
    output.write(row(right))
    with pytest.raises(OutputError, match=r"in/b\.jpg and .*in/b\.png would have the same copy"):
        output.write(row(wrong))
    assert listing(tmp_path / "out") == ["b.png"]
    assert Image.open(tmp_path / "out" / "b.png").size == (7, 4)


def test_the_original_is_never_written(tmp_path: Path, pictures: Callable[..., Path]) -> None:
    file = pictures("deep/a.webp", encoded("WEBP"))
    for into in ("in", "in/deep/.."):
        with pytest.raises(OutputError, match=r"the copy of .*a\.webp would be the file itself; give --embed another folder"):
            copies(tmp_path, "overwrite", into=into).has(file)
    (tmp_path / "link").symlink_to(tmp_path / "in")
    with pytest.raises(OutputError, match="would be the file itself"):
        copies(tmp_path, "overwrite", into="link").has(file)
    found = tmp_path / "link" / "deep" / "a.webp"
    with pytest.raises(OutputError, match="would be the file itself"):
        Copies(tmp_path / "in", "overwrite", {found: tmp_path / "link"}).has(found)


def test_a_damaged_picture_has_no_copy(tmp_path: Path, pictures: Callable[..., Path]) -> None:
    file = pictures("a.webp", encoded("WEBP")[:30])
    with pytest.raises(ImageError, match=r"a\.webp: not a readable image"):
        copies(tmp_path).write(row(file))
    assert not (tmp_path / "out").exists()


# standard output
