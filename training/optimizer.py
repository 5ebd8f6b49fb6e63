"""AdamW with parameter groups, and its learning-rate schedule."""

from __future__ import annotations

import math
import re

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

_LEARNT_INPUT = re.compile("pos|token|embedding")  # in a parameter's own name, where timm's models and ours have such


def build_optimizer(encoder: nn.Module, decoder: nn.Module, *, learning_rate: float, encoder_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Four groups: encoder and decoder, each with and without weight decay.

    Biases, norms (all that is not a matrix or a kernel), tokens that are learnt (class, registers) and embeddings of tokens, positions and frames are
    not decayed. The encoder learns at `encoder_rate` times the decoder's rate.
    """
    groups = []
    for name, module, rate in (("encoder", encoder, learning_rate * encoder_rate), ("decoder", decoder, learning_rate)):
        decayed, others = _by_decay(module)
        groups.append({"params": decayed, "lr": rate, "weight_decay": weight_decay, "name": f"{name}/decayed"})
        groups.append({"params": others, "lr": rate, "weight_decay": 0.0, "name": f"{name}/others"})
    return torch.optim.AdamW([group for group in groups if group["params"]], betas=(0.9, 0.98), eps=1e-6, fused=True)


def _by_decay(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    embeddings = {id(layer.weight) for layer in module.modules() if isinstance(layer, nn.Embedding)}
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        matrix = parameter.squeeze().ndim >= 2 and id(parameter) not in embeddings and not _LEARNT_INPUT.search(name.rsplit(".", 1)[-1])
        (decayed if matrix else others).append(parameter)
    return decayed, others


def warmup_cosine(optimizer: torch.optim.Optimizer, *, warmup_steps: int, max_steps: int) -> LambdaLR:
    """Linear warmup to the peak at `warmup_steps`, then half a cosine down to nothing at `max_steps`."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        done = (step - warmup_steps) / max(1, max_steps - warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return LambdaLR(optimizer, factor)
