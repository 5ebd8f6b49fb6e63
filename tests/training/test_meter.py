import time
from collections import Counter

import pytest
import torch
from accelerate import Accelerator

from data.loading.examples import Batch
from training.meter import Meter
from training.run_state import Progress


def batch(pairs: int, tokens: int, texts: int = 2, **skipped: int) -> Batch:
    """Of so many texts, with several images each."""
    return Batch(torch.zeros(texts, 1, 3, 2, 2), torch.zeros(texts, 1), torch.zeros(texts, 1), tokens, pairs, Counter(skipped))


def test_what_is_read_is_what_was_seen_by_a_clock_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    meter, progress = Meter(Accelerator(cpu=True)), Progress(skipped={"damaged": 1})
    for losses, update in (((0.5, 1.5), [batch(6, 60), batch(6, 30, damaged=1)]), ((2.0,), [batch(8, 10, empty=2)])):
        meter.wait_begins()
        now[0] += 1.0
        meter.wait_ends(update)
        now[0] += 4.0
        for loss in losses:
            meter.add_loss(torch.tensor(loss, requires_grad=True))
    now[0] += 7.0  # an evaluation
    meter.pause(7.0)
    values = meter.read(progress)
    assert values["train/loss"] == pytest.approx(2.0)  # the mean of two updates' sums
    assert values["speed/images_per_second"] == pytest.approx(20 / 10)
    assert values["speed/updates_per_second"] == pytest.approx(2 / 10)
    assert values["speed/tokens_per_second"] == pytest.approx(100 / 10)
    assert values["speed/data_wait"] == pytest.approx(2 / 10)
    assert (progress.seen, progress.skipped) == (20, {"damaged": 2, "empty": 2})
    assert values["skipped/damaged"] == 2
    meter.wait_begins()
    meter.wait_ends([batch(1, 1)])
    now[0] += 1.0
    values = meter.read(progress)
    assert (values["speed/images_per_second"], values["speed/updates_per_second"]) == pytest.approx((1.0, 1.0))  # since the last reading
    assert progress.seen == 21
