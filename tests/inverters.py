"""A small inverter of random weights, one that writes what a test says, and rows, for the tests of several rooms."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from examples import lively, tiny_config
from PIL import Image

from inference import Prediction, PromptInverter
from inference.prediction import Candidate, Token
from inference.rows import Row
from model import CaptionModel, EncoderConfig
from model.confidence import Confidence
from tokenizer import PromptTokenizer

TOKENIZER = PromptTokenizer.train(["a cat on a beach", "two dogs"] * 3, vocab_size=280)


def tiny_inverter(**changes: object) -> PromptInverter:
    specials = {"bos_token_id": TOKENIZER.bos_id, "eos_token_id": TOKENIZER.eos_id, "pad_token_id": TOKENIZER.pad_id}
    return PromptInverter(lively(CaptionModel(tiny_config(vocab_size=TOKENIZER.vocab_size, **(specials | changes)))), TOKENIZER)


def joint_inverter(frames: int = 3) -> PromptInverter:
    """That sees so many pictures of a prompt at once."""
    return tiny_inverter(encoder=EncoderConfig(name="test_vit", arguments={"img_size": 32}, frames=frames))


def coloured(red: int, size: int = 8) -> Image.Image:
    """A picture that `StubInverter` knows again."""
    return Image.new("RGB", (size, size), (red, 20, 30))


def said(prompt: str, *others: str, confidence: float = 0.9, familiarity: float | None = 0.5) -> Prediction:
    alternatives = [Candidate(prompt=other, score=-0.5, confidence=0.25, log_prob=-2.0) for other in others]
    tokens = [Token(prompt, -0.1, 0.9)]
    return Prediction(prompt, -0.1, confidence, familiarity, log_prob=-0.1, alternatives=alternatives, tokens=tokens)


def say_number(red: int) -> Prediction:
    return said(f"picture {red}")


class StubInverter:
    """What it says of a picture depends on the red of its first pixel alone. `batches` are the reds that came together."""

    confidence = Confidence(label_smoothing=0.0, vocab_size=10)

    def __init__(self, say: Callable[[int], Prediction] = say_number) -> None:
        self.say = say
        self.batches: list[list[int]] = []
        self.options: list[dict[str, Any]] = []

    most_together = 1

    def reduced(self, image: Image.Image) -> Image.Image:
        return image

    def fingerprint(self) -> str:
        return "stub"

    def predict(self, images: Iterable[Image.Image], *, batch_size: int = 32, **decoding: Any) -> list[Prediction]:
        reds = [image.getpixel((0, 0))[0] for image in images]  # type: ignore[index]
        assert len(reds) <= batch_size
        self.batches.append(reds)
        self.options.append(decoding)
        others = decoding.get("num_return_sequences", 9) - 1
        found = [self.say(red) for red in reds]
        return [dataclasses.replace(one, alternatives=one.alternatives[:others]) for one in found]


class Together(StubInverter, PromptInverter):
    """Sees three pictures at once, and says the reds of their first pixels; `groups` are the batches of them."""

    most_together = 3

    def __init__(self) -> None:
        super().__init__()
        self.groups: list[list[list[int]]] = []

    def predict_joint(self, groups: Iterable[Sequence[Any]], *, batch_size: int = 32, **decoding: Any) -> list[Prediction]:
        self.groups.append([[image.getpixel((0, 0))[0] for image in group] for group in groups])
        self.options.append(decoding)
        assert len(self.groups[-1]) <= batch_size
        assert all(1 <= len(group) <= 3 for group in self.groups[-1])
        return [said(f"of {group}") for group in self.groups[-1]]


def row(file: Path, prompt: str = "a cat", **changes: Any) -> Row:
    return Row(**({"file": file, "prompts": (prompt,), "source": "model", "prediction": said(prompt), "by": "me"} | changes))
