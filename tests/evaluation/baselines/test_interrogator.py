"""On a tiny CLIP with random weights, against the search written out once more with transformers alone."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from compared import Told
from PIL import Image
from pipelines import save_clip
from transformers import AutoProcessor, CLIPModel

from evaluation.baselines.interrogator import Interrogator
from evaluation.captioners import CaptionerError
from evaluation.config import PHRASES, InterrogatorConfig

WORDS = ["red", "fox", "owls", "beach", "night", "watercolor", "forest", "two"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("clip")
    save_clip(directory)
    return directory


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text("\n".join(WORDS[:5]) + "\n\n red \n")
    (tmp_path / "b.txt").write_text("\n".join(WORDS[5:]))
    return tmp_path


def pictures() -> list[Image.Image]:
    draw = np.random.default_rng(0)
    images = [Image.fromarray(draw.integers(0, 255, (40, 50, 3), dtype=np.uint8)) for _ in range(3)]
    for number, image in enumerate(images):
        image.putpixel((0, 0), (number, 0, 0))
    return images


def written_out(clip: Path, image: Image.Image, caption: str, *, least: int, most: int, candidates: int) -> str:
    """What `Interrogator.chain` of clip-interrogator does after a caption, with nothing but transformers."""
    model, processor = CLIPModel.from_pretrained(clip).eval(), AutoProcessor.from_pretrained(clip)

    def fit(text: str) -> float:
        inputs = processor(images=[image], text=[text], truncation=True, return_tensors="pt")
        with torch.no_grad():
            return float(model(**inputs).logits_per_image) / float(model.logit_scale.exp())

    left = sorted(WORDS, key=lambda word: -fit(word))[:candidates]
    best, best_fit, current, current_fit = caption, fit(caption), caption, fit(caption)
    for number in range(most):
        if not left:
            break
        word = max(left, key=lambda word: fit(f"{current}, {word}"))
        longer = f"{current}, {word}"
        if fit(longer) > best_fit:
            best, best_fit = longer, fit(longer)
        if not (fit(longer) > current_fit or number < least):
            break
        current, current_fit = longer, fit(longer)
        if len(processor.tokenizer(current).input_ids) >= processor.tokenizer.model_max_length:
            break
        left.remove(word)
    return best


@pytest.mark.parametrize(("least", "most", "candidates"), [(0, 8, 100), (3, 8, 100), (8, 8, 100), (2, 3, 4), (0, 0, 100)])
def test_phrases_are_chained_as_clip_interrogator_chains_them(clip: Path, lists: Path, least: int, most: int, candidates: int) -> None:
    told = Told(["a fox", "owls", "red beach"])
    config = InterrogatorConfig(lists=lists, min_phrases=least, max_phrases=most, candidates=candidates)
    found = Interrogator(str(clip), told, config).caption(pictures())
    expected = [
        written_out(clip, image, text, least=least, most=most, candidates=candidates) for image, text in zip(pictures(), told.texts, strict=True)
    ]
    assert [caption.text for caption in found] == expected


class Counting:
    """A CLIP by hand: a text fits better with every different word of red, fox and beach in it, and worse with every other one."""

    def __init__(self, _: str) -> None:
        self.model = torch.nn.Linear(1, 1)
        self.model.dtype = torch.float32  # type: ignore[assignment]
        self.processor = SimpleNamespace(tokenizer=self.tokenizer)

    def tokenizer(self, text: str) -> SimpleNamespace:
        return SimpleNamespace(input_ids=text.split())

    tokenizer.model_max_length = 77  # type: ignore[attr-defined]

    def of_images(self, images: list[Image.Image]) -> torch.Tensor:
        return torch.ones(len(images), 1)

    def of_texts(self, texts: list[str]) -> torch.Tensor:
        words = [{word.strip(",") for word in text.split()} for text in texts]
        return torch.tensor([[len(one & {"red", "fox", "beach"}) - 0.5 * len(one - {"red", "fox", "beach"})] for one in words])

    def fingerprint(self) -> str:
        return "counting"


def test_phrases_that_help_are_chained_and_no_others(lists: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.baselines.interrogator.Clip", Counting)
    for least in (0, 5):
        found = Interrogator("x", Told(["a fox"] * 3), InterrogatorConfig(lists=lists, min_phrases=least, max_phrases=8)).caption(pictures())
        assert [set(caption.text.split(", ")) for caption in found] == [{"a fox", "red", "beach"}] * 3


def test_it_says_what_it_is_made_of(clip: Path, lists: Path) -> None:
    one = Interrogator(str(clip), Told(["x"], source="told", parameters=7), InterrogatorConfig(lists=lists)).about
    assert "8 phrases" in one.source
    assert "captions by told" in one.source
    assert one.parameters == 7 + sum(parameter.numel() for parameter in CLIPModel.from_pretrained(clip).parameters())
    (lists / "b.txt").write_text("other")
    assert Interrogator(str(clip), Told(["x"]), InterrogatorConfig(lists=lists)).about.fingerprint != one.fingerprint


def test_it_is_as_dear_as_careful_and_as_precise_as_what_captions_for_it(clip: Path, lists: Path) -> None:
    told = Told(["x"], batch_size=3, settings={"num_beams": 7})
    one = Interrogator(str(clip), told, InterrogatorConfig(lists=lists))
    assert one.about.batch_size == 3
    assert one.about.settings == {"num_beams": 7, "min_phrases": 8, "max_phrases": 32, "candidates": 2048}
    told.about = dataclasses.replace(told.about, cost=0.5)
    assert one.about.cost == 0.5
    half = Interrogator(str(clip), Told(["x"], precision="bfloat16"), InterrogatorConfig(lists=lists))
    assert half.about.fingerprint != one.about.fingerprint


def test_what_is_missing_is_said(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(CaptionerError, match=r"no \.txt file with a phrase"):
        Interrogator(str(clip), Told(["x"]), InterrogatorConfig(lists=tmp_path / "none"))
    with pytest.raises(CaptionerError, match="then --baseline interrogator=DIR"):
        Interrogator(str(tmp_path), Told(["x"]), InterrogatorConfig())
    for wrong in ({"min_phrases": 9, "max_phrases": 8}, {"candidates": 0}):
        with pytest.raises(ValueError, match="interrogator"):
            InterrogatorConfig(**wrong)


def test_the_lists_in_the_box_are_phrases_each_once() -> None:
    lines = [line for file in sorted(PHRASES.glob("*.txt")) for line in file.read_text().splitlines()]
    assert 150 < len(lines) == len(set(lines)) < 400
    assert all(line == line.strip() and line and "," not in line for line in lines)
