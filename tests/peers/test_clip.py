from pathlib import Path

import pytest
import torch
from PIL import Image
from pipelines import save_clip
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, CLIPModel

from peers.clip import Clip, ClipError


def test_the_fit_is_what_clip_itself_says(tmp_path: Path) -> None:
    save_clip(tmp_path)
    images = [Image.effect_noise((50, 40), 30 * i + 20).convert("RGB") for i in range(3)]
    prompts = ["a red fox", "two owls on a beach at night, watercolor", "a red fox in a forest " * 40]  # the last is longer than CLIP reads
    found = Clip(str(tmp_path))(images, prompts)
    model, processor = CLIPModel.from_pretrained(tmp_path).eval(), AutoProcessor.from_pretrained(tmp_path)
    for image, prompt, fit in zip(images, prompts, found, strict=True):
        inputs = processor(images=[image], text=[prompt], truncation=True, return_tensors="pt")
        with torch.no_grad():
            output = model(**inputs)
        assert fit == pytest.approx(float(output.logits_per_image / output.logits_per_image.new_tensor(model.logit_scale.item()).exp()), abs=1e-5)


def test_a_clip_of_which_parts_would_be_drawn_by_chance_is_refused(tmp_path: Path) -> None:
    save_clip(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({name: value for name, value in weights.items() if not name.startswith("text_model")}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ClipError, match=r"the weights of .* lack text_model.* and \d+ more"):
        Clip(str(tmp_path))
    broken = {name: torch.full_like(value, float("nan")) if value.is_floating_point() else value for name, value in weights.items()}
    save_file(broken, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ClipError, match="NaN or infinity"):
        Clip(str(tmp_path))([Image.new("RGB", (40, 40))], ["a"])


def test_a_clip_without_its_tokenizer_is_refused(tmp_path: Path) -> None:
    save_clip(tmp_path)
    for file in tmp_path.iterdir():
        if "token" in file.name or file.name in ("vocab.json", "merges.txt"):
            file.unlink()
    with pytest.raises(ClipError, match=r"has no tokenizer|could not be loaded"):
        Clip(str(tmp_path))


def test_two_clips_have_two_fingerprints(tmp_path: Path) -> None:
    save_clip(tmp_path)
    one = Clip(str(tmp_path))
    before = one.fingerprint()
    assert Clip(str(tmp_path)).fingerprint() == before
    with torch.no_grad():
        next(one.model.parameters()).add_(1e-3)
    assert one.fingerprint() != before


def test_what_is_no_clip_is_refused(tmp_path: Path, tiny_pipeline: Path) -> None:
    for name in ("someone/not-a-clip", str(tmp_path)):
        with pytest.raises(ClipError, match="could not be loaded"):
            Clip(name)
