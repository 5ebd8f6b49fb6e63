"""Commands parse before they import what takes seconds: help, and the word that an option is wrong, come at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from commands import ROOT

SLOW = {"torch", "timm", "transformers", "accelerate", "diffusers", "scipy", "sklearn"}
WRONG = {  # others are given an option that there is not
    "train.py": (["--max-steps", "0"], "max_steps must be 1 or more, not 0"),
    "caption.py": (["docs/examples", "--batch-size", "0"], "--batch-size must be 1 or more, not 0"),
    "inference.certainty": (["--checkpoint", "x", "--data", "y", "--label-smoothing", "1"], "--label-smoothing must be below 1, not 1"),
    "data.audit": (["nowhere", "--examples", "-1"], "--examples must be 0 or more, not -1"),
    "data.preview": (["nowhere", "--images", "0"], "--images must be 1 or more, not 0"),
}
SCRIPTS = ("train.py", "caption.py", "evaluate.py", "score.py", "app.py", "generate_data.py", "export.py")
MODULES = (
    "data.importers",
    "data.audit",
    "data.preview",
    "inference.certainty",
    "diffusion.mini.train",
    "diffusion.mini.distil",
    "diffusion.mini.probe",
)
# a command as __main__ with one line of arguments after the other: what ended each, and at the end what was imported
_RUN = """
import contextlib, io, json, runpy, sys
command, found = sys.argv[1], []
for arguments in json.loads(sys.argv[2]):
    sys.argv, code = [command, *arguments], 0
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            if command.endswith(".py"):
                runpy.run_path(command, run_name="__main__")
            else:
                runpy.run_module(command, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = end.code
    found.append((code, out.getvalue(), err.getvalue()))
print(json.dumps((found, sorted(sys.modules))))
"""


def python(*arguments: str) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("command", [*SCRIPTS, *MODULES])
def test_help_and_wrong_options_come_before_the_imports(command: str) -> None:
    arguments, message = WRONG.get(command, (["--no-such-option"], "--no-such-option"))
    (helped, refused), imported = json.loads(python("-c", _RUN, command, json.dumps([["--help"], arguments])))
    assert not SLOW & set(imported)
    code, out, err = helped
    assert (code, err) == (0, "")
    assert out.startswith("usage: ")
    code, _, err = refused
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_the_public_names_are_loaded_when_they_are_asked_for() -> None:
    light = "import sys, inference; print('torch' in sys.modules, inference.DEFAULT_CHECKPOINT.name)"
    assert python("-c", light) == "False mini-inverter\n"
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        from inference import Nothing  # type: ignore[attr-defined]  # noqa: F401


def test_help_that_nobody_reads_to_the_end_is_quiet() -> None:
    """As in `train.py small --help | head`."""
    process = subprocess.Popen([sys.executable, "train.py", "small", "--help"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (1, b"")
