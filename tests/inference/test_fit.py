import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.nn import functional

from inference import PromptInverter
from inference.fit import PromptFit
from model import NotFiniteError


def test_the_fit_is_what_the_logits_say(trained: tuple[Path, Path, str]) -> None:
    inverter = PromptInverter.from_pretrained(trained[1] / "model", dtype="float32")
    images = [Image.effect_noise((40, 40), 30 * i + 20).convert("RGB") for i in range(3)]
    references = [Image.new("RGB", (32, 32), (20 * i, 30, 250 - 25 * i)) for i in range(10)]
    groups = [f"group {i}" for i in range(10)]
    prompts = ["a watercolor painting of a fox", "an owl", "a cat on a beach at night"]

    def log_likelihood(image: Image.Image, prompt: str) -> float:
        """Token after token, one text at a time."""
        tokenizer = inverter.tokenizer
        tokens = [tokenizer.bos_id, *tokenizer.encode(prompt), tokenizer.eos_id]
        logits = inverter.model(inverter.preprocess(image)[None], torch.tensor([tokens[:-1]]))
        return float(functional.log_softmax(logits[0], -1)[range(len(tokens) - 1), tokens[1:]].sum())

    own = ["group 2", "of its own", "group 9"]
    found = PromptFit(inverter, references, groups)(images, prompts, own)
    compared = [[0, 1, 3, 4, 5, 6, 7, 8], range(8), range(8)]  # eight, and none of its own group
    for image, prompt, fit, beside in zip(images, prompts, found, compared, strict=True):
        others = [log_likelihood(references[i], prompt) for i in beside]
        alone = math.log(sum(math.exp(value) for value in others) / len(others))
        tokens = len(inverter.tokenizer.encode(prompt)) + 1
        assert fit == pytest.approx((log_likelihood(image, prompt) - alone) / tokens, abs=1e-4)
    with pytest.raises(ValueError, match="to compare with"):
        PromptFit(inverter, references[:1], groups[:1])
    with pytest.raises(ValueError, match="each of another group"):
        PromptFit(inverter, references[:2], ["a", "a"])
    with torch.no_grad():
        inverter.model.decoder.output_bias[3] = float("nan")
    with pytest.raises(NotFiniteError, match="output_bias holds some"):
        PromptFit(inverter, references, groups)(images, prompts, own)
