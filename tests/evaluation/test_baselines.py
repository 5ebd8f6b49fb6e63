"""BLIP and GIT at tiny sizes with random weights, built and saved here, loaded by path as a user would."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from examples import painted
from PIL import Image

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


def build(spec: str) -> tuple[str, object]:
    return build_baseline(spec, training_pairs=lambda: zip(IMAGES, PROMPTS, strict=True), num_beams=2, max_new_tokens=5, device=torch.device("cpu"))


@pytest.mark.parametrize(("kind", "save"), [("git", save_git), ("blip", save_blip)])
def test_a_checkpoint_directory_captions_every_image(tmp_path: Path, kind: str, save: Callable[[Path], None]) -> None:
    save(tmp_path)
    name, captioner = build(f"{kind}={tmp_path}")
    assert name == kind
    texts = captioner.caption(IMAGES)
    assert len(texts) == 3
    assert all(isinstance(text, str) for text in texts)
    assert texts == [captioner.caption([image])[0] for image in IMAGES]


def test_nearest_finds_a_disturbed_training_image() -> None:
    nearest = Nearest(zip(IMAGES, PROMPTS, strict=True))
    disturbed = [Image.blend(image, Image.new("RGB", image.size, "white"), 0.1).resize((50, 50)) for image in IMAGES]
    assert nearest.caption(disturbed[::-1]) == PROMPTS[::-1]


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
