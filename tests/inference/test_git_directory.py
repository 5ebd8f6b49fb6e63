"""A directory of Hugging Face's GIT, from image files to text, against their own way of using it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from gits import WORDS, save_git
from PIL import Image
from transformers import AutoProcessor

from inference import PromptInverter
from model import CheckpointError


def photographs(directory: Path) -> list[Path]:
    """Smooth pictures of several shapes."""
    rng = np.random.default_rng(0)
    paths = []
    for i, size in enumerate([(64, 64), (90, 41), (33, 70), (32, 32), (200, 120)]):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        path = directory / f"{i}.png"
        coarse.resize(size, Image.Resampling.BICUBIC).save(path)
        paths.append(path)
    return paths


@pytest.mark.parametrize("num_beams", [1, 4])
def test_files_become_the_same_text(tmp_path: Path, num_beams: int) -> None:
    theirs = save_git(tmp_path / "git")
    processor = AutoProcessor.from_pretrained(tmp_path / "git")
    paths = photographs(tmp_path)
    pixel_values = processor(images=[Image.open(path) for path in paths], return_tensors="pt").pixel_values
    tokens = theirs.generate(pixel_values=pixel_values, num_beams=num_beams, max_new_tokens=64, do_sample=False)
    expected = processor.batch_decode(tokens, skip_special_tokens=True)

    inverter = PromptInverter.from_pretrained(tmp_path / "git", device="cpu")
    preprocessed = torch.stack([inverter.preprocess(Image.open(path).convert("RGB")) for path in paths])
    torch.testing.assert_close(preprocessed, pixel_values, atol=2.1 / 255 / 0.26, rtol=0)  # two levels of 8 bits: the resizers round apart
    found = [prediction.prompt for prediction in inverter.predict(paths, num_beams=num_beams)]
    assert found == [text.strip() for text in expected]
    assert len(set(found)) > 1


def test_a_tokenizer_of_another_vocabulary_is_named(tmp_path: Path) -> None:
    save_git(tmp_path / "git")
    path = tmp_path / "git" / "tokenizer.json"
    content = json.loads(path.read_text())
    del content["model"]["vocab"]["on"]
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=f"the tokenizer has {len(WORDS) - 1} tokens, the network {len(WORDS)}"):
        PromptInverter.from_pretrained(tmp_path / "git")


def test_a_text_that_looks_special_stays_text(tmp_path: Path) -> None:
    save_git(tmp_path / "git")
    tokenizer = PromptInverter.from_pretrained(tmp_path / "git").tokenizer
    assert not {tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id} & set(tokenizer.encode("[SEP] a cat [CLS]"))
    assert tokenizer.decode(tokenizer.encode("a cat on a dog")) == "a cat on a dog"
