"""Directories as transformers writes them: reading them whole, and writing them."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from tokenizers import Tokenizer

from data.errors import MissingExtraError
from model import CheckpointError
from model.files import CONFIG_FILE, clear_checkpoint, read_json
from tokenizer import PromptTokenizer, TokenizerError

Kind = Literal["blip", "git", "blip-2"]  # `model_type` in their config.json
_CLASSES: dict[str, str] = {"blip": "BlipForConditionalGeneration", "git": "GitForCausalLM", "blip-2": "Blip2ForConditionalGeneration"}


def transformers() -> Any:
    """The library, which takes seconds to import.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import transformers as library
    except ImportError as error:
        raise MissingExtraError(f"BLIP and GIT of Hugging Face need the extra 'eval' ({error}): pip install -e '.[eval]'") from error
    library.utils.logging.disable_progress_bar()  # of files that are read in no time
    return library


def is_peer(directory: Path) -> bool:
    """Whether a directory holds a captioner that only transformers can run. (A GIT runs as our own network.)"""
    return (directory / CONFIG_FILE).is_file() and read_json(directory / CONFIG_FILE).get("model_type") in ("blip", "blip-2")


def peer_kind(source: str) -> str:
    """Which kind of network a directory or Hub id holds.

    Raises:
        CheckpointError: it cannot be had.
        MissingExtraError: transformers is not installed.
    """
    library = transformers()
    try:
        return str(library.AutoConfig.from_pretrained(source, local_files_only=_alone(source)).model_type)
    except Exception as error:  # the libraries behind it raise many kinds
        raise CheckpointError(_not_loaded(source, error)) from error


def load_peer(kind: Kind, source: str) -> tuple[Any, Any]:
    """Network, in evaluation mode and the precision it was stored in, and processor of a directory or Hub id.

    Raises:
        CheckpointError: it cannot be had, is of another kind, or is not whole: weights are lacking, or the tokenizer is.
        MissingExtraError: transformers is not installed.
    """
    found = peer_kind(source)
    if found != kind:
        raise CheckpointError(f"{source} holds a model of the type {found!r}, not {kind!r}")
    library = transformers()
    here = {"local_files_only": _alone(source)}
    try:
        processor = library.AutoProcessor.from_pretrained(source, **here)
        network, loaded = getattr(library, _CLASSES[kind]).from_pretrained(source, use_safetensors=True, output_loading_info=True, **here)
    except Exception as error:
        raise CheckpointError(_not_loaded(source, error)) from error
    if lacking := sorted({*loaded["missing_keys"], *(str(key) for key in loaded["mismatched_keys"])}):
        raise CheckpointError(f"the weights in {source} lack {lacking[0]} and {len(lacking) - 1} more; copy it again")
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None or len(tokenizer) <= len(tokenizer.all_special_ids):  # where there is none, transformers makes one without words
        raise CheckpointError(f"{source} has no tokenizer (tokenizer.json or vocab.txt); copy it again, whole")
    return network.eval(), processor


def _alone(source: str) -> bool:
    """Whether a Hub id can only come from what was downloaded before: the Hub's name is not known here. Its library would ask again and again for
    half a minute, for each file."""
    if Path(source).exists() or any(name.lower() in ("https_proxy", "all_proxy") for name in os.environ):
        return False
    from huggingface_hub.constants import ENDPOINT

    try:
        socket.getaddrinfo(urlsplit(ENDPOINT).hostname, 443)
    except OSError:
        return True
    return False


def _not_loaded(source: str, error: Exception) -> str:
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{source} could not be loaded: {first}"


def peer_tokenizer(source: str) -> PromptTokenizer:
    """The tokenizer of a directory or Hub id as ours.

    Raises:
        CheckpointError: it cannot be had, or has neither [CLS], [SEP] and [PAD] nor our own tokens in their place.
        MissingExtraError: transformers is not installed.
    """
    library = transformers()
    try:
        return PromptTokenizer(
            Tokenizer.from_str(library.AutoTokenizer.from_pretrained(source, local_files_only=_alone(source)).backend_tokenizer.to_str())
        )
    except TokenizerError as error:
        raise CheckpointError(f"the tokenizer of {source} cannot be used: {error}") from error
    except Exception as error:
        raise CheckpointError(_not_loaded(source, error)) from error


def save_peer(network: Any, processor: Any, directory: Path, *, card: str) -> None:
    """Write what `from_pretrained` reads, beside first and then in place; nothing of a former model stays in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    beside = directory / ".writing"
    shutil.rmtree(beside, ignore_errors=True)
    try:
        network.save_pretrained(beside)
        processor.save_pretrained(beside)
        (beside / "README.md").write_text(card, encoding="utf-8")
        json.loads((beside / CONFIG_FILE).read_text(encoding="utf-8"))
        clear_checkpoint(directory)
        for path in sorted(beside.iterdir(), key=lambda path: path.name == CONFIG_FILE):  # last what makes it a model
            os.replace(path, directory / path.name)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
