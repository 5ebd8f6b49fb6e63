import os
import subprocess
import sys
from pathlib import Path

import pytest

from model import CaptionModel, save_model
from training import run_directory
from training.config import mini
from training.run_directory import RunStateError, begin, check_begun, check_new, checkpoints, clear, held


def test_what_differs_from_the_beginning_is_listed(tmp_path: Path) -> None:
    about = {"data": {"training": "abc"}, "model": {"size": (3, 4), "layers": 2}, "pairs per update": 64}
    begin(tmp_path, about)
    check_begun(tmp_path, about)
    other = {"data": {"training": "abc"}, "model": {"size": (3, 5), "layers": 2}, "pairs per update": 32}
    with pytest.raises(RunStateError, match=r"model.size: \[3, 4\] there, \[3, 5\] now; pairs per update: 64 there, 32 now\. Give"):
        check_begun(tmp_path, other)
    with pytest.raises(RunStateError, match=r"with something else: stream: None there, 3 now\. Give"):
        check_begun(tmp_path, about | {"stream": 3})
    (tmp_path / "begun.json").write_text("{")
    with pytest.raises(RunStateError, match=r"begun\.json cannot be read"):
        check_begun(tmp_path, about)


def test_checkpoints_are_in_the_order_of_their_steps(tmp_path: Path) -> None:
    for name in ("step-999999", "step-1000000", "step-000500", "step-1000500.77.tmp", "other"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000500", "step-999999", "step-1000000"]


def test_what_a_run_left_before_its_first_checkpoint_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    left = ["begun.json", "tokenizer.json", "features.npy", "features.json", "features.npy.12.tmp", "events.out.tfevents.1.host"]
    kept = ["config.json", "notes.txt", "model/model.safetensors", "report/report.md"]
    for name in (*left, *kept, "checkpoints/step-000004.12.tmp/model.safetensors"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    clear(tmp_path)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)
    with pytest.raises(RunStateError, match="holds a trained model, but no checkpoint"):
        check_new(tmp_path, "")
    (tmp_path / "checkpoints" / "step-000004").mkdir()
    with pytest.raises(RunStateError, match=r"holds a run already\. Go on with it: the command"):
        check_new(tmp_path, "the command")


def test_a_second_run_in_the_same_directory_is_refused_until_the_first_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_directory, "_PATIENCE", 0.2)
    code = "from pathlib import Path; from training.run_directory import held\n"
    code += f"with held(Path({str(tmp_path / 'run')!r})): print('held', flush=True); input()"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with pytest.raises(RunStateError, match=r"another process trains in .*/run; wait for it or stop it"), held(tmp_path / "run"):
        pass
    other.kill()  # whatever way it ends
    other.communicate()
    with held(tmp_path / "run"):
        mini().save(tmp_path / "run" / "config.json")
    with held(tmp_path / "run"):
        pass


def test_a_model_is_no_run(tmp_path: Path, tiny_model: CaptionModel) -> None:
    save_model(tiny_model, tmp_path)
    (tmp_path / "tokenizer.json").write_text("precious")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RunStateError, match="holds something else than a run"), held(tmp_path):
        pass
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RunStateError, match="holds something else than a run"), held(tmp_path):
        pass
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before | {"config.json": b"{"}


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(RunStateError, match="holds something else than a run"), held(path):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
