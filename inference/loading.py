"""Any captioner from its directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import torch

from core.device import weights_precision
from inference import DEFAULT_CHECKPOINT
from inference.inverter import PromptInverter, torch_device
from inference.peer import PeerInverter
from model import find_checkpoint
from model.familiarity import Familiarity
from peers import PeerCaptioner, is_peer, peer_kind

Inverter: TypeAlias = PromptInverter | PeerInverter


def load_inverter(
    checkpoint: str | Path = DEFAULT_CHECKPOINT,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    **hub: Any,
) -> Inverter:
    """What `PromptInverter.from_pretrained` loads, or one of Hugging Face's BLIP.

    Raises:
        As `PromptInverter.from_pretrained`; MissingExtraError: BLIP without transformers.
    """
    directory = find_checkpoint(checkpoint, **hub)
    if not is_peer(directory):
        return PromptInverter.from_pretrained(directory, device=device, dtype=dtype)
    place = torch_device(device)
    kind = weights_precision(place, dtype).dtype
    captioner = PeerCaptioner.load(peer_kind(str(directory)), str(directory), place)  # type: ignore[arg-type]
    familiarity = Familiarity.load(directory)
    captioner.network.to(kind)
    return PeerInverter(captioner, familiarity)
