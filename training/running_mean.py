"""A running mean of the weights, which generalises better than the last ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


class RunningMean:
    """An exponential moving average of a network's parameters; of sharded ones (DTensor) each process keeps its shards.

    Of update n it keeps min(decay, (1 + n) / (10 + n)) of itself, as TensorFlow's ExponentialMovingAverage does: with the decay alone, 0.9998 say, a
    thousand updates later four fifths of it would still be the random weights of the beginning.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.means = {name: parameter.detach().clone() for name, parameter in network.named_parameters() if parameter.requires_grad}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take the network's weights in, once after every update."""
        self.updates += 1
        kept = min(self.decay, (1 + self.updates) / (10 + self.updates))
        means, weights = self._beside(network)
        torch._foreach_lerp_(means, weights, 1 - kept)

    @contextmanager
    def in_place(self, network: nn.Module) -> Iterator[None]:
        """The network has the mean for weights inside the `with` block."""
        self._exchange(network)
        try:
            yield
        finally:
            self._exchange(network)

    @torch.no_grad()
    def _exchange(self, network: nn.Module) -> None:
        for mean, weight in zip(*self._beside(network), strict=True):
            before = weight.clone()
            weight.copy_(mean)
            mean.copy_(before)

    def _beside(self, network: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
        weights = dict(network.named_parameters())
        return list(self.means.values()), [weights[name].detach() for name in self.means]

    def state_dict(self) -> dict[str, Tensor]:
        """Whole tensors on the CPU, by the parameters' names. Every process calls this."""
        whole = {name: mean.full_tensor() if isinstance(mean, DTensor) else mean for name, mean in self.means.items()}
        return {name: mean.cpu() for name, mean in whole.items()} | {"updates": torch.tensor(self.updates)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.updates = int(state["updates"])
        for name, mean in self.means.items():
            whole = state[name].to(mean.device)
            mean.copy_(distribute_tensor(whole, mean.device_mesh, mean.placements) if isinstance(mean, DTensor) else whole)
