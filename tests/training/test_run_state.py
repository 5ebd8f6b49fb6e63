import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from training.optimizer import warmup_cosine
from training.run_state import Progress, RunStateError, checkpoints, load_state, save_state


def parts(seed: int) -> tuple[nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    torch.manual_seed(seed)
    module = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    return module, optimizer, warmup_cosine(optimizer, warmup_steps=2, max_steps=20)


def advance(module: nn.Module, optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LambdaLR, steps: range) -> None:
    for step in steps:
        torch.manual_seed(step)  # as the training loop does
        module(torch.randn(4, 3)).square().mean().backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def test_saved_and_loaded_it_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    straight = parts(0)
    advance(*straight, range(4))
    save_state(tmp_path, Progress(4, 1.5), *straight, keep=2)
    advance(*straight, range(4, 7))
    resumed = parts(9)
    assert load_state(tmp_path, *resumed) == Progress(4, 1.5)
    advance(*resumed, range(4, 7))
    assert torch.equal(straight[0].weight, resumed[0].weight)
    assert straight[2].get_last_lr() == resumed[2].get_last_lr()


def test_only_the_last_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_state(tmp_path, Progress(step), *parts(0), keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000002", "step-000003"]


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path: Path) -> None:
    for step in (1, 2):
        save_state(tmp_path, Progress(step), *parts(step), keep=2)
    weights = tmp_path / "checkpoints" / "step-000002" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.warns(UserWarning, match="step-000002 is damaged"):
        assert load_state(tmp_path, *parts(7)).step == 1
    shutil.rmtree(tmp_path / "checkpoints" / "step-000001")
    with pytest.warns(UserWarning), pytest.raises(RunStateError, match="no checkpoint to resume"):
        load_state(tmp_path, *parts(7))


def test_a_full_disk_loses_no_earlier_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_state(tmp_path, Progress(1), *parts(1), keep=2)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RunStateError, match=r"disk is full: step 2 was not saved.*--resume"):
        save_state(tmp_path, Progress(2), *parts(2), keep=2)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000001"]
    assert load_state(tmp_path, *parts(3)).step == 1
