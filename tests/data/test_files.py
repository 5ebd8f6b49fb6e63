import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data.errors import DiskFullError, ShardError
from data.files import read_json, remove_leftovers, replacing, temporary_name, write_json, write_lines


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    write_json(tmp_path / "new" / "a.json", {"a": "é"})
    assert read_json(tmp_path / "new" / "a.json") == {"a": "é"}

    def interrupted() -> object:
        yield {"b": 1}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_lines(tmp_path / "new" / "a.json", interrupted())  # type: ignore[arg-type]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.json"]
    assert json.loads((tmp_path / "new" / "a.json").read_text()) == {"a": "é"}


def test_a_full_disk_says_what_it_has_cost(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("before")
    with pytest.raises(DiskFullError, match="the disk is full"), replacing(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "before")]


def test_leftovers_of_killed_runs_go_and_those_of_live_runs_stay(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    mine = temporary_name(tmp_path / "train" / "00000.tar")
    host = mine.name.removesuffix(f"-{os.getpid()}.tmp").rpartition(".")[2]
    parent = tmp_path / f"00001.tar.{host}-{os.getppid()}.tmp"  # a process that lives and is not this one
    killed, elsewhere, other = (tmp_path / f"{name}.tmp" for name in (f"00002.tar.{host}-{dead.pid}", f"00003.tar.elsewhere-{dead.pid}", "notes"))
    mine.parent.mkdir()
    for path in (mine, parent, killed, elsewhere, other):
        path.write_text("x")
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.rglob("*.tmp")) == sorted([mine, parent, elsewhere, other])


@pytest.mark.parametrize(("content", "message"), [("{", "is not JSON"), ("[1]", "holds a JSON list"), ("[" * 100_000, "is not JSON")])
def test_json_that_is_none(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ShardError, match=message):
        read_json(tmp_path / "a.json")
    with pytest.raises(ShardError, match="does not exist"):
        read_json(tmp_path / "none.json")
