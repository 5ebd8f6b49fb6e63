import dataclasses
import json
from pathlib import Path

import pytest

from tokenizer import PromptTokenizer
from training.config import PRESETS, ConfigError, TrainConfig, mini
from training.estimate import estimate


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_without_storage(name: str) -> None:
    tokenizer = PromptTokenizer.train(["a cat on a beach"] * 3, vocab_size=300)
    config = PRESETS[name]()
    assert config.run_directory == Path("runs") / name
    model_config = dataclasses.replace(config.model.model_config(tokenizer), vocab_size=config.model.vocab_size)
    needs = estimate(model_config, batch_size=config.batch_size, text_tokens=24, half=True)
    millions = (needs.encoder_parameters + needs.decoder_parameters) / 1e6
    assert {"mini": 2 < millions < 5, "small": 30 < millions < 40, "base": 140 < millions < 160}[name]
    assert needs.states + needs.activations < {"mini": 1e9, "small": 12e9, "base": 24e9}[name]  # a small machine, a consumer GPU, a large one
    if name != "mini":
        assert config.model.pretrained_encoder
        assert model_config.preprocessing.mean in ((0.5, 0.5, 0.5), (0.48145466, 0.4578275, 0.40821073))  # what those weights have seen


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    config = dataclasses.replace(mini(), out=tmp_path / "x", learning_rate=0.5)
    config.save(tmp_path / "config.json")
    assert TrainConfig.load(tmp_path / "config.json") == config


def test_unknown_keys_are_refused(tmp_path: Path) -> None:
    mini().save(tmp_path / "config.json")
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content | {"momentum": 1}))
    with pytest.raises(ConfigError, match="unknown keys: momentum"):
        TrainConfig.load(tmp_path / "config.json")
    content["model"]["depth"] = 3
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="unknown keys: depth"):
        TrainConfig.load(tmp_path / "config.json")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"config\.json is not"):
        TrainConfig.load(tmp_path / "config.json")
    with pytest.raises(ConfigError, match="no run to resume"):
        TrainConfig.load(tmp_path / "none.json")


def test_encoder_arguments_are_read_as_json_or_text() -> None:
    tokenizer = PromptTokenizer.train(["a cat"] * 3, vocab_size=300)
    network = dataclasses.replace(mini().model, encoder_arguments=("depth=6", "act_layer=gelu", "qk_norm=true", "drop_rate=0.5"))
    assert network.model_config(tokenizer).encoder.arguments == {"depth": 6, "act_layer": "gelu", "qk_norm": True, "drop_rate": 0.5}
    with pytest.raises(ConfigError, match="NAME=VALUE, not 'depth'"):
        dataclasses.replace(network, encoder_arguments=("depth",)).model_config(tokenizer)


@pytest.mark.parametrize(
    "changes",
    [
        {"max_steps": 0},
        {"batch_size": -1},
        {"learning_rate": 0.0},
        {"frozen_encoder": 1.5},
        {"ema_decay": 1.0},
        {"workers": -1},
        {"reuse_features": True},
        {"weigh": True, "curriculum": True},
        {"weigh": True, "stream": True},
    ],
)
def test_impossible_numbers_are_named(changes: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        dataclasses.replace(mini(), **changes)  # type: ignore[arg-type]
