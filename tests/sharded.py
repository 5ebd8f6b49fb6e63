"""FSDP on two CPU processes against training on one; run under torchrun, prints a line of JSON for each way of sharding.

Accelerate shards with `fully_shard` as well, but on accelerators only.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
from examples import tiny_config
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard
from torch.optim.lr_scheduler import LambdaLR

from model import CaptionModel
from training.objective import CaptionLoss
from training.processes import follow_shards
from training.run_state import RunState


def build(sharded: str) -> tuple[CaptionLoss, torch.optim.Optimizer]:
    torch.manual_seed(0)
    objective = CaptionLoss(CaptionModel(tiny_config())).train()
    if sharded == "blocks":
        for block in objective.model.decoder.blocks:
            fully_shard(block)
    if sharded:
        fully_shard(objective)
        follow_shards(objective.model)
    return objective, torch.optim.AdamW(objective.parameters(), 1e-3)


def train(objective: CaptionLoss, optimizer: torch.optim.Optimizer, steps: int, rows: slice, processes: int) -> None:
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


def main() -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    mine = slice(4 * rank, 4 * rank + 4)
    reference = build("")
    train(*reference, 6, slice(None), 1)
    for sharded in ("whole", "blocks"):
        directory = [tempfile.mkdtemp()]
        dist.broadcast_object_list(directory)
        objective, optimizer = build(sharded)
        train(objective, optimizer, 3, mine, 2)
        RunState(objective, optimizer, LambdaLR(optimizer, lambda step: 1.0)).save(Path(directory[0]), keep=1, write=rank == 0)
        dist.barrier()
        objective, optimizer = build(sharded)  # the second half from the checkpoint
        RunState(objective, optimizer, LambdaLR(optimizer, lambda step: 1.0)).load(Path(directory[0]))
        train(objective, optimizer, 3, mine, 2)
        weights = get_model_state_dict(objective, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        if rank == 0:
            difference = max(float((tensor - weights[name]).abs().max()) for name, tensor in reference[0].state_dict().items())
            print(json.dumps({"sharded": sharded, "difference": difference}), flush=True)
    dist.destroy_process_group()


main()
