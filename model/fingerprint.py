"""By which a network's weights are known again."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def add_weights(digest: Any, network: nn.Module) -> None:
    """Feed every tensor of the network, with its name, to a hash of hashlib."""
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
