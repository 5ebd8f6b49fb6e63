import io
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import TableError
from data.groups.groups import Groups
from data.groups.nearness import Nearness
from synthesis.long_prompts import ReadPrompt
from synthesis.prompts import GroupedPrompts, grouped, read_grouped, read_prompts, write_grouped


def test_one_prompt_a_line(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_bytes("\ufeffa cat\r\n\n  a (dog:1.2), 8k \n猫".encode())
    assert read_prompts(str(tmp_path / "prompts.txt")).prompts == ["a cat", "a (dog:1.2), 8k", "猫"]


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "holds no prompt"), (b"\n \n", "holds no prompt"), (b"\xe9\xe8\xe9\xe0 \x81\n", "line 1, is not UTF-8")]
)
def test_files_without_prompts(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "p.txt").write_bytes(content)
    with pytest.raises(TableError, match=message):
        read_prompts(str(tmp_path / "p.txt"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"none\.txt does not exist"):
        read_prompts(str(tmp_path / "none.txt"))


def test_columns_of_tables(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id,title\n1,"a cat, grey"\n2,\n3,a dog\n')
    assert read_prompts(str(tmp_path / "a.csv"), "title").prompts == ["a cat, grey", "a dog"]
    (tmp_path / "a.tsv").write_text("caption\tid\na cat\t1\n")
    assert read_prompts(str(tmp_path / "a.tsv")).prompts == ["a cat"]
    pq.write_table(pa.table({"text": ["a", None, "b"]}), tmp_path / "a.parquet")
    assert read_prompts(str(tmp_path / "a.parquet")).prompts == ["a", "b"]
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "source": "x"}\n\n{"prompt": "b"}\n')
    assert read_prompts(str(tmp_path / "a.jsonl")).prompts == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"id,name\n1,x\n", "no column prompt or text or caption; give --prompt-column, one of: id, name"),
        ("a.jsonl", b"{broken\n", "holds no prompt; 1 rows could not be read, the first: line 1: not JSON"),
        ("a.jsonl", b"[3]\n", "a JSON list where an object was expected"),
        ("a.parquet", b"PAR1 broken", "cannot be read"),
        ("a.csv", b"", "no column"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TableError, match=message):
        read_prompts(str(tmp_path / name))


def test_standard_input_and_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfa cat\n\na dog\r\n")))
    assert read_prompts("-").prompts == ["a cat", "a dog"]
    rows = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"Prompt": ["x", "y"], "id": [1, 2]})})
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: rows)
    assert read_prompts("someone/prompts", "Prompt").prompts == ["x", "y"]
    assert read_prompts("someone/prompts").prompts == ["x", "y"]
    with pytest.raises(TableError, match="one of: Prompt, id"):
        read_prompts("someone/prompts", "words")


def test_near_prompts_share_a_group_and_the_file_says_so(tmp_path: Path) -> None:
    words = "a red fox in a deep dark forest at night with many stars"
    found = grouped([ReadPrompt(words), ReadPrompt(f"{words} above"), ReadPrompt("an owl")], Groups(Nearness(sentence_model="none")))
    assert found.records[0].group == found.records[1].group != found.records[2].group
    assert not found.left_out
    kept = GroupedPrompts(found.records, [("a \u2028 line", "prompt near two splits")])
    write_grouped(tmp_path / "prompts.jsonl", kept)
    assert read_grouped(tmp_path / "prompts.jsonl") == GroupedPrompts(list(found.records), [("a \u2028 line", "prompt near two splits")])
    assert kept.kinds == {"prompt near two splits": 1}
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a"}\n')
    with pytest.raises(TableError, match="damaged"):
        read_grouped(tmp_path / "prompts.jsonl")


def test_halves_of_characters_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "a \\ud83d cat"}\n')
    assert read_prompts(str(tmp_path / "a.jsonl")).prompts == ["a ? cat"]
