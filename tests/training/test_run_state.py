import shutil
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import nn

from training.config import OptimizerName
from training.optimizer import build_optimizer, warmup_cosine
from training.run_directory import RunStateError, checkpoints
from training.run_state import FullDiskError, Progress, RunState
from training.running_mean import RunningMean


def state(seed: int, *, average: bool = False, optimizer: OptimizerName = "adamw") -> RunState:
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    built = build_optimizer(optimizer, module, nn.Module(), learning_rate=0.1, encoder_rate=1.0, weight_decay=0.01)
    mean = RunningMean(module, 0.9) if average else None
    return RunState(module, built, warmup_cosine(built, warmup_steps=2, max_steps=20), average=mean)


def advance(state: RunState, steps: int) -> None:
    for _ in range(steps):
        torch.manual_seed(state.progress.step)  # as the training loop does
        state.module(torch.randn(4, 3)).square().mean().backward()
        state.optimizer.step()
        state.schedule.step()
        state.optimizer.zero_grad()
        if state.average is not None:
            state.average.update(state.module)
        state.progress.step += 1


def assert_equal(one: RunState, other: RunState) -> None:
    pairs: list[tuple[Any, Any]] = [(one.module, other.module)]
    pairs += [(one.average, other.average)] if one.average is not None and other.average is not None else []
    for mine, theirs in pairs:
        for name, tensor in mine.state_dict().items():
            assert torch.equal(tensor, theirs.state_dict()[name]), name
    assert one.schedule.get_last_lr() == other.schedule.get_last_lr()
    assert one.progress == other.progress


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("optimizer", get_args(OptimizerName))
def test_saved_and_loaded_it_goes_on_as_if_nothing_had_happened(tmp_path: Path, average: bool, optimizer: OptimizerName) -> None:
    straight = state(0, average=average, optimizer=optimizer)
    advance(straight, 4)
    straight.progress = Progress(4, 1.5, 2, 1, 0, 40, {"empty prompt": 2})
    straight.save(tmp_path, keep=2)
    advance(straight, 3)
    resumed = state(9, average=average, optimizer=optimizer)
    resumed.load(tmp_path)
    assert resumed.progress == Progress(4, 1.5, 2, 1, 0, 40, {"empty prompt": 2})
    advance(resumed, 3)
    assert_equal(straight, resumed)


def test_only_the_last_and_the_best_are_kept(tmp_path: Path) -> None:
    run = state(0)
    for step in range(1, 6):
        run.progress.step = step
        run.progress.best_step = 1 if step < 3 else 2
        run.save(tmp_path, keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000002", "step-000004", "step-000005"]


def test_what_a_killed_process_left_is_removed_and_never_taken_for_a_checkpoint(tmp_path: Path) -> None:
    run = state(0)
    left = tmp_path / "checkpoints" / "step-000009.1234.tmp"
    left.mkdir(parents=True)
    assert checkpoints(tmp_path) == []
    run.save(tmp_path, keep=2)
    assert not left.exists()


@pytest.mark.parametrize("file", ["model.safetensors", "loop.pt", "average.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "empty", "gone"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path: Path, file: str, damage: str) -> None:
    run = state(1, average=True)
    for _ in range(2):
        advance(run, 1)
        run.save(tmp_path, keep=2)
    path = tmp_path / "checkpoints" / "step-000002" / file
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-50] if damage == "cut" else b"")
    resumed = state(7, average=True)
    with pytest.warns(UserWarning, match="step-000002 is damaged"):
        resumed.load(tmp_path)
    assert resumed.progress.step == 1
    advance(resumed, 1)
    assert_equal(resumed, run)
    shutil.rmtree(tmp_path / "checkpoints" / "step-000001")
    with pytest.warns(UserWarning), pytest.raises(RunStateError, match="no checkpoint to resume"):
        state(7, average=True).load(tmp_path)


def test_a_full_disk_loses_no_earlier_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = state(1)
    advance(run, 1)
    run.save(tmp_path, keep=2)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    advance(run, 1)
    with pytest.raises(FullDiskError, match="disk is full: step-000002 was not saved"):
        run.save(tmp_path, keep=2)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000001"]
    monkeypatch.undo()
    resumed = state(3)
    resumed.load(tmp_path)
    assert resumed.progress.step == 1
    run.save(tmp_path, keep=2)  # space again
    assert len(checkpoints(tmp_path)) == 2
