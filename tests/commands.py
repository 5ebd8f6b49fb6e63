"""The commands as a user runs them: real processes, tiny models."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_NETWORK = {"image-size": 32, "width": 32, "layers": 1, "heads": 2, "ffn-width": 32, "vocab-size": 300}
_SHAPE = [word for name, value in _NETWORK.items() for word in (f"--model.{name}", str(value))]
_RUN = [
    "--workers",
    "0",
    "--warmup-steps",
    "2",
    "--evaluate-every",
    "8",
    "--save-every",
    "4",
    "--final-pairs",
    "6",
    "--optimizer",
    "adamw",
    "--augment",
]
BRIEF = [*_RUN, "--batch-size", "16"]
TINY = ["--model.encoder", "test_convnext", "--model.stage", "1", "--model.encoder-arguments", "drop_rate=0.0", *_SHAPE, *BRIEF]
TINY_VIT = ["--model.encoder", "test_vit", "--model.encoder-arguments", "img_size=32", "--model.dropout", "0", *_SHAPE, *BRIEF]
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}


def command(script: str, *arguments: object, cwd: Path = ROOT) -> subprocess.Popen:
    line = [sys.executable, str(ROOT / script), *map(str, arguments)]
    # a test run in the background has Ctrl-C ignored, and its children would inherit that
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # a session of its own, whose processes can be signalled together
    return subprocess.Popen(line, **pipes, text=True, cwd=cwd, env=os.environ | _ENVIRONMENT, preexec_fn=listen, start_new_session=True)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def run(script: str, *arguments: object, cwd: Path = ROOT, fails: bool = False) -> tuple[str, str]:
    process = command(script, *arguments, cwd=cwd)
    out, err = process.communicate(timeout=200)
    assert (process.returncode != 0) == fails, err
    assert "Traceback" not in err
    return out, err


def run_on_two_processes(script: str, *arguments: object, cwd: Path) -> str:
    """As `accelerate launch` starts them where there are GPUs; on one CPU machine it starts a single process, whatever it is asked for."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    line = [*launch, str(ROOT / script), *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, cwd=cwd, env=os.environ | _ENVIRONMENT, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout
