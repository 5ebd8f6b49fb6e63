"""BLIP and GIT at tiny sizes with random weights, built and saved here, loaded by path as a user would."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from examples import painted
from PIL import Image
from safetensors.torch import load_file, save_file

from evaluation.baselines import BaselineError, Constant, Nearest, build_baseline

IMAGES = [painted("cat", "red"), painted("dog", "blue"), painted("owl", "green")]
PROMPTS = ["a red cat", "a blue dog", "a green owl"]


def bert_tokenizer(directory: Path) -> object:
    from transformers import BertTokenizer

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]", *"abcdefghijklmnopqrstuvwxyz", "cat", "dog", "red"]
    return BertTokenizer(vocab={word: i for i, word in enumerate(vocabulary)})


def save_git(directory: Path) -> None:
    from transformers import CLIPImageProcessor, GitConfig, GitForCausalLM, GitProcessor

    torch.manual_seed(0)
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 16}
    config = GitConfig(
        vision_config=vision,
        vocab_size=36,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        bos_token_id=2,
        eos_token_id=3,
    )
    GitForCausalLM(config).save_pretrained(directory)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    GitProcessor(images, bert_tokenizer(directory)).save_pretrained(directory)


def save_blip(directory: Path) -> None:
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = small | {"vocab_size": 36, "encoder_hidden_size": 16, "bos_token_id": 5, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    config = BlipConfig(text_config=text, vision_config=small | {"image_size": 32, "patch_size": 16})
    BlipForConditionalGeneration(config).save_pretrained(directory)
    BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), bert_tokenizer(directory)).save_pretrained(directory)


def build(spec: str) -> Any:
    return build_baseline(spec, training_pairs=lambda: zip(IMAGES, PROMPTS, strict=True), num_beams=2, max_new_tokens=5, device=torch.device("cpu"))


@pytest.mark.parametrize(("kind", "save"), [("git", save_git), ("blip", save_blip)])
def test_a_checkpoint_directory_captions_every_image(tmp_path: Path, kind: str, save: Callable[[Path], None]) -> None:
    save(tmp_path)
    captioner = build(f"{kind}={tmp_path}")
    texts = captioner.caption(IMAGES)
    assert len(texts) == 3
    assert all(isinstance(text, str) for text in texts)
    assert texts == [captioner.caption([image])[0] for image in IMAGES]


@pytest.mark.parametrize(("kind", "save"), [("git", save_git), ("blip", save_blip)])
def test_they_write_what_their_documentation_makes_them_write(tmp_path: Path, kind: str, save: Callable[[Path], None]) -> None:
    """Pixels normalised and beams searched as asked for."""
    import transformers

    save(tmp_path)
    model = (transformers.GitForCausalLM if kind == "git" else transformers.BlipForConditionalGeneration).from_pretrained(tmp_path).eval()
    processor = transformers.AutoProcessor.from_pretrained(tmp_path)
    image_processor = processor.image_processor
    mean, std = torch.tensor(image_processor.image_mean).view(3, 1, 1), torch.tensor(image_processor.image_std).view(3, 1, 1)
    images = [image.resize((32, 32)) for image in IMAGES]  # so that nothing is left to resize
    pixels = torch.stack([(torch.tensor(np.array(image)).permute(2, 0, 1) / 255 - mean) / std for image in images])
    ways = {}
    for beams in (1, 2, 5):
        tokens = model.generate(pixel_values=pixels, num_beams=beams, max_new_tokens=5)
        ways[beams] = [text.strip() for text in processor.batch_decode(tokens, skip_special_tokens=True)]
    captioner = build(f"{kind}={tmp_path}")
    assert captioner.caption(images) == ways[2]
    assert captioner.arguments == {"num_beams": 2, "max_new_tokens": 5}
    seen = []
    captioner.model.generate = lambda pixel_values, **arguments: seen.append((pixel_values, arguments)) or torch.zeros(3, 1, dtype=torch.long)
    captioner.caption(images)
    torch.testing.assert_close(seen[0][0], pixels, atol=1e-5, rtol=1e-5)
    assert seen[0][1] == {"num_beams": 2, "max_new_tokens": 5}


def test_what_would_be_scored_though_it_is_something_else_is_refused(tmp_path: Path) -> None:
    save_git(tmp_path / "git")
    save_blip(tmp_path / "blip")
    for spec, message in (("blip=git", "holds a model of the type 'git'"), ("git=blip", "holds a model of the type 'blip'")):
        kind, _, directory = spec.partition("=")
        with pytest.raises(BaselineError, match=message):
            build(f"{kind}={tmp_path / directory}")
    for kind in ("git", "blip"):
        bare = tmp_path / f"bare-{kind}"
        bare.mkdir()
        for name in ("config.json", "model.safetensors", "preprocessor_config.json", "processor_config.json"):
            if (tmp_path / kind / name).exists():
                shutil.copy(tmp_path / kind / name, bare)
        with pytest.raises(BaselineError, match=r"has no tokenizer|could not be loaded"):
            build(f"{kind}={bare}")
        weights = load_file(tmp_path / kind / "model.safetensors")
        lost = sorted(weights)[3]
        save_file({name: value for name, value in weights.items() if name != lost}, tmp_path / kind / "model.safetensors", {"format": "pt"})
        with pytest.raises(BaselineError, match=r"the weights in .* lack"):
            build(f"{kind}={tmp_path / kind}")
        content = (tmp_path / kind / "model.safetensors").read_bytes()
        (tmp_path / kind / "model.safetensors").write_bytes(content[: len(content) // 2])
        with pytest.raises(BaselineError, match="could not be loaded"):
            build(f"{kind}={tmp_path / kind}")


def test_nearest_finds_a_disturbed_training_image() -> None:
    nearest = Nearest(zip(IMAGES, PROMPTS, strict=True))
    disturbed = [Image.blend(image, Image.new("RGB", image.size, "white"), 0.1).resize((50, 50)) for image in IMAGES]
    assert nearest.caption(disturbed[::-1]) == PROMPTS[::-1]


def test_nearest_is_a_matter_of_distance_and_not_of_brightness() -> None:
    greys = [Image.new("RGB", (20, 20), (level,) * 3) for level in (0, 60, 255)]
    nearest = Nearest(zip(greys, ["black", "grey", "white"], strict=True))
    assert nearest.caption([Image.new("RGB", (20, 20), (level,) * 3) for level in (10, 70, 200)]) == ["black", "grey", "white"]


def test_constant_is_the_most_frequent_or_the_most_ordinary() -> None:
    assert Constant(["b", "a", "b"]).caption(IMAGES) == ["b"] * 3
    assert Constant(["a cat neon", "a dog neon", "some thing"]).text in ("a cat neon", "a dog neon")


@pytest.mark.parametrize(
    ("spec", "message"),
    [("bllip", "unknown baseline 'bllip'; there are constant, nearest, blip, git"), ("blip=no-such-dir", "neither a directory nor a Hub id")],
)
def test_errors_say_what_to_do(spec: str, message: str) -> None:
    with pytest.raises(BaselineError, match=message):
        build(spec)


def test_without_a_network_the_error_names_the_way_out() -> None:
    with pytest.raises(BaselineError, match="give a downloaded directory: --baseline git=DIR"):
        build("git=someone/nothing")
