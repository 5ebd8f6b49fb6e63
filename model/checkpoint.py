"""A network on disk: `config.json` and `model.safetensors` in a directory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import safetensors.torch

from model.config import ModelConfig
from model.files import CONFIG_FILE, WEIGHTS_FILE, CheckpointError, check_checkpoint, clear_checkpoint, read_json, read_weights
from model.git import MODEL_TYPE
from model.network import CaptionModel


def save_model(model: CaptionModel, directory: Path) -> None:
    """Write config and weights; each file is written to a temporary name and renamed. Nothing of a former model stays in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    temporary = directory / f"{WEIGHTS_FILE}.tmp"
    safetensors.torch.save_file(weights, temporary, metadata={"format": "pt"})
    model.config.save(directory / f"{CONFIG_FILE}.tmp")
    shutil.copymode(directory / f"{CONFIG_FILE}.tmp", temporary)  # safetensors makes files that nobody else can read
    clear_checkpoint(directory)
    os.replace(temporary, directory / WEIGHTS_FILE)
    os.replace(directory / f"{CONFIG_FILE}.tmp", directory / CONFIG_FILE)


def load_model(directory: Path) -> CaptionModel:
    """Read what `save_model` wrote, or a GIT as Hugging Face saves it, in evaluation mode, in the precision it was stored in.

    Raises:
        CheckpointError: says which file is missing or broken and what to do.
    """
    check_checkpoint(directory)
    if read_json(directory / CONFIG_FILE).get("model_type") == MODEL_TYPE:
        return CaptionModel.from_git(directory)
    try:
        config = ModelConfig.load(directory / CONFIG_FILE)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    return CaptionModel.from_weights(config, read_weights(directory), directory / WEIGHTS_FILE)
