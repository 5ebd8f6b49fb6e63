"""Files as csv and json read them back."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from archives import encoded
from hypothesis import given
from hypothesis import strategies as st
from inverters import row, said

from data.errors import DiskFullError
from inference.line_files import COLUMNS, JsonLines, Table
from inference.outputs import OutputError
from inference.rows import Row

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
        assert [one["prompt"] for one in found] == ['a "cat", black', "a b z", "x?y", "", "猫 | dog", "spaces", "plain"]
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
    assert {len(values) for values in rows} == {len(COLUMNS)}
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
