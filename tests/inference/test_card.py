"""The model card, as the Hub reads it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from examples import tiny_config
from inverters import tiny_inverter

from inference import PromptInverter
from inference.card import CARD_FILE, Training, model_card, read_card

FULL = Training(
    data="datasets/mini",
    pairs="900 training pairs",
    steps="12 updates of 16 pairs",
    base_model="someone/base",
    evaluation="| metric | reprompt |\n|---|---|\n| exact | 0.5 |",
    examples=["a cat\non a beach", "--- two dogs"],
)


def front_matter(card: str) -> tuple[dict[str, Any], str]:
    found = re.fullmatch(r"---\n(.*?)\n---\n\n(.*)", card, re.DOTALL)
    assert found
    return yaml.safe_load(found[1]), found[2]


def test_the_front_matter_is_yaml_and_says_what_it_is() -> None:
    facts, text = front_matter(model_card(tiny_config(), 1_260_000))
    assert facts == {"library_name": "reprompt", "pipeline_tag": "image-to-text", "tags": ["image-to-text", "prompt-recovery"]}
    assert "1.3 million parameters; encoder test_vit, 32 x 32 px; vocabulary 23." in text
    assert "## Training" not in text
    facts, text = front_matter(model_card(tiny_config(), 1, FULL))
    assert facts["base_model"] == "someone/base"
    assert text.startswith("# A Reprompt model\n")


@pytest.mark.parametrize("name", ["on/off: yes", "1.0", "null", "a # b", "\N{FOX FACE}/'\"", "- x", "no"])
def test_names_are_names_whatever_yaml_would_make_of_them(name: str) -> None:
    facts, _ = front_matter(model_card(tiny_config(), 1, Training(data="x", pairs="1 pair", steps="1 update", base_model=name)))
    assert facts["base_model"] == name


def test_training_is_told_where_there_was_one() -> None:
    _, text = front_matter(model_card(tiny_config(), 1, FULL))
    assert "On 900 training pairs of `datasets/mini`, 12 updates of 16 pairs." in text
    assert "weights of `someone/base`, whose licence holds for them" in text
    assert "\n- a cat on a beach\n- --- two dogs\n" in text
    assert f"95 % intervals:\n\n{FULL.evaluation}\n" in text
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Training", "Evaluation", "Limits", "Licence"]
    facts, less = front_matter(model_card(tiny_config(), 1, Training(data="x", pairs="1 pair", steps="1 update")))
    assert re.findall(r"^## (.+)$", less, re.MULTILINE) == ["Training", "Limits", "Licence"]
    assert "base_model" not in facts
    assert "It began with" not in less
    assert "Prompts like those" not in less


def test_the_example_in_a_card_runs(tmp_path: Path) -> None:
    tiny_inverter().save_pretrained(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / CARD_FILE).read_text(), re.DOTALL)
    picture = Path(__file__).parents[2] / "docs" / "examples" / "1.png"
    exec(code.replace("this directory or Hub id", str(tmp_path)).replace("image.png", str(picture)), {})


def test_a_card_goes_with_its_model(tmp_path: Path) -> None:
    one = tiny_inverter()
    one.save_pretrained(tmp_path / "plain")
    plain = (tmp_path / "plain" / CARD_FILE).read_text(encoding="utf-8")
    count = sum(parameter.numel() for parameter in one.model.parameters())
    assert plain == model_card(one.model.config, count)
    one.card = "# Mine\n\N{FOX FACE}\n"
    one.save_pretrained(tmp_path / "mine")
    again = PromptInverter.from_pretrained(tmp_path / "mine")
    assert again.card == one.card
    again.save_pretrained(tmp_path / "again")
    assert read_card(tmp_path / "again") == one.card


def test_a_card_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    assert read_card(tmp_path) == ""
    (tmp_path / CARD_FILE).write_bytes(b"\xff\xfe\x00")
    assert read_card(tmp_path) == ""
    (tmp_path / "folder" / CARD_FILE).mkdir(parents=True)
    assert read_card(tmp_path / "folder") == ""
