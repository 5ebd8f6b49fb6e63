"""BLIP and GIT at tiny sizes with random weights, built and saved here, loaded by path as a user would."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from examples import painted
from safetensors.torch import load_file, save_file

from evaluation.baselines.transformers_models import HuggingFace
from evaluation.captioners import CaptionerError

IMAGES = [painted("cat", "red"), painted("dog", "blue"), painted("owl", "green")]


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


def save_blip2(directory: Path) -> None:
    from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor, BlipImageProcessor

    torch.manual_seed(0)
    tokenizer = bert_tokenizer(directory)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})  # type: ignore[attr-defined]
    size = len(tokenizer)  # type: ignore[arg-type]
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"model_type": "opt", "vocab_size": size, "hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"word_embed_proj_dim": 16, "max_position_embeddings": 80, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    config = Blip2Config(
        vision_config=small | {"image_size": 32, "patch_size": 16},
        qformer_config=small | {"vocab_size": size, "encoder_hidden_size": 16, "cross_attention_frequency": 1},
        text_config=text,
        num_query_tokens=4,
        image_token_index=size - 1,
    )
    Blip2ForConditionalGeneration(config).save_pretrained(directory)
    Blip2Processor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer, num_query_tokens=4).save_pretrained(directory)


def test_blip2_writes_what_transformers_makes_it_write(tmp_path: Path) -> None:
    from transformers import AutoProcessor, Blip2ForConditionalGeneration

    save_blip2(tmp_path)
    model, processor = Blip2ForConditionalGeneration.from_pretrained(tmp_path).eval(), AutoProcessor.from_pretrained(tmp_path)
    for beams in (1, 3):
        tokens = model.generate(**processor(images=IMAGES, return_tensors="pt"), num_beams=beams, max_new_tokens=5)
        expected = [text.strip() for text in processor.batch_decode(tokens, skip_special_tokens=True)]
        captions = build(f"blip2={tmp_path}", beams).caption(IMAGES)
        assert [caption.text for caption in captions] == expected
        assert all(caption.confidence is not None and 0 < caption.confidence < 1 for caption in captions)


def build(spec: str, num_beams: int = 2) -> HuggingFace:
    name, _, source = spec.partition("=")
    return HuggingFace(name, source, num_beams=num_beams, max_new_tokens=5, device=torch.device("cpu"))


@pytest.mark.parametrize(("kind", "save"), [("git", save_git), ("blip", save_blip)])
def test_a_checkpoint_directory_captions_every_image(tmp_path: Path, kind: str, save: Callable[[Path], None]) -> None:
    save(tmp_path)
    captioner = build(f"{kind}={tmp_path}")
    texts = captioner.caption(IMAGES)
    assert len(texts) == 3
    assert [text.text for text in texts] == [captioner.caption([image])[0].text for image in IMAGES]
    assert captioner.about.parameters == sum(parameter.numel() for parameter in captioner.captioner.network.parameters())
    assert (captioner.about.source, captioner.about.precision) == (str(tmp_path), "float32")
    half = HuggingFace(kind, str(tmp_path), device="cpu", dtype=torch.bfloat16)
    assert {weights.dtype for weights in half.captioner.network.parameters()} == {torch.bfloat16}
    assert half.about.precision == "bfloat16"
    assert len(half.caption(IMAGES)) == 3


@pytest.mark.parametrize(("kind", "save"), [("git", save_git), ("blip", save_blip)])
def test_they_write_what_their_documentation_makes_them_write(tmp_path: Path, kind: str, save: Callable[[Path], None]) -> None:
    """Pixels normalised and beams searched as asked for; the confidence is the probability of all that was written."""
    import transformers

    save(tmp_path)
    model = (transformers.GitForCausalLM if kind == "git" else transformers.BlipForConditionalGeneration).from_pretrained(tmp_path).eval()
    processor = transformers.AutoProcessor.from_pretrained(tmp_path)
    image_processor = processor.image_processor
    mean, std = torch.tensor(image_processor.image_mean).view(3, 1, 1), torch.tensor(image_processor.image_std).view(3, 1, 1)
    images = [image.resize((32, 32)) for image in IMAGES]  # so that nothing is left to resize
    pixels = torch.stack([(torch.tensor(np.array(image)).permute(2, 0, 1) / 255 - mean) / std for image in images])
    for beams in (1, 2, 5):
        tokens = model.generate(pixel_values=pixels, num_beams=beams, max_new_tokens=5)
        expected = [text.strip() for text in processor.batch_decode(tokens, skip_special_tokens=True)]
        captions = build(f"{kind}={tmp_path}", beams).caption(images)
        assert [caption.text for caption in captions] == expected
        with torch.no_grad():
            logits = model(pixel_values=pixels, input_ids=tokens).logits[:, -tokens.shape[1] : -1].log_softmax(-1)
        each = logits.gather(2, tokens[:, 1:, None])[..., 0]
        ended = (tokens[:, 1:] == 3).cumsum(1) - (tokens[:, 1:] == 3).long() > 0
        assert [caption.confidence for caption in captions] == pytest.approx(each.masked_fill(ended, 0).sum(1).exp().tolist(), rel=1e-3)


def test_what_would_be_scored_though_it_is_something_else_is_refused(tmp_path: Path) -> None:
    save_git(tmp_path / "git")
    save_blip(tmp_path / "blip")
    for spec, message in (("blip=git", "holds a model of the type 'git'"), ("git=blip", "holds a model of the type 'blip'")):
        kind, _, directory = spec.partition("=")
        with pytest.raises(CaptionerError, match=message):
            build(f"{kind}={tmp_path / directory}")
    for kind in ("git", "blip"):
        bare = tmp_path / f"bare-{kind}"
        bare.mkdir()
        for name in ("config.json", "model.safetensors", "preprocessor_config.json", "processor_config.json"):
            if (tmp_path / kind / name).exists():
                shutil.copy(tmp_path / kind / name, bare)
        with pytest.raises(CaptionerError, match=r"has no tokenizer|could not be loaded"):
            build(f"{kind}={bare}")
        weights = load_file(tmp_path / kind / "model.safetensors")
        lost = sorted(weights)[3]
        save_file({name: value for name, value in weights.items() if name != lost}, tmp_path / kind / "model.safetensors", {"format": "pt"})
        with pytest.raises(CaptionerError, match=r"the weights in .* lack"):
            build(f"{kind}={tmp_path / kind}")
        content = (tmp_path / kind / "model.safetensors").read_bytes()
        (tmp_path / kind / "model.safetensors").write_bytes(content[: len(content) // 2])
        with pytest.raises(CaptionerError, match="could not be loaded"):
            build(f"{kind}={tmp_path / kind}")


def test_errors_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CaptionerError, match="neither a directory nor a Hub id"):
        build("blip=no-such-dir")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CaptionerError, match=r"hf download microsoft/git-base-coco --local-dir DIR, then --baseline git=DIR"):
        build("git")


def test_other_weights_are_another_captioner(tmp_path: Path) -> None:
    save_git(tmp_path)
    before = build(f"git={tmp_path}").about.fingerprint
    assert build(f"git={tmp_path}").about.fingerprint == before
    weights = load_file(tmp_path / "model.safetensors")
    name = sorted(weights)[5]
    weights[name].flatten()[:2] = weights[name].flatten()[:2].flip(0) + 0.01
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    assert build(f"git={tmp_path}").about.fingerprint != before


def test_they_search_as_their_authors_have_it_unless_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_blip(tmp_path)
    from evaluation.baselines import transformers_models

    kind, _, published = transformers_models.MODELS["blip"]
    monkeypatch.setitem(transformers_models.MODELS, "blip", (kind, str(tmp_path), published))

    def arguments(source: str = "", **told: int) -> dict[str, int]:
        return HuggingFace("blip", source, device="cpu", **told).arguments  # type: ignore[arg-type]

    assert arguments() == {"num_beams": 3, "min_new_tokens": 5, "max_new_tokens": 20}
    assert arguments(num_beams=2) == {"num_beams": 2, "min_new_tokens": 5, "max_new_tokens": 20}
    assert arguments(max_new_tokens=4) == {"num_beams": 3, "min_new_tokens": 4, "max_new_tokens": 4}
    assert arguments(str(tmp_path)) == {"num_beams": 4, "max_new_tokens": 40}  # perhaps trained on prompts
    captions = HuggingFace("blip", "", device="cpu").caption(IMAGES)
    assert len(captions) == 3
