"""What two CPU processes do together; run under torchrun, once, since starting them takes longer than all of it.

Trains by train.py as each of the argument lists in a JSON file asks. Then FSDP against training on one process: prints a line of JSON for each way of
sharding. Accelerate shards with `fully_shard` as well, but on accelerators only.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import torch
import torch.distributed as dist
from examples import tiny_config
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard
from torch.optim.lr_scheduler import LambdaLR

import train
from model import CaptionModel
from training.config import OptimizerName
from training.objective import CaptionLoss
from training.optimizer import build_optimizer
from training.processes import follow_shards
from training.run_state import RunState
from training.running_mean import RunningMean


def build(sharded: str, optimizer: OptimizerName) -> tuple[CaptionLoss, torch.optim.Optimizer]:
    torch.manual_seed(0)
    objective = CaptionLoss(CaptionModel(tiny_config())).train()
    model = objective.model
    if sharded == "blocks":
        for block in model.decoder.blocks:
            fully_shard(block)
    if sharded:
        fully_shard(objective)
        follow_shards(model)
    return objective, build_optimizer(optimizer, model.encoder, model.decoder, learning_rate=1e-3, encoder_rate=1.0, weight_decay=0.05)


def update(objective: CaptionLoss, optimizer: torch.optim.Optimizer, average: RunningMean, steps: int, rows: slice, processes: int) -> None:
    generator = torch.Generator().manual_seed(3)
    pixels, ids = torch.randn(8, 3, 32, 32, generator=generator), torch.randint(3, 20, (8, 6), generator=generator)
    labels = ids.clone()
    labels[::3, 4:] = -100  # the processes have different numbers of tokens
    for _ in range(steps):
        loss = objective(pixels[rows], ids[rows], labels[rows]) * processes / int((labels != -100).sum())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update(objective.model)


def shard(by: OptimizerName) -> None:
    rank = dist.get_rank()
    mine = slice(4 * rank, 4 * rank + 4)
    reference = build("", by)
    mean = RunningMean(reference[0].model, 0.6)
    update(*reference, mean, 6, slice(None), 1)
    for sharded in ("whole", "blocks"):
        directory = [tempfile.mkdtemp()]
        dist.broadcast_object_list(directory)
        for half in (1, 2):  # the second one from the checkpoint
            objective, optimizer = build(sharded, by)
            average = RunningMean(objective.model, 0.6)
            state = RunState(objective, optimizer, LambdaLR(optimizer, lambda step: 1.0), average=average)
            if half == 2:
                state.load(Path(directory[0]))
            update(objective, optimizer, average, 3, mine, 2)
            if half == 1:
                state.save(Path(directory[0]), keep=1, write=rank == 0)
                dist.barrier()
        whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights, means = get_model_state_dict(objective, options=whole), average.state_dict()
        with average.in_place(objective.model):
            shown = get_model_state_dict(objective.model, options=whole)
        if rank == 0:
            found = {"weights": distance(reference[0].state_dict(), weights), "mean": distance(mean.state_dict(), means)}
            found |= {"shown": distance(mean.means, shown), "moved": distance(mean.means, dict(reference[0].model.named_parameters()))}
            print(json.dumps({"optimizer": by, "sharded": sharded} | found), flush=True)


def distance(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    return max(float((tensor - other[name]).detach().abs().max()) for name, tensor in one.items())


if __name__ == "__main__":
    for arguments in json.loads(Path(sys.argv[1]).read_text()):
        train.main(train.parse(arguments))
        train._compare = lambda *_: ({}, "")
        train._learn_certainty = lambda *_: None  # once is enough
    for name in get_args(OptimizerName):
        shard(name)
    dist.barrier()
    sys.stdout.flush()
    # the threads of gloo that FSDP leaves behind may break a process at its interpreter's exit ("terminate called without an active exception")
    os._exit(0)
