import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.nn import functional

from inference import PromptInverter
from inference.fit import PromptFit


def test_the_fit_is_what_the_logits_say(trained: tuple[Path, Path, str]) -> None:
    inverter = PromptInverter.from_pretrained(trained[1] / "model", dtype="float32")
    images = [Image.effect_noise((40, 40), 30 * i + 20).convert("RGB") for i in range(3)]
    references = [Image.new("RGB", (32, 32), (60 * i, 30, 200 - 60 * i)) for i in range(4)]
    prompts = ["a watercolor painting of a fox", "an owl", "a cat on a beach at night"]

    def log_likelihood(image: Image.Image, prompt: str) -> float:
        """Token after token, one text at a time."""
        tokenizer = inverter.tokenizer
        tokens = [tokenizer.bos_id, *tokenizer.encode(prompt), tokenizer.eos_id]
        logits = inverter.model(inverter.preprocess(image)[None], torch.tensor([tokens[:-1]]))
        return float(functional.log_softmax(logits[0], -1)[range(len(tokens) - 1), tokens[1:]].sum())

    found = PromptFit(inverter, references)(images, prompts)
    for image, prompt, fit in zip(images, prompts, found, strict=True):
        others = [log_likelihood(reference, prompt) for reference in references]
        alone = math.log(sum(math.exp(value) for value in others) / len(others))
        tokens = len(inverter.tokenizer.encode(prompt)) + 1
        assert fit == pytest.approx((log_likelihood(image, prompt) - alone) / tokens, abs=1e-4)
    with pytest.raises(ValueError, match="to compare with"):
        PromptFit(inverter, [])
