"""AdamW or Muon with parameter groups, and the learning-rate schedule."""

from __future__ import annotations

import math
import re

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from training.config import OptimizerName
from training.muon import BatchedMuon

_LEARNT_INPUT = re.compile("pos|token|embedding")  # in a parameter's own name, where timm's models and ours have such


def build_optimizer(
    name: OptimizerName,
    encoder: nn.Module,
    decoder: nn.Module,
    *,
    learning_rate: float,
    encoder_rate: float,
    weight_decay: float,
    dtype: torch.dtype = torch.float32,
) -> torch.optim.Optimizer:
    """Groups of encoder and decoder, each with and without weight decay, and with Muon each with what that moves.

    Biases, norms (all that is not a matrix or a kernel), tokens that are learnt (class, registers) and embeddings of tokens, positions and frames are
    not decayed. The encoder learns at `encoder_rate` times the decoder's rate.

    Muon (Jordan et al., 2024, "Muon: An optimizer for hidden layers in neural networks") moves matrices and kernels, flattened, by their momentum
    made orthogonal. Its updates are scaled to the size of AdamW's (Liu et al., 2025, "Muon is scalable for LLM training", section 2.2), so that rate
    and decay mean the same; AdamW moves the rest.

    Args:
        dtype: that Muon makes matrices orthogonal in.
    """
    groups = []
    for part, module, rate in (("encoder", encoder, learning_rate * encoder_rate), ("decoder", decoder, learning_rate)):
        decayed, others = _by_decay(module)
        # kernels of one channel each are no matrices
        by_muon = [name == "muon" and parameter.shape[1] > 1 for parameter in decayed]
        orthogonal = [parameter for parameter, moved in zip(decayed, by_muon, strict=True) if moved]
        decayed = [parameter for parameter, moved in zip(decayed, by_muon, strict=True) if not moved]
        groups += [
            {"name": f"{part}/orthogonal", "params": orthogonal, "lr": rate, "weight_decay": weight_decay, "use_muon": True, "nesterov": True},
            {"name": f"{part}/decayed", "params": decayed, "lr": rate, "weight_decay": weight_decay},
            {"name": f"{part}/others", "params": others, "lr": rate, "weight_decay": 0.0},
        ]
    groups = [group for group in groups if group["params"]]
    betas, eps = (0.9, 0.98), 1e-6
    if name == "adamw":
        return torch.optim.AdamW(groups, betas=betas, eps=eps, fused=True)
    return BatchedMuon([{"use_muon": False, "nesterov": False} | group for group in groups], betas=betas, eps=eps, dtype=dtype)


def _by_decay(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    embeddings = {id(layer.weight) for layer in module.modules() if isinstance(layer, nn.Embedding)}
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        matrix = sum(size > 1 for size in parameter.shape) >= 2
        learnt_input = id(parameter) in embeddings or _LEARNT_INPUT.search(name.rsplit(".", 1)[-1])
        (decayed if matrix and not learnt_input else others).append(parameter)
    return decayed, others


def warmup_cosine(optimizer: torch.optim.Optimizer, *, warmup_steps: int, max_steps: int) -> LambdaLR:
    """Linear warmup to the peak at `warmup_steps`, then half a cosine down to nothing at `max_steps`."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        done = (step - warmup_steps) / max(1, max_steps - warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return LambdaLR(optimizer, factor)
