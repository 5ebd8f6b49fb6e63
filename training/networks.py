"""What the training loop trains."""

from __future__ import annotations

from typing import TypeAlias

from model import CaptionModel
from peers import PeerNetwork

Network: TypeAlias = CaptionModel | PeerNetwork
