import dataclasses
import json
import math
import re
from pathlib import Path

import pytest

from tokenizer import PromptTokenizer
from train import parse
from training.config import PRESETS, ConfigError, NetworkName, TrainConfig, mini, mini_git, preset_of
from training.estimate import estimate
from training.starting import build_network, model_config


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_without_storage(name: str) -> None:
    tokenizer = PromptTokenizer.train(["a cat on a beach"] * 3, vocab_size=300)
    config = PRESETS[name]()
    assert config.run_directory == Path("runs") / name
    built = dataclasses.replace(model_config(config.model, tokenizer), vocab_size=config.model.vocab_size)
    needs = estimate(built, batch_size=config.batch_size, text_tokens=24, half=True, frozen=config.frozen_encoder)
    millions = (needs.encoder_parameters + needs.decoder_parameters) / 1e6  # of the preset's sizes in our own network, whatever it trains
    smallest, largest, memory = {
        "mini": (2, 5, 1e9),
        "mini-git": (2, 5, 1e9),
        "mini-blip": (2, 5, 1e9),
        "photos": (9, 12, 8e9),
        "finetune": (140, 160, 24e9),
        "small": (30, 40, 12e9),
        "base": (140, 160, 24e9),
    }[name]
    assert smallest < millions < largest
    assert needs.states + needs.activations < memory
    if config.model.pretrained_encoder:
        assert built.preprocessing.mean in ((0.5, 0.5, 0.5), (0.48145466, 0.4578275, 0.40821073))  # what those weights have seen
    assert config.model.pretrained_encoder == (name in ("photos", "small", "base"))


def test_the_presets_are_those_of_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "TRAINING.md").read_text(encoding="utf-8")
    rows = {cells[1].strip(" `"): cells for line in page.splitlines() if len(cells := line.split("|")) == 7}
    by_muon = re.search(r"^- (.*?) `--optimizer muon`", page, re.MULTILINE)
    assert by_muon is not None
    for name, preset in PRESETS.items():
        config = preset()
        shape = re.search(r"(\d+) layers x (\d+)", rows[name][3])
        if name == "finetune":  # whose network is a checkpoint's
            assert shape is None
            assert "`--init`" in rows[name][3]
        else:
            assert shape is not None
            assert tuple(map(int, shape.groups())) == (config.model.layers, config.model.width)
        assert re.match(rf" {config.batch_size}\b", rows[name][4])
        assert (f"`{name}`" in by_muon[1]) == (config.optimizer == "muon")
        assert (f"`{name}` evaluates and exports a running mean" in page) == (config.ema_decay > 0)
        assert ("frozen" in rows[name][3]) == (config.frozen_encoder == 1) == config.reuse_features
        assert [kind for kind in ("GIT", "BLIP") if f"Hugging Face's {kind}" in rows[name][3]] == (
            {"hf-git": ["GIT"], "hf-blip": ["BLIP"]}.get(config.network, [])
        )


@pytest.mark.parametrize(
    ("line", "preset"),
    [
        ("", "mini"),
        ("--data d --seed 3", "mini"),
        ("--network reprompt", "mini"),
        ("--network hf-git", "mini-git"),
        ("--data d --network=hf-git --seed 3", "mini-git"),
        ("--network hf-blip", "mini-blip"),
        ("--init d", "finetune"),
        ("--init=d", "finetune"),
        ("--network hf-git --init d", "finetune"),
        ("--init d --network=hf-blip", "finetune"),
    ],
)
def test_a_command_line_without_a_preset_has_the_one_of_what_it_trains(line: str, preset: str) -> None:
    arguments = line.split()
    assert preset_of(arguments) == preset
    config, wished = parse(arguments), PRESETS[preset]()
    assert (config.name, config.learning_rate, config.model) == (preset, wished.learning_rate, wished.model)
    assert config.network == next((network for network in ("hf-git", "hf-blip") if network in line), "reprompt")
    assert config.init == ("d" if "--init" in line else None)


def test_a_preset_that_is_named_is_the_one() -> None:
    for arguments, name in (
        (["base", "--init", "d"], "base"),
        (["small", "--network", "hf-git", "--model.no-pretrained-encoder"], "small"),
        (["mini-blip", "--init", "d"], "mini-blip"),
        (["mini-blip", "--network", "hf-git"], "mini-blip"),
    ):
        config, wished = parse(arguments), PRESETS[name]()
        assert (config.name, config.max_steps, config.batch_size) == (name, wished.max_steps, wished.batch_size)
        assert config.network == ("hf-git" if "hf-git" in arguments else wished.network)


@pytest.mark.parametrize("network", ["hf-git", "hf-blip"])
def test_what_a_peer_cannot_do_is_named(network: NetworkName) -> None:
    frozen = dataclasses.replace(mini_git(), network=network, frozen_encoder=1.0)
    with pytest.raises(ConfigError, match=f"{network} takes pictures, not features computed before; add --no-reuse-features"):
        dataclasses.replace(frozen, reuse_features=True)
    with pytest.raises(ConfigError, match=f"joint and frozen_decoder are of our own network; leave them out with {network}"):
        dataclasses.replace(frozen, joint=2)
    for changes in ({"pretrained_encoder": True}, {"encoder_file": Path("weights.pth")}):
        model = dataclasses.replace(mini_git().model, **changes)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=f"{network} has an encoder of its own, into which timm's weights do not go"):
            dataclasses.replace(frozen, model=model)
        assert dataclasses.replace(frozen, model=model, init="somewhere").init == "somewhere"  # --model is not used then


@pytest.mark.parametrize("preset", PRESETS)
def test_saved_and_loaded_it_is_the_same(tmp_path: Path, preset: str) -> None:
    config = dataclasses.replace(PRESETS[preset](), out=tmp_path / "x", learning_rate=0.5)
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
    assert model_config(network, tokenizer).encoder.arguments == {"depth": 6, "act_layer": "gelu", "qk_norm": True, "drop_rate": 0.5}
    with pytest.raises(ConfigError, match="NAME=VALUE, not 'depth'"):
        model_config(dataclasses.replace(network, encoder_arguments=("depth",)), tokenizer)


@pytest.mark.parametrize(
    "changes",
    [
        {"max_steps": 0},
        {"batch_size": -1},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"learning_rate": math.inf},
        {"weight_decay": math.nan},
        {"min_fit": math.nan},
        {"warmup_steps": 3001},
        {"frozen_encoder": 1.5},
        {"ema_decay": 1.0},
        {"workers": -1},
        {"reuse_features": True},
        {"weigh": True, "curriculum": True},
        {"weigh": True, "stream": True},
        {"joint": 0},
        {"joint": -2},
    ],
)
def test_impossible_numbers_are_named(changes: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        dataclasses.replace(mini(), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("other", ["stream", "weigh", "curriculum"])
def test_images_of_a_prompt_are_found_among_numbered_pairs_in_their_usual_order(other: str) -> None:
    with pytest.raises(ConfigError, match=r"joint looks for a prompt's other images among numbered pairs.* leave stream, weigh and curriculum out"):
        dataclasses.replace(mini(), joint=2, **{other: True})  # type: ignore[arg-type]
    assert dataclasses.replace(mini(), joint=1, **{other: True}).joint == 1  # type: ignore[arg-type]
    assert dataclasses.replace(mini(), joint=2, min_fit=0.0).joint == 2


def test_a_run_of_before_showed_one_image_at_a_time(tmp_path: Path) -> None:
    mini().save(tmp_path / "config.json")
    content = json.loads((tmp_path / "config.json").read_text())
    assert content.pop("joint") == 1
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert TrainConfig.load(tmp_path / "config.json") == mini()
    assert parse(["mini", "--joint", "4"]).joint == 4


def test_a_stage_belongs_to_its_encoder() -> None:
    """A preset's third feature map of a ResNet is no wish for the third one of whatever else is named."""
    assert parse([]).model.stage == parse(["mini"]).model.stage == parse(["mini", "--model.encoder", "resnet18"]).model.stage == 2
    assert parse(["mini", "--model.encoder", "vit_small_patch16_224"]).model.stage is None
    assert parse(["--model.encoder", "convnext_atto", "--model.stage", "1"]).model.stage == 1
    assert parse(["mini", "--model.encoder=convnext_atto", "--model.stage=2"]).model.stage == 2


def test_how_much_text_the_network_reads_comes_from_the_data_unless_it_is_said() -> None:
    tokenizer = PromptTokenizer.train(["a cat on a beach"] * 3, vocab_size=300)
    config = dataclasses.replace(mini(), model=dataclasses.replace(mini().model, encoder="test_vit", stage=None, image_size=32))
    assert build_network(config, tokenizer, text_tokens=24, pretrained=False).config.max_text_tokens == 24
    said = dataclasses.replace(config, model=dataclasses.replace(config.model, max_text_tokens=7))
    assert build_network(said, tokenizer, text_tokens=24, pretrained=False).config.max_text_tokens == 7
