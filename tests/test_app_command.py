"""app.py before there is a page: what is wrong is named before a model is loaded."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import time
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gradio
import httpx
import pytest
from commands import command, free_port, run
from gradio.utils import _parse_file_size
from inverters import tiny_inverter

import app
from data.errors import MissingExtraError
from page.reader import Reader
from page.sent import MOST_BYTES


@pytest.fixture(autouse=True)
def _no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "load_inverter", lambda *_, **__: pytest.fail("a model was loaded"))
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "to be set by app.main")


def without(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    def found(name: str) -> ModuleSpec | None:
        return None if name in missing else find_spec(name)

    monkeypatch.setattr(app, "find_spec", found)


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=rf"cannot listen at 127\.0\.0\.1:{port} \(Address already in use\); give another --port"):
            app.main(app.AppConfig(port=port))
    with pytest.raises(OSError, match=r"cannot listen at no\.such\.host\.invalid:7860"):
        app.main(app.AppConfig(host="no.such.host.invalid"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compare": ("nothing",)}, "unknown baseline 'nothing'; there are constant, nearest"),
        ({"compare": ("mini-git", "mini-git")}, "--compare mini-git is named twice"),
        ({"compare": ("vlm",)}, "--compare vlm: name the model"),
    ],
)
def test_baselines_that_there_are_not_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        app.main(app.AppConfig(**options))


@pytest.mark.parametrize("port", [0, -1, 65536, 99999])
def test_ports_that_there_are_not_are_named(port: int) -> None:
    with pytest.raises(ValueError, match="--port must be 1"):
        app.AppConfig(port=port)


def test_missing_extras_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "gradio")
    with pytest.raises(MissingExtraError, match=re.escape("the web page needs the extra 'app' (there is no gradio): pip install -e '.[app]'")):
        app.main(app.AppConfig())
    without(monkeypatch, "mcp")
    with pytest.raises(MissingExtraError, match=re.escape("--mcp needs the extra 'mcp' (there is no mcp): pip install -e '.[mcp]'")):
        app.main(app.AppConfig(mcp=True))
    app.check_extras(app.AppConfig())


def test_without_diffusers_only_painting_is_left_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(app, "load_inverter", lambda *_, **__: tiny_inverter())
    assert app.build_reader(app.AppConfig()).paint == "mini"
    assert app.build_reader(app.AppConfig(paint="")).paint == ""
    assert capsys.readouterr().err == ""
    without(monkeypatch, "diffusers")
    reader = app.build_reader(app.AppConfig(compare=("constant",)))
    assert reader.paint == ""
    assert list(reader.baselines) == ["constant"]
    assert "'Make it again' is left out: it needs the extra 'generate': pip install -e '.[generate]'" in capsys.readouterr().err


def test_the_model_that_is_asked_for_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(app, "load_inverter", lambda *names, **options: asked.append((names, options)) or tiny_inverter())
    app.build_reader(app.AppConfig(checkpoint="someone/model", revision="v1"))
    assert asked == [(("someone/model",), {"revision": "v1"})]


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_the_page_is_served_here_alone_and_sends_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], host: str, shown: str
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(app, "build_reader", lambda _: Reader(tiny_inverter()))
    monkeypatch.setattr(app, "check_address", lambda *_: None)
    monkeypatch.setattr(gradio.Blocks, "launch", lambda self, **options: asked.update(options, page=self))
    app.main(app.AppConfig(host=host, port=7999, checkpoint="runs/mini/"))
    assert (asked["server_name"], asked["server_port"], asked["share"], asked["mcp_server"]) == (shown, 7999, False, False)
    assert _parse_file_size(asked["max_file_size"]) == MOST_BYTES
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert asked["page"].analytics_enabled is False
    assert f"Reprompt is at http://{shown}:7999" in capsys.readouterr().out
    titles = [block.value for block in asked["page"].blocks.values() if block.get_block_name() == "markdown"]
    assert "Model: mini" in titles[0]


@pytest.mark.slow
def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    _, err = run("app.py", "--checkpoint", tmp_path / "none", fails=True)
    assert err.startswith("app.py: ")
    assert len(err.splitlines()) == 1
    assert "none is not a directory" in err
    assert sys.executable not in err


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_uploads_are_gone_when_the_page_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: signal.Signals) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    port = free_port()
    process = command("app.py", "--port", port, "--paint", "")
    for _ in range(600):
        try:
            sent = httpx.post(f"http://127.0.0.1:{port}/gradio_api/upload", files={"files": ("mine.png", b"mine")})
            break
        except httpx.TransportError:
            assert process.poll() is None
            time.sleep(0.1)
    assert [path.read_bytes() for path in (tmp_path / "uploads").rglob("mine.png")] == [b"mine"], sent.text
    time.sleep(2)  # it answers before it waits to be ended
    process.send_signal(end)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert list((tmp_path / "uploads").rglob("mine.png")) == []
