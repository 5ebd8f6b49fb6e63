"""One process or several: Accelerate, and what differs when weights are replicated or sharded."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

import accelerate
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, InitProcessGroupKwargs
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method

from core.device import compute_precision
from model.decoder import Block
from training.config import ConfigError
from training.networks import Network
from training.run_state import Stateful

_MIXED_PRECISION = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "no"}


def start_accelerator(asked: str, *, all_used: bool = True) -> Accelerator:
    """One process or several.

    Args:
        asked: a `TrainConfig.precision`.
        all_used: whether all that learns has a part in every batch; where not, processes ask each time which had none.

    Raises:
        ConfigError: float16 without a GPU, where Accelerate has no scaler for its gradients.
    """
    cpu = not torch.accelerator.is_available()  # said outright: under torchrun on CPUs, Accelerate would not join the processes
    if asked == "fp16" and cpu:
        raise ConfigError("precision fp16 needs a GPU, since Accelerate scales no gradients on a CPU; leave it out, or use bf16 or fp32")
    device = torch.device("cpu") if cpu else torch.device(torch.accelerator.current_accelerator() or "cpu")
    # the others wait while the first one makes data, learns a tokenizer, computes features or writes the report
    patience = InitProcessGroupKwargs(timeout=timedelta(days=1))
    return Accelerator(
        mixed_precision=_MIXED_PRECISION[compute_precision(device, asked).dtype],
        cpu=cpu,
        kwargs_handlers=[patience, DistributedDataParallelKwargs(find_unused_parameters=not all_used)],
    )


def is_sharded(accelerator: Accelerator) -> bool:
    return bool(accelerator.distributed_type == DistributedType.FSDP)


def whole_network(model: Network, accelerator: Accelerator) -> Network | None:
    """The network to evaluate and export, on the main process; None on others, all of which must call this."""
    if not is_sharded(accelerator):
        return model if accelerator.is_main_process else None
    weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if not accelerator.is_main_process:
        return None
    return model.with_weights(cast(dict[str, Tensor], weights)).to(accelerator.device)


def agree(value: bool) -> bool:
    """What the main process says."""
    decision = [value]
    accelerate.utils.broadcast_object_list(decision)
    return decision[0]


def follow_shards(model: nn.Module) -> None:
    """Where FSDP shards the decoder block by block, let it gather weights for `project` and `finish` as it does for `forward`."""
    for block in model.modules():
        if isinstance(block, Block) and isinstance(block, FSDPModule):
            register_fsdp_forward_method(block, "project")
            register_fsdp_forward_method(block, "finish")


class Gathered:
    """The state of something that every process has for itself, in one checkpoint."""

    def __init__(self, own: Stateful, accelerator: Accelerator) -> None:
        self.own = own
        self.accelerator = accelerator

    def state_dict(self) -> dict[str, Any]:
        """Every process calls this."""
        return {"processes": accelerate.utils.gather_object([self.own.state_dict()])}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.own.load_state_dict(state["processes"][self.accelerator.process_index])
