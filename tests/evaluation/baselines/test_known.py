import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from examples import painted
from listed import ListedPairs
from PIL import Image
from safetensors.torch import save_file

from data.errors import PairError
from data.sources.chosen import spread
from data.store.pairs import Pair
from evaluation.baselines.known import Constant, ImageFeatures, Nearest
from evaluation.baselines.named import Known
from evaluation.captioners import Caption, CaptionerError

IMAGES = [painted("cat", "red"), painted("dog", "blue"), painted("owl", "green")]
PROMPTS = ["a red cat", "a blue dog", "a green owl"]


def said(captions: list[Caption]) -> list[str]:
    return [caption.text for caption in captions]


def test_nearest_finds_a_disturbed_training_image() -> None:
    nearest = Nearest(zip(IMAGES, PROMPTS, strict=True))
    disturbed = [Image.blend(image, Image.new("RGB", image.size, "white"), 0.1).resize((50, 50)) for image in IMAGES]
    assert said(nearest.caption(disturbed[::-1])) == PROMPTS[::-1]


def test_nearest_is_a_matter_of_distance_and_not_of_brightness() -> None:
    greys = [Image.new("RGB", (20, 20), (level,) * 3) for level in (0, 60, 255)]
    nearest = Nearest(zip(greys, ["black", "grey", "white"], strict=True))
    assert said(nearest.caption([Image.new("RGB", (20, 20), (level,) * 3) for level in (10, 70, 200)])) == ["black", "grey", "white"]


def save_timm(directory: Path) -> torch.nn.Module:
    """A small model as timm publishes them."""
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=0).eval()
    directory.mkdir()
    config = {
        "architecture": "test_vit",
        "num_classes": 0,
        "pretrained_cfg": {"input_size": [3, 160, 160], "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.2], "crop_pct": 1.0},
    }
    (directory / "config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), directory / "model.safetensors")
    return model


def test_nearest_by_an_encoder_is_what_timm_says(tmp_path: Path) -> None:
    model = save_timm(tmp_path / "vit")
    draw = np.random.default_rng(0)
    known = [Image.fromarray(draw.integers(0, 255, (160, 160, 3), dtype=np.uint8)) for _ in range(70)]
    queries = [Image.fromarray(draw.integers(0, 255, (160, 160, 3), dtype=np.uint8)) for _ in range(5)]
    features = ImageFeatures(str(tmp_path / "vit"))

    def see(images: list[Image.Image]) -> torch.Tensor:
        pixels = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 for image in images])
        pixels = (pixels - torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)) / torch.tensor([0.2, 0.3, 0.2]).view(3, 1, 1)
        with torch.inference_mode():
            return torch.nn.functional.normalize(model(pixels), dim=-1)

    expected = (see(queries) @ see(known).T).argmax(1).tolist()
    nearest = Nearest(zip(known, map(str, range(70)), strict=True), features)
    assert [int(text) for text in said(nearest.caption(queries))] == expected
    assert nearest.about.parameters > 300_000
    assert nearest.about.fingerprint != Nearest(zip(known, map(str, range(70)), strict=True)).about.fingerprint
    with pytest.raises(CaptionerError, match="no_such_model could not be loaded"):
        ImageFeatures("no_such_model")


def test_other_pictures_of_the_same_prompts_are_another_baseline(tmp_path: Path) -> None:
    """So that what it wrote before is not taken for what it would write."""
    one = Nearest(zip(IMAGES, PROMPTS, strict=True)).about.fingerprint
    assert one == Nearest(zip(IMAGES, PROMPTS, strict=True)).about.fingerprint
    assert one != Nearest(zip(IMAGES[::-1], PROMPTS, strict=True)).about.fingerprint
    assert one != Nearest(zip(IMAGES, PROMPTS[::-1], strict=True)).about.fingerprint
    assert Constant(PROMPTS).about.fingerprint != Constant(PROMPTS[:2]).about.fingerprint
    save_timm(tmp_path / "vit")
    features = ImageFeatures(str(tmp_path / "vit")).fingerprint
    about = json.loads((tmp_path / "vit" / "config.json").read_text())
    about["pretrained_cfg"]["mean"] = [0.1, 0.1, 0.1]
    (tmp_path / "vit" / "config.json").write_text(json.dumps(about))
    assert ImageFeatures(str(tmp_path / "vit")).fingerprint != features


def test_constant_is_the_most_frequent_or_the_most_ordinary() -> None:
    often = Constant(["b", "a", "b"])
    assert often.caption(IMAGES) == [Caption("b", pytest.approx(2 / 3))] * 3
    assert often.about.blind
    assert Constant(["a cat neon", "a dog neon", "some thing"]).text in ("a cat neon", "a dog neon")
    assert Constant(["a cat", "a dog", "a cat and a dog and much else that nobody says"]).text in ("a cat", "a dog")
    for nothing in (lambda: Constant([]), lambda: Nearest([])):
        with pytest.raises(CaptionerError, match="no training"):
            nothing()


def test_who_knows_prompts_reads_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pictureless(ListedPairs):
        def image(self, index: int) -> Image.Image:
            pytest.fail("a picture was read")

        __getitem__ = image  # type: ignore[assignment]

        def prompt(self, index: int) -> str:
            if index == 3:
                raise PairError("no prompt")
            return ["a", "b", " ", "", "c"][index]

        def __len__(self) -> int:
            return 5

        def key(self, index: int) -> str:
            return str(index)

    assert sorted(Known(lambda: Pictureless([])).prompts()) == ["a", "b", "c"]


def test_the_known_pairs_are_some_from_all_over_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.baselines.named.KNOWN_PAIRS", 20)
    source = ListedPairs([Pair(str(i), Image.new("RGB", (4, 4)), f"p{i}", {}) for i in range(50)])
    first = [source.prompt(number) for number in spread(source)[:20]]
    known = Known(lambda: source)
    assert [prompt for _, prompt in known.pairs()] == known.prompts() == first


def test_an_encoder_with_another_weight_is_another(tmp_path: Path) -> None:
    model = save_timm(tmp_path / "vit")
    before = ImageFeatures(str(tmp_path / "vit")).fingerprint
    assert ImageFeatures(str(tmp_path / "vit")).fingerprint == before
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    weights["norm.weight"][[0, 1]] += torch.tensor([0.5, -0.5])  # their sum is the same
    save_file(weights, tmp_path / "vit" / "model.safetensors")
    assert ImageFeatures(str(tmp_path / "vit")).fingerprint != before
