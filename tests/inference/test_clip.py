from pathlib import Path

import pytest
import torch
from PIL import Image
from pipelines import save_clip
from transformers import AutoProcessor, CLIPModel

from inference.clip import ClipError, ClipFit


def test_the_fit_is_what_clip_itself_says(tmp_path: Path) -> None:
    save_clip(tmp_path)
    images = [Image.effect_noise((50, 40), 30 * i + 20).convert("RGB") for i in range(3)]
    prompts = ["a red fox", "two owls on a beach at night, watercolor", "a red fox in a forest " * 40]  # the last is longer than CLIP reads
    found = ClipFit(str(tmp_path))(images, prompts)
    model, processor = CLIPModel.from_pretrained(tmp_path).eval(), AutoProcessor.from_pretrained(tmp_path)
    for image, prompt, fit in zip(images, prompts, found, strict=True):
        inputs = processor(images=[image], text=[prompt], truncation=True, return_tensors="pt")
        with torch.no_grad():
            output = model(**inputs)
        assert fit == pytest.approx(float(output.logits_per_image / output.logits_per_image.new_tensor(model.logit_scale.item()).exp()), abs=1e-5)


def test_what_is_no_clip_is_refused(tmp_path: Path, tiny_pipeline: Path) -> None:
    for name in ("someone/not-a-clip", str(tmp_path)):
        with pytest.raises(ClipError, match="could not be loaded"):
            ClipFit(name)
