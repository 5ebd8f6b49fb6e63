"""docs/train.slurm as a cluster runs it, with stand-ins for its commands and for the training."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from commands import ROOT

STAND_INS = {
    # which hands no signal on, and kills what it runs
    "srun": '"$@" & child=$!; trap "kill -9 $child; exit 143" TERM; wait $child',
    "scontrol": 'echo "$@" >> requeued',
    # says how it was called, and trains until it is told to stop
    "python": 'echo "$@" >> called; trap "echo saved >> called; exit 1" TERM; [ -n "$ENDS" ] && exit "$ENDS"; while :; do sleep 0.02; done',
}


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    for name, script in STAND_INS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    return tmp_path


def started(cluster: Path, *arguments: str, ends: str = "", **exported: str) -> subprocess.Popen:
    environment = exported | {
        "PATH": f"{cluster / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "SLURM_SUBMIT_DIR": str(cluster),
        "SLURM_JOB_ID": "17",
        "ENDS": ends,
    }
    return subprocess.Popen(["bash", str(ROOT / "docs" / "train.slurm"), *arguments], env=environment, cwd="/", stderr=subprocess.PIPE, text=True)


def test_before_its_time_is_up_a_run_saves_and_queues_itself_again(cluster: Path) -> None:
    job = started(cluster, "small", "--data", "datasets/mine", "--name", "mine")
    deadline = time.monotonic() + 20
    while not (cluster / "called").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.2)  # until it listens
    job.send_signal(signal.SIGUSR1)
    assert job.wait(20) == 0
    assert (cluster / "called").read_text().splitlines() == ["train.py small --data datasets/mine --name mine", "saved"]
    assert (cluster / "requeued").read_text() == "requeue 17\n"


@pytest.mark.parametrize(
    ("where", "run"),
    [
        (["--name", "mine"], "runs/mine"),
        (["--name=mine"], "runs/mine"),
        (["--out", "a/elsewhere"], "a/elsewhere"),
        (["--out=elsewhere"], "elsewhere"),
    ],
)
@pytest.mark.parametrize("code", [0, 3])
def test_the_next_turn_goes_on_and_a_finished_or_failed_run_is_not_queued_again(cluster: Path, where: list[str], run: str, code: int) -> None:
    (cluster / run).mkdir(parents=True)
    (cluster / run / "config.json").touch()
    assert started(cluster, "small", *where, "--workers", "8", ends=str(code)).wait(20) == code
    assert (cluster / "called").read_text() == f"train.py small {' '.join(where)} --workers 8 --resume\n"
    assert not (cluster / "requeued").exists()


def test_what_the_caller_s_shell_exports_is_not_taken_for_the_run(cluster: Path) -> None:
    exported = {"run": "runs/other", "resume": "--resume", "before": "--name"}
    assert started(cluster, "small", ends="0", **exported).wait(20) != 0
    assert not (cluster / "called").exists()
    assert started(cluster, "small", "--name", "mine", ends="0", **exported).wait(20) == 0
    assert (cluster / "called").read_text() == "train.py small --name mine\n"


def test_a_run_without_a_name_is_refused(cluster: Path) -> None:
    job = started(cluster, "small", "--data", "datasets/mine")
    assert "give the run a --name" in job.communicate(timeout=20)[1]
    assert job.returncode != 0
    assert not (cluster / "called").exists()
