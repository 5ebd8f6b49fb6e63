"""Which captioner a directory becomes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from blips import save_blip
from gits import save_git

from inference import DEFAULT_CHECKPOINT, PromptInverter, load_inverter
from inference.peer import PeerInverter
from model import CheckpointError


def test_a_directory_becomes_what_can_run_it(tmp_path: Path) -> None:
    save_blip(tmp_path / "blip")
    save_git(tmp_path / "git")
    assert isinstance(load_inverter(tmp_path / "blip", device="cpu"), PeerInverter)
    assert isinstance(load_inverter(str(tmp_path / "blip"), device="cpu"), PeerInverter)
    assert isinstance(load_inverter(tmp_path / "git", device="cpu"), PromptInverter)
    assert isinstance(load_inverter(device="cpu"), PromptInverter)
    assert isinstance(load_inverter(DEFAULT_CHECKPOINT), PromptInverter)


def test_blip_computes_in_what_was_asked_for(tmp_path: Path) -> None:
    save_blip(tmp_path)
    picture = [Path(__file__).parents[2] / "docs" / "examples" / "1.png"]
    exact = load_inverter(tmp_path, device="cpu", dtype="float32")
    assert exact.model.dtype == load_inverter(tmp_path, device="cpu").model.dtype == torch.float32
    half = load_inverter(tmp_path, device="cpu", dtype="bfloat16")
    assert half.model.dtype == torch.bfloat16
    assert not half.model.training
    assert half.predict(picture, max_new_tokens=4)[0].prompt  # pictures come in the same type
    (one,), (other,) = exact.features(picture), half.features(picture)
    assert abs(one - other).max() < 0.1
    assert exact.fingerprint() != half.fingerprint()
    with pytest.raises(ValueError, match="dtype must be"):
        load_inverter(tmp_path, dtype="int8")
    with pytest.raises(ValueError, match="device must be"):
        load_inverter(tmp_path, device="abacus")


def test_what_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    save_blip(tmp_path / "blip")
    (tmp_path / "blip" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match=f"{tmp_path / 'blip'} could not be loaded: "):
        load_inverter(tmp_path / "blip")
    (tmp_path / "blip" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is not JSON"):
        load_inverter(tmp_path / "blip")
    with pytest.raises(CheckpointError, match="is not a directory"):
        load_inverter(tmp_path / "none")
    with pytest.raises(CheckpointError, match="a revision belongs to a Hub id"):
        load_inverter(tmp_path / "blip", revision="main")
