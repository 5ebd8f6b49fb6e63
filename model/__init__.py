"""The network alone: an image encoder feeding a transformer decoder with GIT's attention."""

from model.checkpoint import CheckpointError, load_model, save_model
from model.config import EncoderConfig, ModelConfig, PreprocessingConfig
from model.decoding import Hypothesis
from model.encoder import EncoderError
from model.network import IGNORED_LABEL, CaptionModel

__all__ = [
    "IGNORED_LABEL",
    "CaptionModel",
    "CheckpointError",
    "EncoderConfig",
    "EncoderError",
    "Hypothesis",
    "ModelConfig",
    "PreprocessingConfig",
    "load_model",
    "save_model",
]
