"""The command `reprompt` from any directory, and how it may be installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from archives import encoded
from commands import ROOT

import reprompt


def run(*arguments: object, cwd: Path, fails: bool = False, **environment: str) -> tuple[str, str]:
    """The command as it is installed, where there is no path that leads to us."""
    line = [sys.executable, str(ROOT / "reprompt.py"), *map(str, arguments)]
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    settings = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    done = subprocess.run(line, capture_output=True, text=True, cwd=cwd, env=clean | settings | environment, timeout=120, check=False)
    assert (done.returncode != 0) == fails, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory of somebody's own, whose packages are called as ours are."""
    for name in ("data", "inference", "model"):
        (tmp_path / name).mkdir()
        for file in ("__init__.py", "audit.py", "certainty.py", "console.py", "importers.py"):
            (tmp_path / name / file).write_text("raise SystemExit('somebody else')")
    (tmp_path / "tyro.py").write_text("raise SystemExit('somebody else')")
    return tmp_path


def test_what_there_is_is_listed(tmp_path: Path) -> None:
    for arguments in ((), ("--help",), ("-h",)):
        out, err = run(*arguments, cwd=tmp_path)
        assert err == ""
        assert all(f"\n    {name} " in out for name in reprompt.COMMANDS)


def test_an_unknown_command_is_named_beside_those_that_there_are(tmp_path: Path) -> None:
    out, err = run("captoin", "x.png", cwd=tmp_path, fails=True)
    assert out == ""
    assert err.startswith("reprompt: there is no command 'captoin'; there are caption, app, generate, import")
    assert len(err.splitlines()) == 1


def test_every_command_is_there() -> None:
    for program, about in reprompt.COMMANDS.values():
        assert about
        found = ROOT / program if program.endswith(".py") else Path(str(find_spec(program).origin))  # type: ignore[union-attr]
        assert found.is_relative_to(ROOT)
        assert '__name__ == "__main__"' in found.read_text()
    runnable = {path.name for path in ROOT.glob("*.py") if '__name__ == "__main__"' in path.read_text()} - {"reprompt.py"}
    assert runnable == {program for program, _ in reprompt.COMMANDS.values() if program.endswith(".py")}


@pytest.mark.parametrize(("name", "says"), [("caption", "caption.py"), ("audit", "leaks from one split into another")])
def test_a_command_is_ours_whatever_lies_where_it_is_run(project: Path, name: str, says: str) -> None:
    out, err = run(name, "--help", cwd=project)
    assert out.startswith("usage: ")
    assert says in out
    assert err == ""


def test_arguments_and_the_exit_code_are_handed_on(project: Path) -> None:
    _, err = run("audit", "nowhere", "--examples", -1, cwd=project, fails=True)
    assert "--examples must be 0 or more, not -1" in err


def test_where_processes_cannot_be_replaced_one_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[list[str]] = []
    monkeypatch.setattr(os, "name", "nt")
    monkeypatch.setattr(subprocess, "call", lambda line: lines.append(line) or 3)
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("it was replaced"))
    for arguments in (["caption", "a b.png"], ["import", "folder", "x"]):
        monkeypatch.setattr(sys, "argv", ["reprompt", *arguments])
        with pytest.raises(SystemExit) as end:
            reprompt.main()
        assert end.value.code == 3
    scripts, modules = lines
    assert scripts == [sys.executable, str(ROOT / "caption.py"), "a b.png"]
    assert (modules[0], modules[1], modules[3:]) == (sys.executable, "-c", ["data.importers", "folder", "x"])


@pytest.mark.slow
def test_pictures_are_imported_from_another_directory_by_several_processes(project: Path) -> None:
    """Which are started anew on some systems, and look for our modules too."""
    (project / "pictures").mkdir()
    for i in range(4):
        (project / "pictures" / f"{i}.png").write_bytes(encoded(size=(300 + i, 300)))
        (project / "pictures" / f"{i}.txt").write_text(f"a cat with the number {i}")
    run("import", "folder", "pictures", "--out", "pairs", "--workers", "2", cwd=project)
    assert (project / "pairs" / "dataset.json").is_file()


@pytest.mark.slow
def test_pictures_are_captioned_from_another_directory(project: Path) -> None:
    shutil.copy(ROOT / "docs" / "examples" / "1.png", project / "mine.png")
    out, _ = run("caption", "mine.png", cwd=project)
    assert out == f"mine.png\t{(ROOT / 'docs' / 'examples' / '1.txt').read_text().strip()}\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What building looks at; a build leaves files behind."""
    place = tmp_path / "checkout"
    place.mkdir()
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", *(path.name for path in ROOT.glob("*.py"))):
        shutil.copy(ROOT / name, place)
    for init in ROOT.glob("*/**/__init__.py"):
        if init.relative_to(ROOT).parts[0] not in ("tests", "benchmarks"):
            (place / init.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(init, place / init.relative_to(ROOT))
    return place


@pytest.mark.slow
def test_a_build_that_would_leave_the_checkout_is_refused_in_one_line(checkout: Path, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path / "wheels")]
    done = subprocess.run(line, capture_output=True, text=True, cwd=checkout, timeout=120, check=False)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert [each.strip(" │") for each in said.splitlines() if "Reprompt" in each] == [
        "Reprompt runs from its checkout; install it from there with: pip install -e ."
    ]
    assert "Traceback" not in said
    assert not list((tmp_path / "wheels").glob("*.whl"))


@pytest.mark.slow
def test_an_editable_build_goes_on(checkout: Path, tmp_path: Path) -> None:
    build = "import sys; from setuptools import build_meta; print(build_meta.build_editable(sys.argv[1]))"
    (tmp_path / "wheels").mkdir()
    line = [sys.executable, "-c", build, str(tmp_path / "wheels")]
    done = subprocess.run(line, capture_output=True, text=True, cwd=checkout, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    assert wheel.name == done.stdout.splitlines()[-1]
