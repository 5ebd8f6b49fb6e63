"""No command computes in a precision that its CPU only emulates; and what a run computed in is said, recorded and may change."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from commands import ROOT, TINY
from examples import write_dataset

import train
from core.device import Precision

# play a CPU with AVX2 and nothing newer, on any x86
ORDINARY = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


@pytest.mark.slow
@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="the variables hide the instructions of x86 alone")
def test_no_command_multiplies_in_half_precision_where_it_is_emulated(tmp_path: Path) -> None:
    pairs = write_dataset(tmp_path / "pairs", 240)
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    environment = os.environ | ORDINARY | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": paths}
    script = [sys.executable, str(ROOT / "tests" / "half_products.py"), str(tmp_path), str(pairs)]
    done = subprocess.run(script, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    counts = {line.rpartition(": ")[0]: int(line.rpartition(": ")[2].split()[0]) for line in done.stdout.splitlines() if line.endswith(" products")}
    assert len(counts) == 10
    assert all(counts.values())  # the mode saw each of them multiply
    assert "computes in float32 (this CPU only emulates bfloat16)" in done.stdout


def test_a_run_says_and_records_its_precision_and_goes_on_in_another(
    small_dataset: Path, tmp_path: Path, train_here: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    arguments = ["mini", "--data", small_dataset, "--out", run, *TINY]

    def on(dtype: torch.dtype, reason: str) -> None:
        AcceleratorState._reset_state(reset_partial_state=True)  # as in a new process
        for module in ("train", "training.processes", "training.data"):
            monkeypatch.setattr(f"{module}.compute_precision", lambda *_: Precision(dtype, reason))

    on(torch.bfloat16, "this CPU multiplies in it")
    train_here(*arguments, "--max-steps", 4)
    assert "computes in bfloat16 (this CPU multiplies in it)" in capsys.readouterr().out
    assert json.loads((run / "begun.json").read_text())["precision"] == {"dtype": "bfloat16", "reason": "this CPU multiplies in it"}
    on(torch.float32, "this CPU only emulates bfloat16")
    train_here(*arguments, "--max-steps", 8, "--resume")
    out = capsys.readouterr().out
    assert f"{run} was begun in bfloat16 and goes on in float32. Its weights and optimizer are float32 in either" in out
    assert (run / "checkpoints" / "step-000008").exists()
    train_here(*arguments, "--max-steps", 8, "--resume", "--precision", "fp32")  # by name too
    assert json.loads((run / "begun.json").read_text())["precision"]["dtype"] == "bfloat16"  # what it was begun in
    with pytest.raises(train.RunStateError, match=r"precision: fp32 there, fp16 now|precision: auto there, fp16 now"):
        train.prepare(train.parse([*map(str, arguments), "--resume", "--precision", "fp16"]), run, train.TrainConfig.load(run / "config.json"), "x")
