"""Write a checkpoint as ONNX graphs, for onnxruntime.

Examples:
    python export.py --out exported                              the model in the box
    python export.py --checkpoint runs/mini/model --out exported --int8
    python caption.py docs/examples --checkpoint exported        runs them

The directory holds encoder.onnx, prefill.onnx, step.onnx (what goes in and out: model/graphs.py), config.json, tokenizer.json and, where the
checkpoint has it, what it is familiar with. With onnxruntime they are read again and must write what PyTorch writes.
"""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # Ctrl-C from here on ends the process, whatever is being imported
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from data.console import begin_command, read_command_line
from inference import DEFAULT_CHECKPOINT

CHECKED = 8  # pictures of chance


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What to export, and where to."""

    out: Path
    """A new directory."""
    checkpoint: str = str(DEFAULT_CHECKPOINT)
    """A checkpoint directory or Hub id, ours or a GIT of Hugging Face."""
    revision: str | None = None
    """Of a Hub id: a branch, a tag or a commit."""
    int8: bool = False
    """Store the weights of matrix products in eight bits: a quarter of the size; texts may differ here and there."""


if __name__ == "__main__":  # --help, a wrong option and Ctrl-C do not wait for the imports below, which take seconds
    CONFIG = read_command_line(ExportConfig, __doc__)

import logging
import os
import shutil
import warnings
from importlib.util import find_spec

import numpy as np

from data.errors import MissingExtraError
from inference import PromptInverter
from inference.card import CARD_FILE
from inference.onnx import quantise
from model import CheckpointError, find_checkpoint, load_model
from model.files import CONFIG_FILE
from model.graphs import export_graphs
from tokenizer import TOKENIZER_FILE


def main(config: ExportConfig) -> None:
    for library in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(library) is None:
            raise MissingExtraError(f"exporting needs the extra 'onnx' (there is no {library}): pip install -e '.[onnx]'")
    if config.out.exists() and any(config.out.iterdir()):
        raise ValueError(f"--out {config.out} holds other things; name a new or empty directory")
    inverter = PromptInverter.from_pretrained(config.checkpoint, device="cpu", dtype="float32", revision=config.revision)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    beside = config.out.with_name(f".{config.out.name}.writing")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    logging.disable(logging.WARNING)  # of libraries, about what nobody here could change
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            export_graphs(load_model(find_checkpoint(config.checkpoint, revision=config.revision)), beside)
        inverter.model.config.save(beside / CONFIG_FILE)
        inverter.tokenizer.save(beside / TOKENIZER_FILE)
        (beside / CARD_FILE).write_text(inverter.card, encoding="utf-8")
        if config.int8:
            quantise(beside)
        if inverter.familiarity is not None:
            inverter.familiarity.save(beside)
        pictures = np.random.default_rng(0).integers(0, 256, (CHECKED, *inverter.preprocess.size, 3), dtype=np.uint8)
        theirs = [prediction.prompt for prediction in PromptInverter.from_pretrained(beside).predict(pictures, num_beams=1)]
        ours = [prediction.prompt for prediction in inverter.predict(pictures, num_beams=1)]
        same = sum(one == other for one, other in zip(ours, theirs, strict=True))
        if same < CHECKED and not config.int8:
            raise CheckpointError(f"onnxruntime writes another text than PyTorch for {CHECKED - same} of {CHECKED} pictures; nothing was exported")
        shutil.rmtree(config.out, ignore_errors=True)
        os.replace(beside, config.out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    size = sum(path.stat().st_size for path in config.out.iterdir()) / 1e6
    print(f"{config.out}: {size:.1f} MB; {same} of {CHECKED} texts as PyTorch writes them")


if __name__ == "__main__":
    begin_command()
    try:
        main(CONFIG)
    except (CheckpointError, MissingExtraError, OSError, ValueError) as error:
        sys.exit(f"export.py: {error}")
    except KeyboardInterrupt:
        sys.exit("\nexport.py: stopped; nothing was exported")
