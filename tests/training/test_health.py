import math

import pytest
import torch
from torch import nn

from training.health import NormStatistics, TrainingError, check_update
from training.run_state import Progress


def test_statistics_of_batch_normalisation_go_back_with_a_lost_update() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.GroupNorm(2, 4)).train()
    statistics = NormStatistics(network)
    network(torch.randn(8, 3, 2, 2))
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    statistics.keep()
    network(torch.full((8, 3, 2, 2), math.nan))
    assert not bool(network[1].running_mean.isfinite().all())
    statistics.restore()
    assert all(torch.equal(before[name], buffer) for name, buffer in network.named_buffers())
    assert int(network[1].num_batches_tracked) == 1


def test_ten_lost_updates_in_a_row_stop_a_run_with_a_diagnosis() -> None:
    network, progress = nn.Linear(2, 2), Progress()
    for number in range(9):
        assert not check_update(network, progress, torch.tensor(math.nan), math.nan, 1e-3, torch.bfloat16)
        assert progress.lost_in_a_row == number + 1
    assert check_update(network, progress, torch.tensor(1.0), 3.0, 1e-3, torch.bfloat16)
    assert (progress.lost_in_a_row, progress.lost_updates) == (0, 9)
    for _ in range(9):
        check_update(network, progress, torch.tensor(math.nan), math.inf, 1e-3, torch.bfloat16)
    with pytest.raises(TrainingError, match="10 updates in a row were lost up to step 0: the loss is no number, while all weights are"):
        check_update(network, progress, torch.tensor(math.nan), math.inf, 1e-3, torch.bfloat16)
    nn.init.constant_(network.bias, math.nan)
    with pytest.raises(TrainingError, match=r"weights are no longer numbers \(bias\)\. .* --precision bf16 has the range"):
        check_update(network, progress, torch.tensor(math.nan), math.inf, 1e-3, torch.float16)
