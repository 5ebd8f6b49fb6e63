"""Minutes are measured: a device that takes twice as long is given twice as many."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from commands import TINY

import train
from training import time_left
from training.meter import Meter
from training.run_state import Progress


class Clock:
    """Time that passes with updates alone."""

    def __init__(self, seconds: float) -> None:
        self.now, self.seconds = 0.0, seconds

    def perf_counter(self) -> float:
        return self.now


@pytest.mark.parametrize("seconds", [0.5, 4.0])
def test_what_training_takes_follows_what_an_update_took(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(seconds)
    build = time_left.build_optimizer

    def slow(*arguments: object, **options: object) -> torch.optim.Optimizer:
        optimizer = build(*arguments, **options)  # type: ignore[arg-type]
        optimizer.register_step_post_hook(lambda *_: setattr(clock, "now", clock.now + clock.seconds))
        return optimizer

    monkeypatch.setattr(time_left, "build_optimizer", slow)
    monkeypatch.setattr(time_left, "time", clock)
    config = train.parse(["mini", *TINY, "--max-steps", "100"])
    end = time_left.seconds_of_end(config, seconds)
    assert end > time_left.seconds_of_end(config, 0.0) > 0
    assert time_left.seconds_of_training(config, torch.device("cpu")) == pytest.approx(100 * seconds + end)
    longer = dataclasses.replace(config, max_steps=300)
    assert time_left.seconds_of_training(longer, torch.device("cpu")) == pytest.approx(300 * seconds + end)


def test_the_meter_counts_all_updates_and_no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import Accelerator

    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    meter, progress = Meter(Accelerator(cpu=True)), Progress()
    for seconds in (2.0, 4.0):
        for _ in range(5):
            meter.wait_begins()
            meter.wait_ends([])
            now[0] += seconds
        now[0] += 60.0
        meter.pause(60.0)
        meter.read(progress)
    assert meter.seconds_left(10) == pytest.approx(30.0)


def test_rendering_is_told_how_long_the_rest_will_take(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands: list[list[str]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "seconds_of_training", lambda *_: 634.4)
    monkeypatch.setattr(train.subprocess, "run", lambda command, **_: commands.append(command) or SimpleNamespace(returncode=0))
    train._prepare_data(train.parse([]), torch.device("cpu"))
    assert "--seconds-after=634" in commands[0]
    assert "training and the comparison after it will take about 11 min" in capsys.readouterr().out
