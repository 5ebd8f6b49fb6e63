from pathlib import Path

import pytest

from data.prompts import PromptError, read_prompt_file


def test_one_prompt_a_line(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_bytes("\ufeffa cat\r\n\n  a (dog:1.2), 8k \n猫".encode())
    assert [record.prompt for record in read_prompt_file(tmp_path / "prompts.txt")] == ["a cat", "a (dog:1.2), 8k", "猫"]


@pytest.mark.parametrize(("content", "message"), [(b"", "holds no prompt"), (b"\n \n", "holds no prompt"), (b"\xff\xfe\x00c", "not UTF-8")])
def test_files_without_prompts(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "p.txt").write_bytes(content)
    with pytest.raises(PromptError, match=message):
        read_prompt_file(tmp_path / "p.txt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"none\.txt does not exist"):
        read_prompt_file(tmp_path / "none.txt")
