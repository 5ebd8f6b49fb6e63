"""The network alone: an image encoder feeding a transformer decoder with GIT's attention."""

from model.checkpoint import load_model, save_model
from model.config import EncoderConfig, ModelConfig
from model.decoding import Hypothesis, NotFiniteError
from model.encoder import EncoderError, pretrained_preprocessing
from model.files import CheckpointError, find_checkpoint
from model.network import IGNORED_LABEL, CaptionModel
from model.preprocessing import Preprocessing

__all__ = [
    "IGNORED_LABEL",
    "CaptionModel",
    "CheckpointError",
    "EncoderConfig",
    "EncoderError",
    "Hypothesis",
    "ModelConfig",
    "NotFiniteError",
    "Preprocessing",
    "find_checkpoint",
    "load_model",
    "pretrained_preprocessing",
    "save_model",
]
