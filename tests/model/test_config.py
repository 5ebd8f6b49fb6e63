"""Configurations from files of strangers: nothing is fetched or run, and what no network can have is named."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from examples import tiny_config

from model import CaptionModel, CheckpointError, EncoderConfig, ModelConfig, Preprocessing, load_model, save_model

OPENED: list[str] = []  # what the process opens or asks for, while a test listens
LISTENING = [False]


_EVENTS = ("open", "socket.connect", "socket.getaddrinfo", "urllib.Request", "subprocess.Popen", "os.system")


def _listen(event: str, arguments: tuple[Any, ...], listening: list[bool] = LISTENING, events: tuple[str, ...] = _EVENTS) -> None:
    if listening[0] and event in events:  # by its defaults, since the hook outlives the module
        OPENED.append(f"{event} {arguments[0]}")


sys.addaudithook(_listen)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save_model(CaptionModel(tiny_config()), tmp_path / "model")
    return tmp_path / "model"


def edit(directory: Path, section: str | None, **changes: object) -> None:
    path = directory / "config.json"
    values = json.loads(path.read_text())
    (values if section is None else values[section]).update(changes)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    "arguments",
    [
        {"checkpoint_path": "PLANTED"},
        {"pretrained": True},
        {"pretrained": True, "pretrained_cfg_overlay": {"file": "PLANTED"}},
        {"pretrained_cfg_overlay": {"url": "http://127.0.0.1:9/weights.pth"}, "pretrained": True},
        {"pretrained_cfg": {"hf_hub_id": "someone/something", "architecture": "test_vit"}, "pretrained": True},
        {"cache_dir": "PLANTED"},
        {"img_size": {"file": "PLANTED"}},
        {"norm_layer": "os.system"},
        {"act_layer": "PLANTED/x"},
    ],
)
def test_no_argument_of_a_config_opens_a_file_or_an_address(checkpoint: Path, tmp_path: Path, arguments: dict[str, Any]) -> None:
    planted = tmp_path / "planted.pth"
    torch.save({"x": torch.zeros(1)}, planted)
    text = json.dumps(arguments).replace("PLANTED", str(planted))
    edit(checkpoint, "encoder", arguments=json.loads(text))
    _refused_unopened(checkpoint, r"config\.json: arguments")


@pytest.mark.parametrize("name", ["hf-hub:someone/model", "hf_hub:someone/model", "local-dir:/tmp", "resnet50.hf-hub:someone/x", "../x", "timm/../x"])
def test_no_name_of_an_encoder_leads_elsewhere(checkpoint: Path, name: str) -> None:
    edit(checkpoint, "encoder", name=name)
    _refused_unopened(checkpoint, r"config\.json: name must be a timm model's")


def _refused_unopened(directory: Path, message: str) -> None:
    load_model  # noqa: B018  imported before anything is listened to
    OPENED.clear()
    LISTENING[0] = True
    try:
        with pytest.raises(CheckpointError, match=message):
            load_model(directory)
    finally:
        LISTENING[0] = False
    assert [what for what in OPENED if not what.endswith("config.json") and ".py" not in what] == []


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        (None, {"heads": 0}, "heads must be 1 or more, not 0"),
        (None, {"heads": "4"}, "heads must be a whole number, not '4'"),
        (None, {"heads": True}, "heads must be a whole number"),
        (None, {"width": 7}, "width 7 is not divisible by heads 4"),
        (None, {"width": -32}, "width must be 1 or more"),
        (None, {"layers": 0}, "layers must be 1 or more"),
        (None, {"dropout": "x"}, "dropout must be a number, not 'x'"),
        (None, {"dropout": 1.0}, "dropout must be 0 or more and below 1"),
        (None, {"label_smoothing": -3}, "label_smoothing must be 0 or more"),
        (None, {"norm": "batch"}, "norm must be 'pre' or 'post'"),
        (None, {"tied_output": 1}, "tied_output must be true or false"),
        (None, {"eos_token_id": 23}, "eos_token_id 23 is outside the vocabulary of 23"),
        (None, {"vocab_size": None}, "vocab_size must be a whole number, not None"),
        (None, {"encoder": None}, "expected an object for EncoderConfig"),
        (None, {"vocab_size": 10**13}, ".*"),
        ("encoder", {"stage": 99}, ".*stage 99"),
        ("encoder", {"name": "vit_nowhere"}, ".*timm has no model 'vit_nowhere'"),
        ("encoder", {"arguments": {"act_layer": "os"}}, ".*cannot build"),
        ("encoder", {"arguments": {"depth": 0.5}}, ".*cannot build"),
        ("encoder", {"frames": "2"}, "frames must be a whole number, not '2'"),
        ("encoder", {"frames": -1}, "frames must be 0 or more"),
        ("encoder", {"arguments": None}, "arguments must be an object, not None"),
        ("encoder", {"stage": "1"}, "stage must be a whole number or nothing"),
        ("encoder", {"name": 3}, "name must be a text"),
        ("preprocessing", {"image_size": [64]}, r"image_size must be a whole number or 2 numbers, not \(64,\)"),
        ("preprocessing", {"image_size": 0}, "image_size must be 1 or more"),
        ("preprocessing", {"mean": 0.5}, "mean must be 3 numbers, not 0.5"),
        ("preprocessing", {"mean": [0.5, 0.5]}, "mean must be 3 numbers"),
        ("preprocessing", {"std": [0.5, 0, 0.5]}, "std must be above 0"),
        ("preprocessing", {"std": [0.5, float("nan"), 0.5]}, "std must be 3 numbers"),
        ("preprocessing", {"crop": "middle"}, "crop must be 'squeeze' or 'center'"),
        ("preprocessing", {"interpolation": "area"}, "interpolation must be 'bilinear' or 'bicubic'"),
    ],
)
def test_what_no_network_can_have_is_named_by_file_and_key(checkpoint: Path, section: str | None, changes: dict[str, object], message: str) -> None:
    edit(checkpoint, section, **changes)
    with pytest.raises(CheckpointError, match=rf"config\.json.*: {message}") as error:
        load_model(checkpoint)
    assert "\n" not in str(error.value)


def test_a_config_of_too_many_brackets_is_named(checkpoint: Path) -> None:
    for text in ("[" * 100_000, '{"encoder": ' + "[" * 100_000):
        (checkpoint / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"config\.json is not JSON"):
            load_model(checkpoint)


def test_a_missing_key_is_named(checkpoint: Path) -> None:
    path = checkpoint / "config.json"
    values = json.loads(path.read_text())
    del values["vocab_size"]
    path.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"config\.json: .*vocab_size"):
        load_model(checkpoint)


def test_python_is_held_to_the_same() -> None:
    with pytest.raises(ValueError, match="std must be above 0"):
        Preprocessing(image_size=8, std=(0.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="such as depth"):
        EncoderConfig(name="test_vit", arguments={"depht": 1})
    assert ModelConfig(**{field: getattr(tiny_config(), field) for field in tiny_config().__dataclass_fields__}) == tiny_config()


def test_a_former_models_index_is_not_read(checkpoint: Path) -> None:
    """model.safetensors is what was saved last."""
    expected = load_model(checkpoint).decoder.output_bias
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "model-00001-of-00001.safetensors"}}))
    assert torch.equal(load_model(checkpoint).decoder.output_bias, expected)
    (checkpoint / "model.safetensors").unlink()
    for content in ({}, {"weight_map": {}}, {"weight_map": []}, {"weight_map": {"x": 3}}):
        (checkpoint / "model.safetensors.index.json").write_text(json.dumps(content))
        with pytest.raises(CheckpointError, match=r"index\.json names no weights"):
            load_model(checkpoint)


def test_saving_leaves_nothing_of_a_former_model(tmp_path: Path) -> None:
    from gits import save_git

    save_git(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / "model-00001-of-00001.safetensors")
    (tmp_path / "model" / "model.safetensors.index.json").write_text("{}")
    (tmp_path / "model" / "notes.txt").write_text("mine")
    save_model(CaptionModel(tiny_config()), tmp_path / "model")
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"config.json", "model.safetensors", "notes.txt", "tokenizer.json"}
