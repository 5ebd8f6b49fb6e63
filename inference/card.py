"""The model card of a checkpoint: what it is, what it was trained on, how good it was found, and what it does not know."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.files import write_text
from model import ModelConfig, load_model

CARD_FILE = "README.md"


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a run says of the model that it made.

    Attributes:
        data: the source of its pairs.
        base_model: a Hub id that it began with; empty for another beginning.
        pairs: what it was trained on, in words.
        steps: optimizer updates, and how many pairs each saw.
        evaluation: a table in Markdown; empty where there was no comparison.
        examples: some training prompts.
    """

    data: str
    pairs: str
    steps: str
    base_model: str = ""
    evaluation: str = ""
    examples: Sequence[str] = ()


def model_card(config: ModelConfig, parameters: int, training: Training | None = None) -> str:
    """Markdown, with the front matter that the Hub reads."""
    facts: dict[str, object] = {"library_name": "reprompt", "pipeline_tag": "image-to-text", "tags": ["image-to-text", "prompt-recovery"]}
    if training is not None and training.base_model:
        facts["base_model"] = training.base_model
    lines = ["---", *(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in facts.items()), "---", ""]  # JSON is YAML too
    size = " x ".join(map(str, config.preprocessing.size))
    lines += [
        "# A Reprompt model",
        "",
        f"It writes the prompt of a generated image. {parameters / 1e6:.1f} million parameters; encoder {config.encoder.name}, {size} px; "
        f"vocabulary {config.vocab_size}.",
        "",
        "```python",
        "from inference import PromptInverter",
        "",
        'prediction = PromptInverter.from_pretrained("this directory or Hub id").predict("image.png")',
        "print(prediction.prompt, prediction.confidence, prediction.familiarity)",
        "```",
        "",
    ]
    if training is None:
        return "\n".join(lines)
    lines += ["## Training", "", f"On {training.pairs} of `{training.data}`, {training.steps}."]
    if training.base_model:
        lines.append(f"It began with the weights of `{training.base_model}`, whose licence holds for them.")
    lines.append("")
    if training.examples:
        lines += ["Prompts like those it learned from:", "", *(f"- {' '.join(example.split())}" for example in training.examples), ""]
    if training.evaluation:
        lines += ["## Evaluation", "", "On test pairs of the same data, with 95 % intervals:", "", training.evaluation, ""]
    lines += [
        "## Limits",
        "",
        "It knows pictures and prompts like those above. Of any other picture it writes a prompt of that kind all the same: "
        "`Prediction.is_familiar` is False for most of them. Where several phrasings mean the same, it picks one.",
        "",
        "## Licence",
        "",
        "Not stated: whoever publishes this model says it here, as the pairs and the weights it began with allow.",
        "",
    ]
    return "\n".join(lines)


def write_card(directory: Path, training: Training) -> None:
    """Into the checkpoint that a run has made.

    Raises:
        CheckpointError: it is none.
    """
    model = load_model(directory)
    write_text(directory / CARD_FILE, model_card(model.config, sum(parameter.numel() for parameter in model.parameters()), training))


def read_card(directory: Path) -> str:
    """The card in a checkpoint; empty where there is none that can be read."""
    try:
        return (directory / CARD_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
