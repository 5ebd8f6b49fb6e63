"""What is learned after training: the scale of confidence, and which pictures are known."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blips import save_blip
from examples import painted, write_dataset
from gits import save_git
from inverters import tiny_inverter
from PIL import Image

import inference.certainty
from data.errors import ShardError
from data.sources.chosen import ChosenPairs
from data.sources.held_out import HeldOutPictures
from data.sources.opening import open_splits
from diffusion.mini.world import SUBJECTS
from inference import PromptInverter, load_inverter
from inference.certainty import Certainty, CertaintyConfig, fit_familiarity, learn_certainty
from inference.loading import Inverter
from model.confidence import fit_scale
from model.familiarity import FAMILIARITY_FILE, Familiarity
from peers import PeerCaptioner

VALIDATION, KNOWN = 21, 50


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("pairs") / "data", 300)


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference.certainty, "_UPDATES", 25)
    monkeypatch.setattr(inference.certainty, "TRAINING_PICTURES", KNOWN)


def checkpoint(kind: str, directory: Path) -> Path:
    if kind == "ours":
        inverter = tiny_inverter(label_smoothing=0.1)
        with torch.no_grad():
            inverter.model.decoder.output_bias[inverter.tokenizer.eos_id] += 5.0  # short texts, of which some are likely
        inverter.save_pretrained(directory)
    else:
        {"blip": save_blip, "git": save_git}[kind](directory)
    return directory


def learn(directory: Path, pairs: Path, **options: Any) -> Certainty:
    splits = open_splits(str(pairs))
    return learn_certainty(directory, splits["train"], splits["val"], **options)


def held_out(pairs: Path) -> HeldOutPictures:
    return HeldOutPictures.of(open_splits(str(pairs))["val"], 1000)


def scale_of(directory: Path, kind: str) -> Any:
    config = json.loads((directory / "config.json").read_text())
    return config["confidence_scale"] if kind == "ours" else config["reprompt_confidence"]["scale"]


@pytest.mark.parametrize("kind", ["ours", "blip", "git"])
def test_both_are_kept_in_the_checkpoint_and_used_from_then_on(kind: str, tmp_path: Path, pairs: Path) -> None:
    directory = checkpoint(kind, tmp_path / "model")
    config = json.loads((directory / "config.json").read_text())
    files = {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "config.json"}
    before = load_inverter(directory).predict(held_out(pairs).images(0, VALIDATION))
    state = torch.random.get_rng_state()
    found = learn(directory, pairs)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (found.pairs, found.pictures, found.held_out) == (VALIDATION, KNOWN, VALIDATION)
    # config.json has the scale, and everything else is as it was
    scale = scale_of(directory, kind)
    assert tuple(scale) == found.scale
    assert all(map(math.isfinite, scale))
    after = json.loads((directory / "config.json").read_text())
    name = "confidence_scale" if kind == "ours" else "reprompt_confidence"
    assert {key: value for key, value in after.items() if key != name} == {key: value for key, value in config.items() if key != name}
    assert {path.name: path.read_bytes() for path in directory.iterdir() if path.name not in ("config.json", FAMILIARITY_FILE)} == files
    # and whoever loads it has both
    inverter = load_inverter(directory)
    assert inverter.confidence.scale == found.scale
    assert inverter.confidence.label_smoothing == (0.1 if kind == "ours" else 0.0)
    predictions = inverter.predict(held_out(pairs).images(0, VALIDATION))
    assert [one.prompt for one in predictions] == [one.prompt for one in before]
    assert {one.familiarity for one in before} == {None}
    assert np.mean([one.confidence for one in predictions]) == pytest.approx(found.confidence, abs=1e-4)
    undone = [inverter.confidence.without_smoothing(one.log_probs) for one in before]
    assert fit_scale(undone, [False] * VALIDATION) == pytest.approx(found.scale, abs=1e-3)  # a network of random weights is never right
    assert found.right == 0
    for each, one in zip(undone, predictions, strict=True):
        odds = scale[0] * min(each) + scale[1] * (sum(each) - min(each)) + scale[2]
        assert one.confidence == pytest.approx(1 / (1 + math.exp(-odds)), rel=1e-3)
    # each of the pictures that say what is strange has a rank of its own among them
    ranks = sorted(one.familiarity for one in predictions if one.familiarity is not None)
    assert ranks == pytest.approx([rank / (VALIDATION + 1) for rank in range(2, VALIDATION + 2)], abs=1.2 / (VALIDATION + 1))


def test_right_is_what_is_a_prompt_of_the_picture(tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = checkpoint("ours", tmp_path / "model")
    truths = [prompts[0] for prompts in held_out(pairs).references]
    predict, place = PromptInverter.predict, [0]

    def every_third_is_right(self: PromptInverter, images: Any, **options: Any) -> Any:
        found = predict(self, images, **options)
        for one in found:
            text = f" {truths[place[0]]} " if place[0] % 3 == 0 else truths[place[0]] + "s"
            object.__setattr__(one, "prompt", text)
            place[0] += 1
        return found

    monkeypatch.setattr(PromptInverter, "predict", every_third_is_right)
    found = learn(directory, pairs)
    assert place == [VALIDATION]
    assert found.right == pytest.approx(7 / 21)
    assert found.confidence == pytest.approx(7 / 21, abs=0.05)  # a fit with a constant is right on the mean
    expected = (
        f"Confidence: of 21 validation prompts 0.333 are right word for word, {found.confidence:.3f} were expected. "
        "Familiarity: learned from 50 training and 21 validation pictures"
    )
    assert str(found) == expected


@pytest.mark.parametrize("kind", ["blip", "git"])
def test_label_smoothing_that_a_config_does_not_say_is_said(kind: str, tmp_path: Path, pairs: Path) -> None:
    directory = checkpoint(kind, tmp_path / "model")
    learn(directory, pairs, label_smoothing=0.2)
    assert json.loads((directory / "config.json").read_text())["reprompt_confidence"]["label_smoothing"] == 0.2
    assert load_inverter(directory).confidence.label_smoothing == 0.2
    learn(directory, pairs)  # and is remembered
    assert load_inverter(directory).confidence.label_smoothing == 0.2
    if kind == "blip":  # as transformers writes it again
        captioner = PeerCaptioner.load("blip", str(directory))
        captioner.network.save_pretrained(tmp_path / "again")
        assert json.loads((tmp_path / "again" / "config.json").read_text())["reprompt_confidence"]["label_smoothing"] == 0.2


def test_ours_knows_its_label_smoothing(tmp_path: Path, pairs: Path) -> None:
    directory = checkpoint("ours", tmp_path / "model")
    found = learn(directory, pairs, label_smoothing=0.5)
    assert load_inverter(directory).confidence.label_smoothing == 0.1
    assert learn(directory, pairs) == found


@pytest.mark.parametrize(("training", "validation", "message"), [(19, 21, "only 19 training pictures"), (100, 19, "only 19 validation pictures")])
def test_of_too_few_nothing_is_learned(training: int, validation: int, message: str, tmp_path: Path, pairs: Path) -> None:
    directory = checkpoint("ours", tmp_path / "model")
    splits = open_splits(str(pairs))
    with pytest.raises(ShardError, match=f"{message} can be read; 20 are the fewest"):
        learn_certainty(directory, ChosenPairs(splits["train"], range(training)), ChosenPairs(splits["val"], range(validation)))
    assert load_inverter(directory).familiarity is None


def stop(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


def test_a_checkpoint_stays_whole_wherever_learning_is_stopped(tmp_path: Path, pairs: Path) -> None:
    directory = checkpoint("ours", tmp_path / "model")
    config = (directory / "config.json").read_bytes()

    def stopped(where: object, name: str) -> Inverter:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(where, name, stop)
            with pytest.raises(KeyboardInterrupt):
                learn(directory, pairs)
        return load_inverter(directory)

    inverter = stopped(inference.certainty, "fit_scale")
    assert (inverter.confidence.scale, inverter.familiarity) == (None, None)
    assert stopped(os, "replace").confidence.scale is None  # while config.json is written
    assert (directory / "config.json").read_bytes() == config
    inverter = stopped(inference.certainty, "fit_familiarity")
    assert inverter.confidence.scale is not None
    assert inverter.familiarity is None
    assert stopped(Path, "replace").familiarity is None  # while familiarity is written
    learn(directory, pairs)
    whole = (directory / FAMILIARITY_FILE).read_bytes()
    assert stopped(Path, "replace").familiarity is not None
    assert (directory / FAMILIARITY_FILE).read_bytes() == whole


def test_pictures_are_not_all_held_at_once(tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[Image.Image]] = []
    most, resized = [0], inference.certainty._resized

    def counted(inverter: Any, image: Image.Image) -> Any:
        alive.append(weakref.ref(image))
        most[0] = max(most[0], sum(one() is not None for one in alive))
        return resized(inverter, image)

    monkeypatch.setattr(inference.certainty, "_resized", counted)
    learn(checkpoint("ours", tmp_path / "model"), pairs)
    assert len(alive) == KNOWN + VALIDATION
    assert most[0] <= 3


def pixels(images: list[Image.Image]) -> torch.Tensor:
    return torch.stack([torch.tensor(np.asarray(image.resize((32, 32)))).permute(2, 0, 1) for image in images])


def test_what_is_known_is_told_from_what_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference.certainty, "_UPDATES", 60)
    inverter = tiny_inverter()
    names = [(subject, colour) for subject in SUBJECTS for colour in ("red", "blue", "green", "yellow", "purple", "white")]
    rng = np.random.default_rng(0)
    images = []
    for subject, colour in names * 2:
        array = np.asarray(painted(subject, colour, 32)).astype(int) + rng.integers(-9, 10, (32, 32, 3))
        images.append(Image.fromarray(array.clip(0, 255).astype(np.uint8)))
    order = rng.permutation(len(images))
    known, held, fresh = (pixels([images[place] for place in part]) for part in np.array_split(order, 3))
    familiarity = fit_familiarity(inverter, known, held)
    assert not familiarity.training
    assert torch.equal(familiarity.own, familiarity.own.sort().values)
    assert len(familiarity.own) == len(held)
    strange = torch.from_numpy(rng.integers(0, 256, fresh.shape, dtype=np.uint8))
    own, others = familiarity(inverter.encode(fresh)), familiarity(inverter.encode(strange))
    assert np.mean([one > other for one in own for other in others]) > 0.9  # the area under the ROC curve
    assert np.mean(own) == pytest.approx(0.5, abs=0.15)
    again = fit_familiarity(inverter, known, held)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in familiarity.state_dict().items())
    other = fit_familiarity(inverter, known, held, seed=1)
    assert not torch.equal(other.inner, familiarity.inner)
    assert torch.allclose(Familiarity.pooled(inverter.encode(known)).mean(0), familiarity.mean, atol=1e-4)


def test_the_command_says_what_was_found_out(tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = checkpoint("ours", tmp_path / "model")
    inference.certainty.main(CertaintyConfig(checkpoint=directory, data=str(pairs)))
    assert capsys.readouterr().out.startswith("Confidence: of 21 validation prompts 0.000 are right word for word")
    assert load_inverter(directory).familiarity is not None
    for smoothing in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match="--label-smoothing must be"):
            CertaintyConfig(checkpoint=directory, data=str(pairs), label_smoothing=smoothing)


def test_right_is_any_prompt_of_the_picture_whatever_surrounds_it(tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = checkpoint("ours", tmp_path / "model")
    written = [one.prompt for one in load_inverter(directory).predict(held_out(pairs).images(0, VALIDATION))]
    of = HeldOutPictures.of

    def with_further_prompts(source: Any, count: int) -> HeldOutPictures:
        found = of(source, count)
        further = [[*prompts, f" {text}\n"] for prompts, text in zip(found.references, written, strict=True)]
        return dataclasses.replace(found, references=further)

    monkeypatch.setattr(HeldOutPictures, "of", with_further_prompts)
    assert learn(directory, pairs).right == 1
