"""train.py on two processes, and killed at any moment."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import safetensors.torch
import torch
from commands import BRIEF, ROOT, TINY, TINY_VIT, command, run_on_two_processes
from examples import write_dataset
from gits import save_git
from left_by_runs import curve, weights

from data.loading.joint import JointBatches
from data.loading.order import ShuffledBatches
from model import load_model
from training.run_directory import checkpoints

pytestmark = pytest.mark.slow

SHARED = [*TINY_VIT, "--precision", "fp32", "--max-steps", 10, "--ema-decay", 0.9]


@pytest.fixture(scope="module")
def two_processes(trained: tuple[Path, Path, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Where they trained, and the lines that they printed."""
    out = tmp_path_factory.mktemp("two")
    save_git(out / "git", num_image_with_embedding=3)
    begin = ["mini", "--data", trained[0], "--out"]
    short = ["--precision", "fp32", "--max-steps", 3]
    runs = [
        [*begin, out / "two", *SHARED, "--batch-size", 4, "--accumulate", 2],
        [*begin, out / "vit3", *TINY_VIT, *short, "--model.encoder", "test_vit3"],
        [*begin, out / "convnext", *TINY_VIT, *short, "--model.encoder", "test_convnext", "--model.encoder-arguments", "drop_rate=0.0"],
        [*begin, out / "frames", *BRIEF, *short, "--init", out / "git"],
    ]
    (out / "runs.json").write_text(json.dumps([list(map(str, run)) for run in runs]))
    return out, run_on_two_processes("tests/two_processes.py", out / "runs.json", cwd=ROOT).splitlines()


def test_processes_and_accumulation_train_what_one_large_batch_trains(
    trained: tuple[Path, Path, str], two_processes: tuple[Path, list[str]], tmp_path: Path, train_here: Callable[..., None]
) -> None:
    """2 processes x 2 accumulated batches of 4 pairs and 1 x 16: the same loss curve, the same weights; the prompts differ in length."""
    train_here("mini", "--data", trained[0], *SHARED, "--out", tmp_path / "one")
    two, lines = two_processes
    assert sum(line.startswith(f"report        {two / 'two'}/") for line in lines) == 1
    for name in ("train/loss", "train/gradient_norm", "validation/loss"):
        assert curve(two / "two", name) == pytest.approx(curve(tmp_path / "one", name), rel=1e-5)
    ours, theirs = weights(tmp_path / "one", 10), weights(two / "two", 10)
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-5
    exported = [safetensors.torch.load_file(run / "model" / "model.safetensors") for run in (tmp_path / "one", two / "two")]
    assert max(float((exported[0][name] - exported[1][name]).abs().max()) for name in exported[0]) < 1e-5
    moved = [float((exported[0][name] - ours[f"model.{name}"]).abs().max()) for name in exported[0]]
    assert max(moved) > 1e-4  # the running mean was exported, not the last weights


@pytest.mark.parametrize("run", ["vit3", "convnext", "frames"])
def test_any_encoder_trains_on_several_processes(two_processes: tuple[Path, list[str]], run: str) -> None:
    """Their timm models bring weights that features do not go through (poolings, heads), and GIT embeddings of frames: none of them may wait for a
    gradient."""
    directory, _ = two_processes
    trained, model = weights(directory / run, 3), load_model(directory / run / "model")
    assert trained.keys() == {f"model.{name}" for name in model.state_dict()}
    frames = trained.get("model.encoder.frame_embedding")
    assert (frames is not None) == (run == "frames")
    if frames is not None:
        assert torch.equal(frames, load_model(directory / "git").state_dict()["encoder.frame_embedding"])  # kept as it was
    assert not any("attn_pool" in name or "head" in name for name in trained)


def test_images_of_a_prompt_are_trained_on_together_on_several_processes(tmp_path: Path, train_here: Callable[..., None]) -> None:
    """As on one with twice the batch. Of the two batches of an update both, one or neither may show several images: embeddings of frames wait for a
    gradient in none, and lose none."""
    data = write_dataset(tmp_path / "data", 240, images_per_prompt=3)
    begin = ["mini", "--data", data, *SHARED, "--joint", 3, "--accumulate", 2]
    (tmp_path / "runs.json").write_text(json.dumps([list(map(str, [*begin, "--batch-size", 4, "--out", tmp_path / "two"]))]))
    run_on_two_processes("tests/two_processes.py", tmp_path / "runs.json", cwd=ROOT)
    train_here(*begin, "--batch-size", 8, "--out", tmp_path / "one")
    drawn = islice(JointBatches(ShuffledBatches(9, 1, seed=0), range(9), range(1, 4)), 20)
    several = [len(batch[0]) > 1 for batch in drawn]
    assert len(set(zip(several[::2], several[1::2], strict=True))) == 4
    for name in ("train/loss", "train/gradient_norm", "validation/loss"):
        assert curve(tmp_path / "two", name) == pytest.approx(curve(tmp_path / "one", name), rel=1e-5)
    ours, theirs = weights(tmp_path / "one", 10), weights(tmp_path / "two", 10)
    assert ours.keys() == theirs.keys()
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-5
    assert all(float(one.abs().max()) > 1e-4 for one in theirs["model.encoder.frame_embedding"])  # from nothing


def test_sharded_training_is_equal(two_processes: tuple[Path, list[str]]) -> None:
    """FSDP on two processes against one; by hand, since Accelerate offers FSDP on accelerators alone."""
    found = [json.loads(line) for line in two_processes[1] if line.startswith("{")]
    assert [(one["optimizer"], one["sharded"]) for one in found] == [(by, how) for by in ("adamw", "muon") for how in ("whole", "blocks")]
    assert all(one[name] < 1e-5 for one in found for name in ("weights", "mean", "shown"))
    assert all(one["moved"] > 1e-4 for one in found)


def last_step(run_directory: Path) -> int:
    return max((int(path.name.removeprefix("step-")) for path in checkpoints(run_directory)), default=0)


def interrupt(arguments: list[object], out: Path, number: int, after: int, delay: float) -> None:
    """Start or go on, and send `number` to the command and its workers, as `timeout`, Slurm and systemd do, so many seconds after there are so many
    more checkpoints; it must arrive while steps are left."""
    resume = ["--resume"] if (out / "begun.json").exists() else []
    target = last_step(out) + after
    process = command("train.py", *arguments, "--out", out, *resume)
    while process.poll() is None and last_step(out) < target:
        time.sleep(0.01)
    time.sleep(delay)
    os.killpg(process.pid, number)
    err = process.communicate(timeout=100)[1]
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL, err
    else:
        assert process.returncode == 1, err
        assert re.search(rf"stopped after step \d+; go on with: python \S*train\.py mini .* --out {re.escape(str(out))} .*--resume", err), err
        assert "Traceback" not in err


def check_interruptions(data: Path, tmp_path: Path, train_here: Callable[..., None], signals: list[int], steps: int) -> None:
    # a checkpoint after every step, so that many signals arrive in the middle of one
    arguments = ["mini", "--data", data, *TINY, "--max-steps", steps, "--save-every", 1, "--ema-decay", 0.9, "--model.dropout", 0.1]
    arguments += ["--accumulate", 2, "--batch-size", 4, "--workers", 1, "--optimizer", "muon"]
    train_here(*arguments, "--out", tmp_path / "whole")
    draw = random.Random(0)
    for number in signals:
        interrupt(arguments, tmp_path / "parts", number, draw.randint(1, steps // len(signals) // 2), draw.uniform(0, 0.1))
    assert 0 < last_step(tmp_path / "parts") < steps
    train_here(*arguments, "--out", tmp_path / "parts", "--resume")
    for file in ("checkpoints/{}/model.safetensors", "checkpoints/{}/average.safetensors", "model/model.safetensors"):
        ends = [safetensors.torch.load_file(tmp_path / name / file.format(f"step-{steps:06d}")) for name in ("whole", "parts")]
        assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_killed_and_stopped_it_resumes_to_the_same_weights(trained: tuple[Path, Path, str], tmp_path: Path, train_here: Callable[..., None]) -> None:
    check_interruptions(trained[0], tmp_path, train_here, [signal.SIGKILL, signal.SIGTERM], steps=60)


def test_killed_many_times_it_resumes_to_the_same_weights(trained: tuple[Path, Path, str], tmp_path: Path, train_here: Callable[..., None]) -> None:
    check_interruptions(trained[0], tmp_path, train_here, [signal.SIGKILL] * 8 + [signal.SIGTERM, signal.SIGINT] + [signal.SIGKILL] * 2, steps=400)
