"""Parts of a network that what it is used for does not need."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def drop_unused(network: nn.Module, run: Callable[[nn.Module, Tensor], Any], pixel_values: Tensor) -> Any:
    """Take away the modules that have no part in the first result of `run`, and stop single weights that have none from learning.

    timm's models bring poolings, heads and later stages along that features do not go through. Their weights would get no gradient, on which
    DistributedDataParallel ends, and be stored, counted and decayed for nothing.

    Args:
        run: what the network is used for, of the network and pixel values.
        pixel_values: some.

    Returns:
        What `run` gives.
    """
    try:  # without storage it costs nothing
        result, used = _used(copy.deepcopy(network).to("meta"), run, pixel_values.to("meta"))
    except RuntimeError:  # tensors that are no buffers stay where they are; some operations have no such version
        result, used = _used(copy.deepcopy(network), run, pixel_values)
    for name, parameter in network.named_parameters():
        if name not in used:
            parameter.requires_grad_(False)
    _drop(network, "", used)
    return result


def _used(trial: nn.Module, run: Callable[[nn.Module, Tensor], Any], pixel_values: Tensor) -> tuple[Any, set[str]]:
    """What `run` gives, and the names of the parameters that have a part in it."""
    trial.eval()
    for parameter in trial.parameters():
        parameter.requires_grad_(True)
    with torch.enable_grad():
        result = run(trial, pixel_values)
    if not isinstance(result, Tensor):
        return result, {name for name, _ in trial.named_parameters()}
    reached, ahead = set[Any](), [result.grad_fn]
    while ahead:  # along the way that gradients would take
        if (step := ahead.pop()) is not None and step not in reached:
            reached.add(step)
            ahead += [before for before, _ in step.next_functions]
    learning = {id(step.variable) for step in reached if hasattr(step, "variable")}
    return result.detach(), {name for name, parameter in trial.named_parameters() if id(parameter) in learning}


def _drop(network: nn.Module, prefix: str, used: set[str]) -> None:
    for name, child in list(network.named_children()):
        path = f"{prefix}{name}."
        weights = [path + weight for weight, _ in child.named_parameters()]
        if weights and used.isdisjoint(weights):
            setattr(network, name, nn.Identity())
        else:
            _drop(child, path, used)
