from pathlib import Path

import pytest

from data.errors import ShardError
from data.files import write_json
from data.store.directory import DATASET_FILE, begun_settings, check_begun


def test_a_directory_is_gone_on_with_by_the_same_settings_only(tmp_path: Path) -> None:
    assert begun_settings(tmp_path / "new") is None
    assert begun_settings(tmp_path) is None
    (tmp_path / ".lock").touch()
    (tmp_path / "prompts.jsonl").touch()
    assert begun_settings(tmp_path, leftovers=("prompts.jsonl",)) is None
    with pytest.raises(ShardError, match="holds other things"):
        begun_settings(tmp_path)
    with pytest.raises(ShardError, match="is a file"):
        begun_settings(tmp_path / ".lock")
    write_json(tmp_path / DATASET_FILE, {"settings": {"seed": 1, "size": None}})
    before = begun_settings(tmp_path)
    assert before is not None
    check_begun(tmp_path, before, {"seed": 1, "size": None, "new and left out": None})
    with pytest.raises(ShardError, match=r"other settings \(seed: 1 there, 2 now\)"):
        check_begun(tmp_path, before, {"seed": 2, "size": None})
