"""Captioners of others: BLIP and GIT as Hugging Face's transformers has them, to train through our loop and to write texts."""

from peers.captioner import PeerCaptioner, Written
from peers.files import Kind, is_peer, load_peer, peer_kind, peer_tokenizer
from peers.network import PeerConfig, PeerNetwork
from peers.scratch import Shape, build_peer

__all__ = [
    "Kind",
    "PeerCaptioner",
    "PeerConfig",
    "PeerNetwork",
    "Shape",
    "Written",
    "build_peer",
    "is_peer",
    "load_peer",
    "peer_kind",
    "peer_tokenizer",
]
