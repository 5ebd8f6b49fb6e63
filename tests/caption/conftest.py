"""caption.py as a user runs it, inside the test's process, on a tiny model or on one that says what a test wants."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tyro
from inverters import StubInverter, coloured, said, tiny_inverter

import caption
from caption import CaptionConfig
from inference.captioning import Outcome


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint of random weights."""
    directory = tmp_path_factory.mktemp("model") / "tiny"
    tiny_inverter(max_text_tokens=40).save_pretrained(directory)
    return str(directory)


@pytest.fixture
def write(model: str, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[Outcome, str, str]]:
    """What a command line counts, prints on standard output, and on standard error."""

    def here(*arguments: object) -> tuple[Outcome, str, str]:
        given = list(map(str, arguments))
        outcome = caption.main(tyro.cli(CaptionConfig, args=given if "--checkpoint" in given else [*given, "--checkpoint", model]))
        found = capsys.readouterr()
        return outcome, found.out, found.err

    return here


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> StubInverter:
    """In the place of the model."""
    inverter = StubInverter(lambda red: said(f"picture {red}", f"other {red}", confidence=0.2 if red == 2 else 0.9))
    monkeypatch.setattr(caption, "load_inverter", lambda *_, **__: inverter)
    return inverter


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five pictures, two of them in folders below."""
    for red, name in enumerate(("0.png", "1.webp", "a/2.jpg", "a/b/3.png", "c.gif")):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        coloured(red).save(tmp_path / "in" / name, **({"lossless": True} if name.endswith("webp") else {"quality": 100}))
    return tmp_path / "in"
