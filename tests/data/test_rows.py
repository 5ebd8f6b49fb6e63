from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import TableError
from data.rows import Malformed, open_table


def rows(path: Path, content: bytes | str, **options: str) -> list[tuple[int, object]]:
    """(line, row), the reasons of malformed ones in the place of a row."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [(number, row.reason if isinstance(row, Malformed) else row) for number, row in open_table(path, **options).rows()]


def test_quotes_line_breaks_and_doubled_quotes(tmp_path: Path) -> None:
    content = 'id,prompt\r\n1,"a cat, grey"\r\n2,"two\nlines"\r\n\r\n3,"a ""big"" dog"\r\n4,5" tall\r\n'
    assert rows(tmp_path / "a.csv", content) == [
        (2, {"id": "1", "prompt": "a cat, grey"}),
        (3, {"id": "2", "prompt": "two\nlines"}),
        (6, {"id": "3", "prompt": 'a "big" dog'}),
        (7, {"id": "4", "prompt": '5" tall'}),
    ]


def test_an_unquoted_comma_is_named_and_cuts_nothing(tmp_path: Path) -> None:
    assert rows(tmp_path / "a.csv", "id,prompt\n1,a cat, grey\n2,a dog\n") == [
        (2, "3 values for 2 columns; a value with ',' in it must stand in quotes"),
        (3, {"id": "2", "prompt": "a dog"}),
    ]


@pytest.mark.parametrize("closing", ["", '26,the end"\n'])
def test_a_stray_quote_costs_its_own_row(tmp_path: Path, closing: str) -> None:
    lines = [f"{i},prompt {i}\n" for i in range(1, 26)]
    lines[4] = '5,"prompt 5\n'
    found = rows(tmp_path / "a.csv", "id,prompt\n" + "".join(lines) + closing)
    malformed = [number for number, row in found if isinstance(row, str)]
    assert malformed == [6]
    assert [row["prompt"] for _, row in found if isinstance(row, dict)][:24] == [f"prompt {i}" for i in range(1, 26) if i != 5]


@pytest.mark.parametrize(("delimiter", "name"), [(";", "a.csv"), ("|", "a.csv"), ("\t", "a.csv"), ("\t", "a.tsv"), ("\t", "a.tab")])
def test_the_delimiter_is_found(tmp_path: Path, delimiter: str, name: str) -> None:
    assert rows(tmp_path / name, f"id{delimiter}prompt\n1{delimiter}a cat, grey\n") == [(2, {"id": "1", "prompt": "a cat, grey"})]


def test_a_delimiter_that_is_given_holds(tmp_path: Path) -> None:
    assert rows(tmp_path / "a.csv", "a,b~c\n1,2~3\n", delimiter="~") == [(2, {"a,b": "1,2", "c": "3"})]
    with pytest.raises(TableError, match="a delimiter is one character"):
        open_table(tmp_path / "a.csv", delimiter="ab")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_the_encoding_is_found(tmp_path: Path, encoding: str) -> None:
    text = "id,prompt\n1,un phare rouge à la côte – « 5 € »\n2,plain\n"
    assert rows(tmp_path / "a.csv", text.encode(encoding))[0] == (2, {"id": "1", "prompt": "un phare rouge à la côte – « 5 € »"})
    notice = open_table(tmp_path / "a.csv").notice
    assert ("cp1252" in notice) == (encoding == "cp1252")


def test_an_encoding_that_cannot_be_told_is_an_error_and_can_be_given(tmp_path: Path) -> None:
    content = "id,prompt\n1,a cat\n2,красный маяк\n".encode("cp1251")
    with pytest.raises(TableError, match=r"a\.csv is neither UTF-8 .*\(line 3: .*name it with --encoding"):
        rows(tmp_path / "a.csv", content)
    assert rows(tmp_path / "a.csv", content, encoding="cp1251")[1] == (3, {"id": "2", "prompt": "красный маяк"})
    with pytest.raises(TableError, match="there is no encoding 'klingon'"):
        open_table(tmp_path / "a.csv", encoding="klingon")


def test_bytes_that_are_not_utf8_far_behind_the_beginning(tmp_path: Path) -> None:
    lines = b"".join(b"%d,prompt number %d\n" % (i, i) for i in range(80_000))
    found = rows(tmp_path / "a.csv", b"id,prompt\n" + lines + "x,à la côte\n".encode("cp1252"))
    assert found[-1] == (80_002, {"id": "x", "prompt": "à la côte"})


def test_lines_end_at_line_ends_alone(tmp_path: Path) -> None:
    assert rows(tmp_path / "a.csv", "id,prompt\n1,a\x85b\x0cc\u2028d\n") == [(2, {"id": "1", "prompt": "a\x85b\x0cc\u2028d"})]


def test_json_in_its_forms(tmp_path: Path) -> None:
    assert rows(tmp_path / "a.json", '["a", "b"]') == [(1, {"prompt": "a"}), (2, {"prompt": "b"})]
    assert rows(tmp_path / "a.json", '[{"text": "a"}, 3]') == [(1, {"text": "a"}), (2, "a JSON int where an object or a text was expected")]
    assert rows(tmp_path / "a.json", '{"prompt": ["a", "b"], "id": [1, 2]}') == [(1, {"prompt": "a", "id": 1}), (2, {"prompt": "b", "id": 2})]
    assert rows(tmp_path / "a.json", '{"prompt": "a"}\n{"prompt": "b"}\n') == [(1, {"prompt": "a"}), (2, {"prompt": "b"})]
    found = rows(tmp_path / "a.jsonl", '{"prompt": "a"}\n{broken\n\n[1]\n' + "[" * 100_000)
    assert found[0] == (1, {"prompt": "a"})
    assert [number for number, row in found if isinstance(row, str)] == [2, 4, 5]
    with pytest.raises(TableError, match="is not JSON"):
        rows(tmp_path / "a.json", "[" * 100_000)


def test_parquet_in_pieces(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": [f"p{i}" for i in range(2500)]}), tmp_path / "a.parquet")
    table = open_table(tmp_path / "a.parquet")
    assert table.columns == ("prompt",)
    assert [row["prompt"] for _, row in table.rows() if isinstance(row, dict)] == [f"p{i}" for i in range(2500)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "has no column"),
        ("a.csv", b"a,a\n1,2\n", "several columns 'a'"),
        ("a.parquet", b"PAR1 broken", "cannot be read"),
        ("a.doc", b"x", "is not a table that can be read"),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(TableError, match=message):
        rows(tmp_path / name, content)
    with pytest.raises(TableError, match="does not exist"):
        open_table(tmp_path / "none.csv")
