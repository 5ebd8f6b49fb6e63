import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from examples import painted
from inverters import TOKENIZER, tiny_inverter
from PIL import Image

from data.errors import ImageError
from inference import Prediction, PromptInverter
from inference.files import find_images
from model import CaptionModel, CheckpointError, Preprocessing
from tokenizer import PromptTokenizer

IMAGES = [painted("cat", "red"), painted("dog", "blue"), painted("owl", "green")]


def test_paths_and_pictures_give_the_same_whatever_the_batch(tmp_path: Path) -> None:
    paths = []
    for i, image in enumerate(IMAGES):
        image.save(tmp_path / f"{i}.png")
        paths.append(tmp_path / f"{i}.png")
    one = tiny_inverter()
    together = one.predict(IMAGES, num_beams=2)
    assert [p.prompt for p in one.predict([str(paths[0]), *paths[1:]], num_beams=2, batch_size=1)] == [p.prompt for p in together]
    assert all(isinstance(prediction, Prediction) and prediction.score < 0 for prediction in together)


def test_alternatives_come_best_first() -> None:
    for prediction in tiny_inverter().predict(IMAGES, num_beams=4, num_return_sequences=3):
        scores = [prediction.score, *[other.score for other in prediction.alternatives]]
        assert len(scores) == 3
        assert scores == sorted(scores, reverse=True)


def test_a_forced_start_is_part_of_the_prompt() -> None:
    one = tiny_inverter()
    for prediction in one.predict(IMAGES, num_beams=2, num_return_sequences=2, prefix="two dogs ", max_new_tokens=5):
        assert prediction.prompt.startswith("two dogs")
        assert prediction.alternatives[0][0].startswith("two dogs")
        assert prediction.score == pytest.approx(sum(token.log_prob for token in prediction.tokens) / len(prediction.tokens))
        assert prediction.prompt == "two dogs" + "".join(token.text for token in prediction.tokens)


def test_a_seed_draws_the_same_for_a_picture_whatever_the_batch_and_the_order() -> None:
    one = tiny_inverter()

    def prompts(images: list[Any], batch_size: int, seed: int = 3) -> list[str]:
        return [p.prompt for p in one.predict(images, do_sample=True, temperature=2.0, seed=seed, batch_size=batch_size, max_new_tokens=8)]

    together = prompts(IMAGES, 8)
    assert prompts(IMAGES, 1) == together
    assert prompts(IMAGES[::-1], 2) == together[::-1]
    assert len(set(together)) == 3
    assert prompts(IMAGES, 8, seed=4) != together


def test_draws_that_cannot_be_asked_for_are_named() -> None:
    for arguments, message in (({"seed": 1.5}, "seed"), ({"top_k": 1.5}, "top_k"), ({"num_return_sequences": 1.5}, "num_return_sequences")):
        with pytest.raises(ValueError, match=f"{message} must be a whole number"):
            tiny_inverter().predict(IMAGES, do_sample=True, **arguments)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"device": "meta"}, "device must be 'auto'"),
        ({"device": "nowhere"}, "device must be 'auto'"),
        ({"dtype": None}, "dtype must be 'auto'"),
        ({"dtype": "int8"}, "dtype must be 'auto'"),
        ({"dtype": torch.float8_e4m3fn}, "dtype must be 'auto'"),
    ],
)
def test_devices_and_types_that_are_not_there_are_named(tmp_path: Path, place: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PromptInverter.from_pretrained(damaged(tmp_path), **place)


def test_the_batch_size_is_the_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    one, batches = tiny_inverter(), list[int]()
    encode = CaptionModel.encode
    monkeypatch.setattr(CaptionModel, "encode", lambda self, pixels: batches.append(len(pixels)) or encode(self, pixels))
    one.predict(IMAGES * 2, batch_size=4)
    assert batches == [4, 2]


def test_a_fingerprint_is_of_weights_tokenizer_and_config() -> None:
    one = tiny_inverter()
    found = [tiny_inverter().fingerprint()]
    assert one.fingerprint() == found[0]
    with torch.no_grad():
        one.model.decoder.output_bias[3] += 1e-3
    found.append(one.fingerprint())
    one = tiny_inverter()
    one.model.config = dataclasses.replace(one.model.config, preprocessing=Preprocessing(image_size=32, mean=(0.4, 0.5, 0.5)))
    found.append(one.fingerprint())
    one = tiny_inverter()
    one.tokenizer = PromptTokenizer.train(["other words of other texts"] * 3, vocab_size=TOKENIZER.vocab_size)
    found.append(one.fingerprint())
    assert len(set(found)) == 4


def test_every_argument_arrives() -> None:
    """One that were not handed on would change nothing."""
    one = tiny_inverter()
    with torch.no_grad():
        one.model.decoder.output_bias[one.tokenizer.eos_id] += 4.0
    searched = one.predict(IMAGES, num_beams=3, num_return_sequences=2)
    for changes in (
        {"length_penalty": 3.0},
        {"min_new_tokens": 9},
        {"max_new_tokens": 2},
        {"num_beams": 5},
        {"prefix": "two"},
    ):
        assert one.predict(IMAGES, **({"num_beams": 3, "num_return_sequences": 2} | changes)) != searched, changes
    assert all(len(p.tokens) > 9 for p in one.predict(IMAGES, min_new_tokens=9))
    drawn = one.predict(IMAGES, do_sample=True, seed=1, num_return_sequences=3)
    for changes in (
        {"temperature": 4.0},
        {"top_k": 1},
        {"top_p": 0.1},
        {"min_new_tokens": 9},
        {"max_new_tokens": 2},
        {"prefix": "two"},
        {"num_return_sequences": 2},
    ):
        assert one.predict(IMAGES, do_sample=True, **({"seed": 1, "num_return_sequences": 3} | changes)) != drawn, changes


def test_whatever_holds_a_picture_gives_the_same(tmp_path: Path) -> None:
    one, image = tiny_inverter(), painted("cat", "red", 32)
    image.save(tmp_path / "a.png")
    array = np.asarray(image)
    sources = [image, tmp_path / "a.png", str(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes(), array, torch.tensor(array).permute(2, 0, 1)]
    (expected,) = one.predict([image])
    assert one.predict(source for source in sources) == one.predict([image] * len(sources))
    assert one.predict(np.stack([array, array]))[0].prompt == expected.prompt
    grey = image.convert("L")
    assert one.predict(np.asarray(grey)) == one.predict(grey)  # one picture, and not its rows
    assert one.predict([np.asarray(grey)]) == one.predict([grey]) == one.predict([torch.tensor(np.asarray(grey))[None]])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (3, "a picture or a list of them, not int"),
        ([3], "not int"),
        ([np.zeros((4, 4, 3))], "pixels are uint8"),
        ([torch.zeros(4, 4, 3, dtype=torch.uint8)], r"a tensor of a picture is \(3, H, W\)"),
        ([np.zeros((4, 4, 2), np.uint8)], r"an array of a picture is \(H, W\)"),
        ([np.zeros((1, 4, 4, 3), np.uint8)], r"an array of a picture is \(H, W\).*not \(1, 4, 4, 3\)"),
    ],
)
def test_what_is_no_picture_is_told_what_to_pass(images: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        tiny_inverter().predict(images)


def test_a_pil_image_is_read_as_its_file_is(tmp_path: Path) -> None:
    """Turned by EXIF, sixteen bits, and no larger than a file may be."""
    one = tiny_inverter()
    wide = Image.new("RGB", (40, 20), "white")
    wide.paste((200, 0, 0), (0, 0, 20, 20))
    exif = Image.Exif()
    exif[274] = 6
    wide.save(tmp_path / "turned.jpg", exif=exif, quality=100)
    Image.fromarray(np.arange(1600, dtype=np.uint16).reshape(40, 40) * 40).save(tmp_path / "deep.png")
    for name in ("turned.jpg", "deep.png"):
        with Image.open(tmp_path / name) as opened:
            assert one.predict([opened]) == one.predict([tmp_path / name])
    with pytest.raises(ImageError, match="0 x 0 pixels are no picture"):
        one.predict([Image.new("RGB", (0, 0))])
    with Image.open(tmp_path / "turned.jpg") as large:
        large._size = (20_000, 20_000)  # as a header may claim
        with pytest.raises(ImageError, match="20000 x 20000 pixels are more than"):
            one.predict([large])


def test_tokens_are_pieces_of_text_that_join_to_the_prompt() -> None:
    one = tiny_inverter()
    halves = one.tokenizer.encode("猫")
    with torch.no_grad():
        one.model.decoder.output_bias[halves] += 3.0
    for prediction in one.predict(IMAGES, do_sample=True, num_return_sequences=4, seed=2):
        assert "".join(token.text for token in prediction.tokens) == prediction.prompt


def test_half_on_a_cpu_works_or_is_named() -> None:
    one = tiny_inverter()
    one.model.half()
    assert len(one.predict(IMAGES)) == 3


def test_a_mistyped_path_is_not_looked_up_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import huggingface_hub

    asked: list[dict[str, Any]] = []

    def download(name: str, **wishes: Any) -> str:
        asked.append({"name": name} | wishes)
        return str(damaged(tmp_path))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for name in ("runs/mini", "runs/mini/model", "./x/y", "nowhere", Path("someone/something")):
        with pytest.raises(CheckpointError, match=r"does not exist|is not a directory"):
            PromptInverter.from_pretrained(name)
    assert asked == []
    PromptInverter.from_pretrained("someone/something", revision="v1")
    assert asked[0]["name"] == "someone/something"
    assert asked[0]["revision"] == "v1"
    assert not any(pattern.endswith((".bin", "*", ".py")) for pattern in asked[0]["allow_patterns"] if pattern != "*.json")
    assert "looking it up on the Hub" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="a revision belongs to a Hub id"):
        PromptInverter.from_pretrained(tmp_path, revision="v1")


def test_samples_follow_the_seed_and_keep_to_the_rules() -> None:
    one = tiny_inverter()
    drawn = one.predict(IMAGES, do_sample=True, num_return_sequences=3, temperature=1.5, top_k=20, seed=4, prefix="a cat", max_new_tokens=6)
    assert drawn == one.predict(IMAGES, do_sample=True, num_return_sequences=3, temperature=1.5, top_k=20, seed=4, prefix="a cat", max_new_tokens=6)
    assert drawn != one.predict(IMAGES, do_sample=True, num_return_sequences=3, temperature=1.5, top_k=20, seed=5, prefix="a cat", max_new_tokens=6)
    for prediction in drawn:
        assert len(prediction.alternatives) == 2
        assert all(text.startswith("a cat") for text in (prediction.prompt, *(other.prompt for other in prediction.alternatives)))
        assert prediction.score >= prediction.alternatives[0][1] >= prediction.alternatives[1][1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bad_words": [" "]}, "empty word"),
        ({"batch_size": 0}, "batch_size must be a whole number, 1 or more"),
        ({"prefix": "cat " * 40}, r"the prefix has \d+ tokens"),
    ],
)
def test_what_cannot_be_asked_for_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_inverter().predict(IMAGES, **arguments)


def test_no_images_no_predictions() -> None:
    assert tiny_inverter().predict([]) == []


def test_saved_and_loaded_it_predicts_the_same(tmp_path: Path) -> None:
    one = tiny_inverter()
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
    tiny_inverter().save_pretrained(tmp_path / "model")
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
        tiny_inverter().predict([tmp_path / "none.png"])


def test_folders_give_their_pictures_in_order(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("b/2.PNG", "b/1.jpg", "a.webp", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    closed: list[Path] = []

    def found(*paths: Path) -> list[str]:
        return [file.name for file, _ in find_images(paths, lambda folder, error: closed.append(folder))]

    assert found(tmp_path) == ["a.webp", "1.jpg", "2.PNG"]
    assert found(tmp_path / "notes.txt") == ["notes.txt"]
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        found(tmp_path / "nowhere")
    for ending in ("jfif", "jpe", "tga", "jp2", "ppm", "ico"):
        (tmp_path / f"b/x.{ending}").write_bytes(b"")
    assert len(found(tmp_path)) == 9
    assert closed == []
