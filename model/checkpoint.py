"""A network on disk: `config.json` and `model.safetensors` in a directory. Nothing else is ever read as weights."""

from __future__ import annotations

import os
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError

from model.config import ModelConfig
from model.network import CaptionModel

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"


class CheckpointError(ValueError):
    """A directory that is not a checkpoint of ours, or a broken one; names the file and the remedy."""


def save_model(model: CaptionModel, directory: Path) -> None:
    """Write config and weights; each file is written to a temporary name and renamed."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    temporary = directory / f"{WEIGHTS_FILE}.tmp"
    safetensors.torch.save_file(weights, temporary, metadata={"format": "pt"})
    os.replace(temporary, directory / WEIGHTS_FILE)
    model.config.save(directory / f"{CONFIG_FILE}.tmp")
    os.replace(directory / f"{CONFIG_FILE}.tmp", directory / CONFIG_FILE)


def load_model(directory: Path) -> CaptionModel:
    """Read what `save_model` wrote, in evaluation mode, in the precision it was stored in.

    Raises:
        CheckpointError: says which file is missing or broken and what to do.
    """
    if not directory.is_dir():
        raise CheckpointError(f"{directory} is not a directory; a checkpoint is one that holds {CONFIG_FILE}, {WEIGHTS_FILE} and tokenizer.json")
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (directory / name).is_file():
            pickled = sorted(path.name for path in directory.glob("*") if path.suffix in {".bin", ".pt", ".pth", ".ckpt"})
            hint = f" ({', '.join(pickled)} would be unpickled code and is refused)" if pickled and name == WEIGHTS_FILE else ""
            raise CheckpointError(f"{directory} is not a Reprompt checkpoint: {name} is missing{hint}. A trained one is runs/NAME/model")
    try:
        config = ModelConfig.load(directory / CONFIG_FILE)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    model = CaptionModel(config)
    try:
        weights = safetensors.torch.load_file(directory / WEIGHTS_FILE)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{directory / WEIGHTS_FILE} is broken ({error}); copy or export it again") from error
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{directory / WEIGHTS_FILE} does not fit {CONFIG_FILE} beside it: {error}") from error
    dtypes = {tensor.dtype for tensor in weights.values() if tensor.is_floating_point()}
    if len(dtypes) == 1:
        model.to(dtypes.pop())
    return model.eval()
