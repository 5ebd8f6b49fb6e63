"""Checkpoints to the Hub and from it, which is a stub here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from inverters import tiny_inverter

from inference import PromptInverter, load_inverter
from inference.hub import HubError
from model import CheckpointError
from model.familiarity import FAMILIARITY_FILE, Familiarity

FILES = ["README.md", "config.json", "model.safetensors", "tokenizer.json"]


class Hub:
    """Takes what is uploaded, and notes what was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.files: dict[str, bytes] = {}
        self.fails: Exception | None = None

    def api(self, **options: Any) -> Hub:
        self.asked.append(("login", options))
        return self

    def create_repo(self, repo_id: str, **options: Any) -> Any:
        self.asked.append(("create", {"repo_id": repo_id} | options))
        if self.fails is not None:
            raise self.fails
        return SimpleNamespace(repo_id=repo_id if "/" in repo_id else f"me/{repo_id}")

    def upload_folder(self, *, folder_path: Path, **options: Any) -> str:
        self.asked.append(("upload", options))
        self.files = {str(path.relative_to(folder_path)): path.read_bytes() for path in folder_path.rglob("*") if path.is_file()}
        return "https://hub/commit/1"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", hub.api)
    return hub


def test_what_is_uploaded_is_the_checkpoint(hub: Hub, tmp_path: Path) -> None:
    one = tiny_inverter()
    assert one.push_to_hub("someone/model") == "https://hub/commit/1"
    one.save_pretrained(tmp_path / "model")
    assert sorted(hub.files) == FILES
    assert all((tmp_path / "model" / name).read_bytes() == content for name, content in hub.files.items())
    # and with what knows its pictures, where there is one
    width = one.encode([Path(__file__).parents[2] / "docs" / "examples" / "1.png"]).shape[-1]
    one.familiarity = Familiarity(width, known=3)
    one.push_to_hub("someone/model")
    assert sorted(hub.files) == sorted([*FILES, FAMILIARITY_FILE])
    (tmp_path / "back").mkdir()
    for name, content in hub.files.items():
        (tmp_path / "back" / name).write_bytes(content)
    again = PromptInverter.from_pretrained(tmp_path / "back")
    assert again.fingerprint() == one.fingerprint()
    assert again.familiarity is not None


def test_what_is_asked_for_arrives(hub: Hub) -> None:
    tiny_inverter().push_to_hub("model", private=True, token="secret", commit_message="Better")
    assert hub.asked == [
        ("login", {"token": "secret"}),
        ("create", {"repo_id": "model", "private": True, "exist_ok": True}),
        # what knew the pictures of a model that was there before would not fit this one
        ("upload", {"repo_id": "me/model", "commit_message": "Better", "delete_patterns": [FAMILIARITY_FILE]}),
    ]
    hub.asked.clear()
    tiny_inverter().push_to_hub("someone/model")
    assert hub.asked[0] == ("login", {"token": None})
    assert hub.asked[1] == ("create", {"repo_id": "someone/model", "private": None, "exist_ok": True})
    assert hub.asked[2][1]["commit_message"]


@pytest.mark.parametrize(
    ("error", "says"), [(ConnectionError("no network\nand more"), "no network"), (KeyError(), "KeyError"), (ValueError(" \n"), "ValueError")]
)
def test_what_the_hub_does_not_take_says_why_and_what_to_do(hub: Hub, error: Exception, says: str) -> None:
    hub.fails = error
    with pytest.raises(HubError) as told:
        tiny_inverter().push_to_hub("someone/model")
    assert str(told.value) == f"someone/model could not be uploaded ({says}). Log in once with: hf auth login"
    assert hub.files == {}


@pytest.mark.parametrize("load", [PromptInverter.from_pretrained, load_inverter])
def test_what_is_asked_of_the_hub_is_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], load: Any
) -> None:
    tiny_inverter().save_pretrained(tmp_path / "model")
    asked: list[dict[str, Any]] = []

    def download(name: str, **wishes: Any) -> str:
        asked.append({"name": name} | wishes)
        return str(tmp_path / "model")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    wishes = {"revision": "v1", "token": "secret", "cache_dir": tmp_path / "kept", "local_files_only": True}
    load("someone/model", device="cpu", **wishes)
    assert "looking it up among earlier downloads" in capsys.readouterr().err
    load("someone/model", device="cpu")
    assert "looking it up on the Hub" in capsys.readouterr().err
    patterns = asked[0].pop("allow_patterns")
    assert asked[0] == {"name": "someone/model"} | wishes
    assert asked[1] | {"allow_patterns": None} == {"name": "someone/model", "allow_patterns": None} | {
        "revision": None,
        "token": None,
        "cache_dir": None,
        "local_files_only": False,
    }
    assert {"*.json", "*.safetensors", "README.md"} <= set(patterns)
    assert not any(pattern.endswith((".bin", ".py", ".pt")) or pattern == "*" for pattern in patterns)
    with pytest.raises(TypeError):
        load("someone/model", trust_remote_code=True)


def test_what_is_not_among_the_downloads_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"someone/model is not a directory here, and the Hub did not give it either \(.+\)\. Check the path"):
        PromptInverter.from_pretrained("someone/model", cache_dir=tmp_path, local_files_only=True)
