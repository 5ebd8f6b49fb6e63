"""mini-blip and mini-git as they lie in the repository."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, BlipForConditionalGeneration, GitForCausalLM

ASSETS = Path(__file__).parents[2] / "assets"
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.mark.parametrize(("name", "network"), [("mini-blip", BlipForConditionalGeneration), ("mini-git", GitForCausalLM)])
def test_transformers_alone_loads_it_and_it_reads_the_examples(name: str, network: type) -> None:
    directory = ASSETS / name
    assert sum(path.stat().st_size for path in directory.iterdir()) <= 6_000_000
    assert {path.suffix for path in directory.iterdir()} <= {".json", ".safetensors", ".md"}
    processor, model = AutoProcessor.from_pretrained(directory), network.from_pretrained(directory)  # type: ignore[attr-defined]
    assert {weight.dtype for weight in model.parameters()} == {torch.float16}
    images = [Image.open(path).convert("RGB") for path in sorted(EXAMPLES.glob("*.png"))]
    prompts = [path.read_text(encoding="utf-8").strip() for path in sorted(EXAMPLES.glob("*.txt"))]
    pixels = processor(images=images, return_tensors="pt").pixel_values
    tokens = model.float().generate(pixel_values=pixels, num_beams=4, max_new_tokens=32)
    texts = processor.batch_decode(tokens, skip_special_tokens=True)
    assert len(texts) == len(prompts) > 3
    words = [(set(text.replace(",", "").split()), set(prompt.replace(",", "").split())) for text, prompt in zip(texts, prompts, strict=True)]
    assert sum(len(one & other) / len(one | other) for one, other in words) / len(words) > 0.7
