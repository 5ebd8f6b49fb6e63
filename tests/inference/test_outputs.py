"""Files as csv, json, Pillow and the file system read them back."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archives import encoded
from graphs import png
from hypothesis import given
from hypothesis import strategies as st
from inverters import row, said
from PIL import Image

from data.errors import DiskFullError, ImageError
from data.images import read_image
from data.metadata.tools import GuessedPromptError, read_image_metadata
from inference.outputs import Copies, JsonLines, OutputError, Printed, Sidecars, Table, opened
from inference.rows import Row, printable

ODD_NAMES = [b"a\nb.png", b"a\tb.png", b"caf\xe9.png", b"\"q\", 'r'.png", "\N{FOX FACE} 猫.png".encode(), b"a\rb.png", b"plain.png"]
BREAKS = "a\nb\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\rz"  # all that str.splitlines ends a line at


def odd_files() -> list[Path]:
    return [Path("/in") / os.fsdecode(name) for name in ODD_NAMES]


def write_all(output: JsonLines | Table, rows: list[Row]) -> None:
    for one in rows:
        output.write(one)
    output.close()


@pytest.mark.parametrize("kind", [JsonLines, Table])
def test_names_and_prompts_of_any_kind_take_one_line_each_and_are_known_again(kind: Any, tmp_path: Path) -> None:
    path = tmp_path / "new" / "out"
    prompts = ['a "cat", black', BREAKS, "x\udc80y", "", "猫 | dog", " spaces ", "plain"]
    rows = [row(file, prompt) for file, prompt in zip(odd_files(), prompts, strict=True)]
    write_all(kind(path, "skip", "me"), rows)
    content = path.read_text(encoding="utf-8")
    if kind is JsonLines:
        found = [json.loads(line) for line in content.split("\n")[:-1]]
        assert [one["prompt"] for one in found] == [prompt.replace("\udc80", "?") for prompt in prompts]
    else:
        found = list(csv.DictReader(io.StringIO(content, newline="")))
        assert [one["prompt"] for one in found] == ['a "cat", black', f"a b{9 * ' '}z", "x?y", "", "猫 | dog", " spaces ", "plain"]
        assert content.count("\n") == len(rows) + 1
    names = ["a\\nb.png", "a\\tb.png", "caf\\udce9.png", "\"q\", 'r'.png", "\N{FOX FACE} 猫.png", "a\\rb.png", "plain.png"]
    assert [Path(one["file"]).name for one in found] == names
    again = kind(path, "skip", "me")
    assert all(again.has(one.file) for one in rows)
    assert not again.has(Path("/in/other.png"))
    write_all(again, [row(Path("/in/other.png"))])
    assert path.read_text(encoding="utf-8").startswith(content)
    assert path.read_text(encoding="utf-8").count("\n") == content.count("\n") + 1


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_row_is_a_line_of_json_and_of_csv(tmp_path_factory: pytest.TempPathFactory, name: str, prompt: str) -> None:
    directory = tmp_path_factory.mktemp("any")
    one = row(Path(name), prompt, metadata=prompt)
    lines, table = JsonLines(directory / "a", "overwrite", "me"), Table(directory / "b", "overwrite", "me")
    write_all(lines, [one, one])
    write_all(table, [one, one])
    for row_again in map(json.loads, (directory / "a").read_bytes().split(b"\n")[:-1]):
        assert row_again["prompt"] == prompt.encode("utf-8", "replace").decode()
    rows = list(csv.reader(io.StringIO((directory / "b").read_text(encoding="utf-8", errors="strict"), newline="")))
    assert len(rows) == 3
    assert {len(values) for values in rows} == {len(Table.COLUMNS)}
    for output in (JsonLines(directory / "a", "skip", "me"), Table(directory / "b", "skip", "me")):
        assert output.has(one.file)
        output.close()


def test_a_row_says_all_that_is_known(tmp_path: Path) -> None:
    prediction = said("a cat", "a dog", "an owl", confidence=0.123456, familiarity=0.00012345)
    one = row(tmp_path / "a.png", prompts=("x, a cat", "x, a dog", "x, an owl"), prediction=prediction, note="unsure")
    assert one.as_json() == {
        "file": str(tmp_path / "a.png"),
        "prompt": "x, a cat",
        "source": "model",
        "confidence": 0.1235,
        "familiarity": 0.0001,
        "score": -0.1,
        "alternatives": [{"prompt": "x, a dog", "confidence": 0.25}, {"prompt": "x, an owl", "confidence": 0.25}],
        "note": "unsure",
        "by": "me",
    }
    compared = row(tmp_path / "a.png", "an owl", source="metadata", prediction=prediction, metadata="an owl", similarity=0.87654321)
    found = compared.as_json()
    assert [found[name] for name in ("metadata", "model_prompt", "similarity", "prompt")] == ["an owl", "a cat", 0.8765, "an owl"]
    carried = Row(file=tmp_path / "a.png", prompts=("an owl",), source="metadata", metadata="an owl", by="me")
    assert carried.as_json() == {"file": str(tmp_path / "a.png"), "prompt": "an owl", "source": "metadata", "note": "", "by": "me"}
    table = Table(tmp_path / "t.csv", "skip", "me")
    write_all(table, [one, compared, carried])
    rows = list(csv.DictReader((tmp_path / "t.csv").open(newline="")))
    assert [values["alternatives"] for values in rows] == ["x, a dog | x, an owl", "", ""]
    assert [values["similarity"] for values in rows] == ["", "0.8765", ""]
    assert [values["confidence"] for values in rows] == ["0.1235", "0.1235", ""]
    assert [values["model_prompt"] for values in rows] == ["", "a cat", ""]


@pytest.mark.parametrize(("kind", "first"), [(JsonLines, 0), (Table, 1)])
def test_a_line_that_was_cut_is_written_again_wherever_it_was_cut(kind: Any, first: int, tmp_path: Path) -> None:
    path = tmp_path / "out"
    rows = [row(Path(f"/in/{i}.png"), f"prompt {i} 猫") for i in range(3)]
    write_all(kind(path, "skip", "me"), rows)
    whole = path.read_bytes()
    lines = whole.split(b"\n")[:-1]
    ends = [sum(len(line) + 1 for line in lines[:count]) for count in range(len(lines) + 1)]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        output = kind(path, "skip", "me")
        known = [output.has(one.file) for one in rows]
        assert path.read_bytes() == whole[: max(end for end in ends if end <= cut)]
        there = sum(end <= cut for end in ends) - 1
        assert known == [number + first < there for number in range(3)]
        write_all(output, [one for one, is_known in zip(rows, known, strict=True) if not is_known])
        assert path.read_bytes() == whole


@pytest.mark.parametrize("kind", [JsonLines, Table])
@pytest.mark.parametrize(
    "content",
    [
        b'[{"prompt": "a cat"}]',  # as json.dump writes it, without a line's end
        b'{"prompt": "a cat"}\n',
        b"file,prompt\na.png,a cat\n",
        b"not text \xff\xfe\n",
        encoded(),
        b'{"file": ["a"], "by": "me"}\n',
        b"[]\n",
        b"3\n",
        b"\n",
    ],
)
def test_what_is_not_of_our_making_is_refused_and_left_as_it_is(kind: Any, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(content)
    with pytest.raises(OutputError, match=r"out(, line 1)? is not of our making; name another file, or add --existing overwrite"):
        kind(path, "skip", "me")
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]  # no lock stays
    write_all(kind(path, "overwrite", "me"), [row(Path("a.png"))])
    write_all(kind(tmp_path / "new", "skip", "me"), [row(Path("a.png"))])
    assert path.read_bytes() == (tmp_path / "new").read_bytes()


@pytest.mark.parametrize("kind", [JsonLines, Table])
def test_rows_of_another_model_or_of_other_options_are_refused(kind: Any, tmp_path: Path) -> None:
    path = tmp_path / "out"
    write_all(kind(path, "skip", "me"), [row(Path("a.png"))])
    before = path.read_bytes()
    for existing in ("skip", "append", "prepend"):
        with pytest.raises(OutputError, match="out was written by another model or with other options"):
            kind(path, existing, "you")
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", [JsonLines, Table])
def test_to_overwrite_loses_nothing_before_there_is_a_row(kind: Any, tmp_path: Path) -> None:
    """As where the options turn out to be wrong when the first picture comes."""
    path = tmp_path / "out"
    write_all(kind(path, "skip", "me"), [row(Path(f"{i}.png")) for i in range(5)])
    before = path.read_bytes()
    output = kind(path, "overwrite", "you")
    assert not output.has(Path("0.png"))
    output.close()
    assert path.read_bytes() == before
    write_all(kind(path, "overwrite", "you"), [row(Path("x.png"), by="you")])
    write_all(kind(tmp_path / "new", "skip", "you"), [row(Path("x.png"), by="you")])
    assert path.read_bytes() == (tmp_path / "new").read_bytes()


@pytest.mark.parametrize("kind", [JsonLines, Table])
def test_of_two_runs_on_one_file_the_second_is_refused(kind: Any, tmp_path: Path) -> None:
    path = tmp_path / "out"
    one = kind(path, "skip", "me")
    for _ in range(2):  # the refusal leaves the lock where it is
        with pytest.raises(OutputError, match=r"another run is writing .*out; wait for it, or name another file"):
            kind(path, "overwrite", "me")
    one.write(row(Path("a.png")))
    one.close()
    other = kind(path, "skip", "me")
    assert other.has(Path("a.png"))
    other.close()
    assert list(tmp_path.iterdir()) == [path]


def test_outputs_are_closed_at_the_end_and_where_a_later_one_cannot_be_opened(tmp_path: Path) -> None:
    held: list[JsonLines] = []

    def build() -> JsonLines:
        held.append(JsonLines(tmp_path / "a", "skip", "me"))
        return held[-1]

    def fails() -> Any:
        raise OutputError("no")

    with opened([build]) as outputs:
        assert outputs == held
    with pytest.raises(OutputError, match="no"), opened([build, fails]):
        pass
    with opened([build]):  # nobody holds it
        pass
    assert len(held) == 3


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (Path("/dev/full"), Path("/dev/zero"), tmp_path):  # two of which would be read without an end
        with pytest.raises(OutputError, match="is no file; name one, or leave it out for standard output"):
            JsonLines(path, "skip", "me")


class Full:
    """A file on a disk that has room for some bytes more."""

    def __init__(self, path: Path, room: int, number: int = errno.ENOSPC) -> None:
        self.file = open(path, "r+b", buffering=0)  # noqa: SIM115  # closed by the output
        self.room, self.number = room, number

    def write(self, content: bytes) -> int:
        taken = content[: self.room]
        if not taken:
            raise OSError(self.number, os.strerror(self.number))
        self.room -= len(taken)
        return self.file.write(taken)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@pytest.mark.parametrize("kind", [JsonLines, Table])
@pytest.mark.parametrize(("number", "error"), [(errno.ENOSPC, DiskFullError), (errno.EDQUOT, DiskFullError), (errno.EIO, OSError)])
def test_a_full_disk_leaves_whole_lines(kind: Any, number: int, error: type[OSError], tmp_path: Path) -> None:
    path = tmp_path / "out"
    write_all(kind(path, "skip", "me"), [row(Path("a.png"))])
    before = path.read_bytes()
    output = kind(path, "skip", "me")
    output._file.close()
    output._file = Full(path, 10, number)
    with pytest.raises(error) as raised:
        output.write(row(Path("b.png")))
    assert type(raised.value) is error
    if error is DiskFullError:
        assert f"the disk is full; {path} was not finished" in str(raised.value)
    assert path.read_bytes() == before
    output._file.room = 1000
    output.write(row(Path("b.png")))  # where there is room again
    output.close()
    assert path.read_bytes().startswith(before)
    again = kind(path, "skip", "me")
    assert again.has(Path("b.png"))
    again.close()


def test_a_long_prompt_is_read_back(tmp_path: Path) -> None:
    """Longer than csv allows by default; data.rows, elsewhere, sets another limit for all."""
    csv.field_size_limit(131_072)
    write_all(Table(tmp_path / "out", "skip", "me"), [row(Path("a.png"), "x" * 400_000)])
    csv.field_size_limit(131_072)
    output = Table(tmp_path / "out", "skip", "me")
    assert output.has(Path("a.png"))
    output.close()


def test_a_table_that_was_saved_with_other_line_ends_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "out"
    write_all(Table(path, "skip", "me"), [row(Path("a.png"), "a, b")])
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    output = Table(path, "skip", "me")
    assert output.has(Path("a.png"))
    output.close()


# texts beside pictures


def test_a_text_lies_beside_its_picture(tmp_path: Path) -> None:
    for suffix in (".txt", ".caption"):
        output = Sidecars(suffix, "skip")
        file = tmp_path / "a.b.png"
        assert not output.has(file)
        output.write(row(file, "a 猫,\nsitting\u2028 there"))
        assert (tmp_path / f"a.b{suffix}").read_text(encoding="utf-8") == "a 猫, sitting  there\n"
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


def test_lines_are_printed_with_the_note_on_the_first() -> None:
    lines: list[str] = []
    one = row(Path("a\tb.png"), prompts=("a\tcat\non a mat", "a dog"), note="unsure")
    Printed(lines.append, as_json=False).write(one)
    assert lines == ["a\\tb.png\ta cat on a mat\tunsure", "a\\tb.png\ta dog"]
    lines.clear()
    printed = Printed(lines.append, as_json=True)
    assert not printed.has(Path("a.png"))
    printed.write(one)
    assert [json.loads(line) for line in lines] == [one.as_json()]


def test_a_name_is_one_line_and_spaces_stay() -> None:
    for name in odd_files():
        text = printable(name)
        assert len(text.splitlines()) == 1
        text.encode("utf-8")
    assert printable("\x1b[31m \u202e\x7f\u200b") == "\\x1b[31m \\u202e\\x7f\\u200b"
    for space in ("\u202f", "\xa0", "\u3000", " "):  # macOS and Japanese keyboards write them
        assert printable(f"at 3{space}PM.png") == f"at 3{space}PM.png"
