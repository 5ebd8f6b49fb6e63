"""Directories of transformers: which are read, and which are refused and how."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from blips import DEC, KINDS, save_blip, small_peer
from gits import WORDS, save_git
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, BlipForConditionalGeneration, GitForCausalLM

from model import CheckpointError
from peers import Kind, is_peer, load_peer, peer_kind, peer_tokenizer

SAVE: dict[str, Any] = {"blip": save_blip, "git": save_git}
THEIRS: dict[str, Any] = {"blip": BlipForConditionalGeneration, "git": GitForCausalLM}


@pytest.fixture(params=KINDS)
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Kind, Path]:
    SAVE[request.param](tmp_path / "peer")
    return request.param, tmp_path / "peer"


def test_a_directory_is_read_whole(saved: tuple[Kind, Path]) -> None:
    kind, directory = saved
    network, processor = load_peer(kind, str(directory))
    assert not network.training
    theirs = THEIRS[kind].from_pretrained(directory)
    assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in network.state_dict().items())
    assert processor.tokenizer.get_vocab() == {word: place for place, word in enumerate(WORDS)}


def test_the_kind_is_what_config_json_says(saved: tuple[Kind, Path], tmp_path: Path) -> None:
    kind, directory = saved
    other: Kind = "git" if kind == "blip" else "blip"
    assert peer_kind(str(directory)) == kind
    assert is_peer(directory) == (kind == "blip")  # a GIT runs as our own network
    with pytest.raises(CheckpointError, match=f"holds a model of the type '{kind}', not '{other}'"):
        load_peer(other, str(directory))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "blip-2"}))
    assert is_peer(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"encoder": {"name": "resnet18"}}))  # one of ours
    assert not is_peer(tmp_path)
    assert not is_peer(tmp_path / "none")


@pytest.mark.parametrize("source", ["none/at/all", "someone/nothing"])
def test_what_cannot_be_had_is_named_in_one_line(source: str) -> None:
    for attempt in (lambda: peer_kind(source), lambda: load_peer("blip", source), lambda: peer_tokenizer(source)):
        with pytest.raises(CheckpointError, match=f"{source} could not be loaded: .") as refused:
            attempt()
        assert len(str(refused.value).splitlines()) == 1


def test_weights_that_are_lacking_are_not_drawn_by_chance(saved: tuple[Kind, Path]) -> None:
    kind, directory = saved
    weights = load_file(directory / "model.safetensors")
    lost = [name for name in weights if "layers.1." in name]
    save_file({name: value for name, value in weights.items() if name not in lost}, directory / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"the weights in .* lack .*layers\.1\..* and {len(lost) - 1} more; copy it again"):
        load_peer(kind, str(directory))
    misshapen = next(name for name in weights if "layers.1." in name and weights[name].ndim == 2)
    save_file(weights | {misshapen: torch.zeros(3, 3)}, directory / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lack|could not be loaded"):
        load_peer(kind, str(directory))


def test_damaged_and_pickled_weights_are_refused(saved: tuple[Kind, Path]) -> None:
    kind, directory = saved
    path = directory / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=f"{directory} could not be loaded: ."):
        load_peer(kind, str(directory))
    path.write_bytes(content)
    torch.save(load_file(path), directory / "pytorch_model.bin")
    path.unlink()
    with pytest.raises(CheckpointError, match=f"{directory} could not be loaded: .*safetensors"):
        load_peer(kind, str(directory))


def test_without_a_tokenizer_it_is_not_whole(saved: tuple[Kind, Path]) -> None:
    kind, directory = saved
    for name in ("tokenizer.json", "vocab.txt", "tokenizer_config.json"):
        (directory / name).unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match=r"has no tokenizer|could not be loaded"):
        load_peer(kind, str(directory))


def test_its_tokenizer_serves_as_ours(saved: tuple[Kind, Path]) -> None:
    _, directory = saved
    ours, theirs = peer_tokenizer(str(directory)), AutoProcessor.from_pretrained(directory).tokenizer
    text = "a cat on a dog, x"
    assert ours.encode(text) == theirs(text, add_special_tokens=False).input_ids
    assert ours.decode([1, *ours.encode(text), 2, 0]) == theirs.decode(ours.encode(text)) == "a cat on a dog, x"
    assert (ours.bos_id, ours.eos_id, ours.pad_id) == (1, 2, 0)
    assert ours.vocab_size == len(WORDS) == DEC
    content = json.loads((directory / "tokenizer.json").read_text())
    content["model"]["vocab"] = {("[END]" if word == "[SEP]" else word): place for word, place in content["model"]["vocab"].items()}
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] != "[SEP]"]
    content["post_processor"] = None
    (directory / "tokenizer.json").write_text(json.dumps(content))
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    settings["sep_token"] = "[END]"
    (directory / "tokenizer_config.json").write_text(json.dumps(settings | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    with pytest.raises(CheckpointError, match=r"the tokenizer of .* cannot be used: "):
        peer_tokenizer(str(directory))


@pytest.mark.parametrize("kind", KINDS)
def test_saved_it_is_a_directory_of_transformers(tmp_path: Path, kind: Kind) -> None:
    """With its own tokenizer and its own way of preparing pictures."""
    peer = small_peer(kind)
    peer.save_pretrained(tmp_path / "saved")
    theirs, processor = THEIRS[kind].from_pretrained(tmp_path / "saved").eval(), AutoProcessor.from_pretrained(tmp_path / "saved")
    pixel_values = torch.randn(3, 3, 32, 32)
    found, expected = (network.generate(pixel_values=pixel_values, max_new_tokens=8) for network in (theirs, peer.network))
    assert torch.equal(found, expected)
    assert processor.tokenizer.get_vocab() == peer.processor.tokenizer.get_vocab()
    assert processor.image_processor.to_dict() == peer.processor.image_processor.to_dict()
    load_peer(kind, str(tmp_path / "saved"))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_a_former_model_stays(tmp_path: Path, kind: str) -> None:
    """Files that a library would read beside the new ones."""
    former = ("vocab.txt", "special_tokens_map.json", "preprocessor_config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json")
    for name in former:
        (tmp_path / name).write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".writing").mkdir()  # of a save that was interrupted
    (tmp_path / ".writing" / "added_tokens.json").write_text("{}")
    peer = small_peer(kind)
    peer.save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert not names & {*former, ".writing", "added_tokens.json"}
    written = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "processor_config.json", "README.md"}
    assert names - {"generation_config.json"} == {*written, "notes.txt"}
    peer.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == names


def test_a_save_that_fails_leaves_the_former_model_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_peer("git").save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    peer = small_peer("blip")
    monkeypatch.setattr(peer.processor, "save_pretrained", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        peer.save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
