"""Checkpoint directories: finding them, reading what they hold, clearing what an earlier model left. Weights are read from safetensors alone."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
_WEIGHTS_INDEX = f"{WEIGHTS_FILE}.index.json"  # where Hugging Face's libraries split large weights
_PREPROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")

# tokenizers and settings that Hugging Face's libraries write beside weights, and what we do
_COMPANIONS = (
    *("generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt"),
    *("tokenizer.model", "chat_template.json", "chat_template.jinja", "familiarity.safetensors"),
)


class CheckpointError(ValueError):
    """A directory that is not a checkpoint, or a broken one; names the file and the remedy."""


def find_checkpoint(
    checkpoint: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """The directory of a checkpoint; a Hub id is downloaded, or found among earlier downloads, and standard error says so.

    Args:
        revision: of a Hub id: a branch, a tag or a commit.
        token: for one that is not public; by default the one that `hf auth login` has kept.
        cache_dir: where downloads are kept; by default where huggingface_hub keeps them.
        local_files_only: take what was downloaded before, and ask no server.

    Raises:
        CheckpointError: neither a directory nor a Hub id that can be had now.
    """
    name = str(checkpoint)
    if isinstance(checkpoint, Path) or Path(checkpoint).exists() or not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name):
        if revision is not None:
            raise CheckpointError(f"a revision belongs to a Hub id; {name} is a directory's name")
        return Path(checkpoint).expanduser()
    if Path(name).parent.is_dir():  # a slip of the pen, and not somebody's name on the Hub
        raise CheckpointError(f"{name} does not exist, though {Path(name).parent} does; check the name (ls {Path(name).parent})")
    among = "among earlier downloads" if local_files_only else "on the Hub"
    print(f"{name} is no directory here: looking it up {among}", file=sys.stderr)
    try:
        from huggingface_hub import snapshot_download

        wanted = ["*.json", "*.safetensors", "README.md"]
        about: dict[str, Any] = {"revision": revision, "token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
        return Path(snapshot_download(name, allow_patterns=wanted, **about))
    except Exception as error:  # the library's errors share no base with its HTTP client's
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{name} is not a directory here, and the Hub did not give it either ({first}). "
            "Check the path; a trained model is runs/NAME/model, the one in the box assets/mini-inverter"
        ) from error


def check_checkpoint(directory: Path) -> None:
    """
    Raises:
        CheckpointError: not a directory that holds a config and weights; says which file is missing and what to do.
    """
    if not directory.is_dir():
        raise CheckpointError(f"{directory} is not a directory; a checkpoint is one that holds {CONFIG_FILE}, {WEIGHTS_FILE} and tokenizer.json")
    if not (directory / CONFIG_FILE).is_file():
        raise CheckpointError(f"{directory} is not a Reprompt checkpoint: {CONFIG_FILE} is missing. A trained one is runs/NAME/model")
    if not (directory / WEIGHTS_FILE).is_file() and not (directory / _WEIGHTS_INDEX).is_file():
        pickled = sorted(path.name for path in directory.glob("*") if path.suffix in {".bin", ".pt", ".pth", ".ckpt"})
        hint = (
            f" ({', '.join(pickled)} would be unpickled code and is refused; save it again with save_pretrained, which writes safetensors)"
            if pickled
            else ""
        )
        raise CheckpointError(f"{directory} is not a Reprompt checkpoint: {WEIGHTS_FILE} is missing{hint}. A trained one is runs/NAME/model")


def read_weights(directory: Path) -> dict[str, Tensor]:
    """The tensors of model.safetensors, or where it is not there of the parts that an index names.

    Raises:
        CheckpointError: a file is missing or broken; names it.
    """
    index = directory / _WEIGHTS_INDEX
    names = [WEIGHTS_FILE] if (directory / WEIGHTS_FILE).is_file() else _parts(index)
    weights: dict[str, Tensor] = {}
    for name in names:
        if Path(name).suffix != ".safetensors" or Path(name).name != name:
            raise CheckpointError(f"{index} names {name}, which is not a safetensors file beside it; only those are read as weights")
        try:
            weights |= safetensors.torch.load_file(directory / name)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{directory / name} is broken ({error}); copy or export it again") from error
    return weights


def _parts(index: Path) -> list[str]:
    parts = read_json(index).get("weight_map")
    if not isinstance(parts, dict) or not parts or not all(isinstance(name, str) for name in parts.values()):
        raise CheckpointError(f"{index} names no weights: weight_map must say of each tensor in which file it is; copy it again")
    return sorted(set(parts.values()))


def clear_checkpoint(directory: Path) -> None:
    """Take away what libraries write for a model, so that nothing of a former one is taken for part of the next."""
    index = directory / _WEIGHTS_INDEX
    parts = [path.name for path in directory.glob("model-*-of-*.safetensors")]
    for name in (*parts, *_PREPROCESSOR_FILES, *_COMPANIONS):
        (directory / name).unlink(missing_ok=True)
    index.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """
    Raises:
        CheckpointError: missing, or not a JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON ({error}); copy it again from where the model came from") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds no JSON object; copy it again from where the model came from")
    return values


def read_preprocessor(directory: Path) -> dict[str, Any]:
    """The image processor's settings as transformers saves them; empty where there are none."""
    for name in _PREPROCESSOR_FILES:
        if (directory / name).is_file():
            values = read_json(directory / name)
            inner = values.get("image_processor", values)
            if not isinstance(inner, dict):
                raise CheckpointError(f"{directory / name}: image_processor is no object; copy it again from where the model came from")
            return dict(inner)
    return {}
