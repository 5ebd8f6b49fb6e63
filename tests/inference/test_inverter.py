from pathlib import Path
from typing import Any

import pytest
import torch
from examples import lively, painted, tiny_config

from data.errors import ImageError
from inference import Prediction, PromptInverter
from inference.files import find_images
from model import CaptionModel, CheckpointError
from tokenizer import PromptTokenizer

TOKENIZER = PromptTokenizer.train(["a cat on a beach", "two dogs"] * 3, vocab_size=280)


def inverter() -> PromptInverter:
    specials = {"bos_token_id": TOKENIZER.bos_id, "eos_token_id": TOKENIZER.eos_id, "pad_token_id": TOKENIZER.pad_id}
    return PromptInverter(lively(CaptionModel(tiny_config(vocab_size=TOKENIZER.vocab_size, **specials))), TOKENIZER)


IMAGES = [painted("cat", "red"), painted("dog", "blue"), painted("owl", "green")]


def test_paths_and_pictures_give_the_same_whatever_the_batch(tmp_path: Path) -> None:
    paths = []
    for i, image in enumerate(IMAGES):
        image.save(tmp_path / f"{i}.png")
        paths.append(tmp_path / f"{i}.png")
    one = inverter()
    together = one.predict(IMAGES, num_beams=2)
    assert [p.prompt for p in one.predict([str(paths[0]), *paths[1:]], num_beams=2, batch_size=1)] == [p.prompt for p in together]
    assert all(isinstance(prediction, Prediction) and prediction.score < 0 for prediction in together)


def test_alternatives_come_best_first() -> None:
    for prediction in inverter().predict(IMAGES, num_beams=4, num_return=3):
        scores = [prediction.score, *[score for _, score in prediction.alternatives]]
        assert len(scores) == 3
        assert scores == sorted(scores, reverse=True)


def test_a_forced_start_is_part_of_the_prompt() -> None:
    one = inverter()
    for prediction in one.predict(IMAGES, num_beams=2, num_return=2, prefix="two dogs ", max_new_tokens=5):
        assert prediction.prompt.startswith("two dogs")
        assert prediction.alternatives[0][0].startswith("two dogs")
        assert prediction.score == pytest.approx(sum(log_prob for _, log_prob in prediction.tokens) / len(prediction.tokens))
        assert prediction.prompt == "two dogs" + "".join(piece for piece, _ in prediction.tokens)


def test_banned_words_are_not_written() -> None:
    one = inverter()
    free = one.predict(IMAGES, num_beams=3)
    word = next(word for word in free[0].prompt.split() if word.isascii() and len(word) > 1)
    assert any(word in prediction.prompt for prediction in free)
    assert not any(word in prediction.prompt for prediction in one.predict(IMAGES, num_beams=3, banned_words=[word]))


def test_samples_follow_the_seed_and_keep_to_the_rules() -> None:
    one = inverter()
    drawn = one.sample(IMAGES, num_samples=3, temperature=1.5, top_k=20, seed=4, prefix="a cat", max_new_tokens=6)
    assert drawn == one.sample(IMAGES, num_samples=3, temperature=1.5, top_k=20, seed=4, prefix="a cat", max_new_tokens=6)
    assert drawn != one.sample(IMAGES, num_samples=3, temperature=1.5, top_k=20, seed=5, prefix="a cat", max_new_tokens=6)
    for prediction in drawn:
        assert len(prediction.alternatives) == 2
        assert all(text.startswith("a cat") for text in (prediction.prompt, *(text for text, _ in prediction.alternatives)))
        assert prediction.score >= prediction.alternatives[0][1] >= prediction.alternatives[1][1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"banned_words": [" "]}, "empty word"), ({"batch_size": 0}, "batch_size must be 1"), ({"prefix": "cat " * 40}, r"the prefix has \d+ tokens")],
)
def test_what_cannot_be_asked_for_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        inverter().predict(IMAGES, **arguments)


def test_no_images_no_predictions() -> None:
    assert inverter().predict([]) == []


def test_saved_and_loaded_it_predicts_the_same(tmp_path: Path) -> None:
    one = inverter()
    one.save_pretrained(tmp_path / "model")
    assert sorted(file.name for file in (tmp_path / "model").iterdir()) == ["README.md", "config.json", "model.safetensors", "tokenizer.json"]
    again = PromptInverter.from_pretrained(tmp_path / "model", device="cpu")
    for ours, before in zip(again.predict(IMAGES), one.predict(IMAGES), strict=True):
        assert ours.prompt == before.prompt
        assert ours.score == pytest.approx(before.score, abs=1e-5)
    assert again.model.config == one.model.config
    half = PromptInverter.from_pretrained(str(tmp_path / "model"), device="cpu", dtype="bfloat16")
    assert next(half.model.parameters()).dtype == torch.bfloat16
    assert len(half.predict(IMAGES)) == 3


def damaged(tmp_path: Path) -> Path:
    inverter().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_broken_checkpoints_are_named(tmp_path: Path) -> None:
    directory = damaged(tmp_path)
    weights = (directory / "model.safetensors").read_bytes()
    for content in (b"", weights[:100], weights[:-100]):
        (directory / "model.safetensors").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"model\.safetensors is broken"):
            PromptInverter.from_pretrained(directory)
    (directory / "model.safetensors").unlink()
    (directory / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing \(pytorch_model\.bin would be unpickled code"):
        PromptInverter.from_pretrained(directory)


def test_a_config_of_something_else_is_named(tmp_path: Path) -> None:
    directory = damaged(tmp_path)
    config = (directory / "config.json").read_text()
    for content, message in (
        ("{", "is not JSON"),
        ('{"model_type": "bert"}', "not the config.json of a Reprompt model"),
        (config.replace('"width": 32', '"width": 32, "depth": 3'), "unknown keys for ModelConfig: depth"),
        (config.replace('"width": 32', '"width": 64'), r"does not fit its config\.json: size mismatch for .* And \d+ more\."),
    ):
        (directory / "config.json").write_text(content)
        with pytest.raises(CheckpointError, match=message):
            PromptInverter.from_pretrained(directory)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    directory = damaged(tmp_path)
    PromptTokenizer.train(["quite other words, many of them"] * 3, vocab_size=300).save(directory / "tokenizer.json")
    with pytest.raises(CheckpointError, match="belong to different models"):
        PromptInverter.from_pretrained(directory)
    (directory / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json does not exist"):
        PromptInverter.from_pretrained(directory)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere is not a directory"):
        PromptInverter.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="not a directory here, and the Hub did not give it"):
        PromptInverter.from_pretrained("someone/nothing")
    with pytest.raises(ValueError, match="dtype must be"):
        PromptInverter.from_pretrained(damaged(tmp_path), dtype="int8")
    with pytest.raises(ImageError, match=r"none\.png: no such file"):
        inverter().predict([tmp_path / "none.png"])


def test_folders_give_their_pictures_in_order(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("b/2.PNG", "b/1.jpg", "a.webp", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [file.name for file in find_images([tmp_path])] == ["a.webp", "1.jpg", "2.PNG"]
    assert [file.name for file in find_images([tmp_path / "notes.txt"])] == ["notes.txt"]
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        list(find_images([tmp_path / "nowhere"]))
