"""train.py as a user runs it: begun, refused, gone on with, interrupted at its end, with a full disk."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from commands import TINY, TINY_VIT, run
from examples import write_dataset
from left_by_runs import curve, weights

import train
from data.errors import MissingExtraError, ShardError
from model import CaptionModel, EncoderError, load_model
from model.familiarity import Familiarity
from training.config import ConfigError, TrainConfig
from training.run_directory import RunStateError, checkpoints


def test_training_leaves_a_run(trained: tuple[Path, Path, str]) -> None:
    _, run_directory, out = trained
    assert sorted(path.name for path in (run_directory / "model").iterdir()) == ["README.md", "config.json", "model.safetensors", "tokenizer.json"]
    assert [path.name for path in sorted((run_directory / "checkpoints").iterdir())] == ["step-000008", "step-000012"]
    assert list(run_directory.glob("events.out.tfevents.*"))
    assert (run_directory / "report" / "samples.png").exists()
    assert "| metric | reprompt | nearest | constant |" in out
    assert "How sure the model may be, and of which pictures, is left out: only" in out  # of so few validation pictures
    assert f"test pictures of {run_directory.parent / 'data'}, held out from training" in out
    card = (run_directory / "model" / "README.md").read_text()
    assert "12 updates of" in card
    assert "| metric | reprompt | nearest | constant |" in card
    assert f"python caption.py IMAGE_OR_FOLDER --checkpoint {run_directory / 'model'}" in out


def test_training_refuses_what_cannot_work(trained: tuple[Path, Path, str], tmp_path: Path, train_here: Callable[..., None]) -> None:
    data, run_directory, _ = trained
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("x")
    for arguments, message in (
        (["--data", tmp_path / "none"], "is not a data set"),
        (["--data", data, "--out", run_directory], "holds a run already. Go on with it: python train.py"),
        (["--data", data, "--out", tmp_path / "other"], "holds something else than a run"),
        (["--data", data, "--out", tmp_path / "x", "--resume"], "no run to resume"),
        (["--data", data, "--precision", "fp16"], "fp16 needs a GPU"),
    ):
        with pytest.raises((ConfigError, RunStateError, ShardError), match=re.escape(message)):
            train_here("mini", *arguments, *TINY)
    _, err = run("train.py", "--data", tmp_path / "none", fails=True)
    assert err.startswith("train.py: ")


def test_resuming_refuses_other_data_networks_batches_and_tokenizers(
    trained: tuple[Path, Path, str], tmp_path: Path, train_here: Callable[..., None]
) -> None:
    data, run_directory, _ = trained
    other = write_dataset(tmp_path / "other", 130)
    resume = ["mini", *TINY, "--out", run_directory, "--resume"]
    with pytest.raises(RunStateError, match=r"begun with something else: data\.training: .* pairs per update: 16 there, 8 now"):
        train_here(*resume, "--data", other, "--batch-size", "8")
    with pytest.raises(RunStateError, match=r"begun with other settings: model\.layers: 1 there, 2 now; seed: 0 there, 5 now"):
        train_here(*resume, "--data", data, "--model.layers", "2", "--seed", "5")
    tokenizer = run_directory / "tokenizer.json"
    before = tokenizer.read_text()
    content = json.loads(before)
    content["model"]["merges"] = content["model"]["merges"][:-1]
    tokenizer.write_text(json.dumps(content))
    with pytest.raises(RunStateError, match="tokenizer: "):
        train_here(*resume, "--data", data)
    tokenizer.write_text(before)


def test_an_encoder_frozen_and_its_features_computed_once(trained: tuple[Path, Path, str], tmp_path: Path, train_here: Callable[..., None]) -> None:
    shared = ["mini", "--data", trained[0], *TINY_VIT, "--max-steps", 10, "--frozen-encoder", 1, "--no-augment", "--precision", "fp32"]
    train_here(*shared, "--out", tmp_path / "plain")
    train_here(*shared, "--out", tmp_path / "reused", "--reuse-features")
    plain, reused = weights(tmp_path / "plain", 10), weights(tmp_path / "reused", 10)
    assert max(float((plain[name] - reused[name]).abs().max()) for name in plain) < 2e-3  # float16 on disk
    assert curve(tmp_path / "reused", "train/loss") == pytest.approx(curve(tmp_path / "plain", "train/loss"), rel=1e-3)


def test_a_full_disk_in_the_middle_costs_a_checkpoint_and_not_the_run(
    trained: tuple[Path, Path, str],
    tmp_path: Path,
    train_here: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_file = safetensors.torch.save_file

    def sometimes_full(tensors: dict[str, torch.Tensor], path: Path, *arguments: Any, **options: Any) -> None:
        if "step-000004" in str(path):
            raise OSError(28, "No space left on device")
        save_file(tensors, path, *arguments, **options)

    monkeypatch.setattr(safetensors.torch, "save_file", sometimes_full)
    train_here("mini", "--data", trained[0], "--out", tmp_path / "run", *TINY, "--max-steps", "9")
    err = capsys.readouterr().err
    assert "the disk is full: step-000004 was not saved" in err
    assert "Training goes on, and tries again" in err
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["step-000008", "step-000009"]


def test_an_encoder_begins_with_a_file_and_its_preprocessing(
    trained: tuple[Path, Path, str], tmp_path: Path, train_here: Callable[..., None]
) -> None:
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "encoder.pth")
    seen = ["--model.mean", 0.1, 0.2, 0.3, "--model.std", 0.4, 0.5, 0.6, "--model.interpolation", "bilinear", "--model.crop", "center"]
    common = ["mini", "--data", trained[0], *TINY_VIT, "--model.stage", "None", "--max-steps", 4, *seen]
    train_here(*common, "--out", tmp_path / "run", "--model.encoder-file", tmp_path / "encoder.pth", "--frozen-encoder", 1)
    model = load_model(tmp_path / "run" / "model")
    overlay = {"file": str(tmp_path / "encoder.pth")}
    theirs = timm.create_model("test_vit", num_classes=0, img_size=32, pretrained=True, pretrained_cfg_overlay=overlay)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(model.encoder.backbone.state_dict()[name], value)
    found = model.config.preprocessing
    assert (found.mean, found.std, found.interpolation, found.crop) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bilinear", "center")
    (tmp_path / "other.pth").write_bytes(b"")
    with pytest.raises(EncoderError, match=r"other\.pth cannot be read as weights"):
        train_here(*common, "--out", tmp_path / "bad", "--model.encoder-file", tmp_path / "other.pth")


@pytest.mark.parametrize(
    ("option", "value", "message"), [("width", 7, "divisible by heads"), ("heads", 0, "heads must be 1"), ("dropout", 2, "dropout")]
)
def test_a_network_that_cannot_be_is_named(
    trained: tuple[Path, Path, str], tmp_path: Path, train_here: Callable[..., None], option: str, value: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=f"--model: .*{message}"):
        train_here("mini", "--data", trained[0], "--out", tmp_path / "run", *TINY, f"--model.{option}", value)


def test_a_run_begins_with_what_it_was_given_and_not_with_what_another_left(
    trained: tuple[Path, Path, str],
    tmp_path: Path,
    train_here: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One ends before its first checkpoint: tokenizer, features, curves and settings of other data are there when the next one begins."""
    frozen = [*TINY_VIT, "--frozen-encoder", 1, "--no-augment", "--reuse-features", "--precision", "fp32", "--max-steps", 4]
    other = write_dataset(tmp_path / "other", 130)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "check_update", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        train_here("mini", "--data", other, "--out", tmp_path / "run", *frozen, "--model.vocab-size", 290)
    left = {path.name.split(".")[0] for path in (tmp_path / "run").iterdir()}
    assert left >= {"tokenizer", "features", "events", "begun", "config"}
    train_here("mini", "--data", trained[0], "--out", tmp_path / "new", *frozen)
    train_here("mini", "--data", trained[0], "--out", tmp_path / "run", *frozen)
    ours, theirs = weights(tmp_path / "new", 4), weights(tmp_path / "run", 4)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert len(list((tmp_path / "run").glob("events*"))) == len(list((tmp_path / "new").glob("events*")))
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(RunStateError, match="holds a trained model, but no checkpoint"):  # which is not taken away
        train_here("mini", "--data", trained[0], "--out", tmp_path / "run", *frozen)
    shutil.rmtree(tmp_path / "run" / "model")
    capsys.readouterr()
    train_here("mini", "--data", trained[0], "--out", tmp_path / "run", *frozen, "--resume")
    assert "has no checkpoint yet: it begins anew" in capsys.readouterr().out
    (tmp_path / "run" / "features.npy").unlink()
    (tmp_path / "run" / "features.json").unlink()  # computed again by the run's encoder, not by a new one
    train_here("mini", "--data", trained[0], "--out", tmp_path / "run", *frozen, "--resume", "--max-steps", 8)
    train_here("mini", "--data", trained[0], "--out", tmp_path / "new", *frozen, "--resume", "--max-steps", 8)
    ours, theirs = weights(tmp_path / "new", 8), weights(tmp_path / "run", 8)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["max_steps"] == 8


def test_what_stops_the_comparison_costs_the_comparison_alone(
    trained: tuple[Path, Path, str],
    tmp_path: Path,
    train_here: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = ["mini", "--data", trained[0], "--out", tmp_path / "run", *TINY, "--max-steps", 4]

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def missing() -> None:
        raise MissingExtraError("no scipy")

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(sys, "argv", ["train.py", "mini", "--out", "a run's"])
        patch.setattr(train, "measure", interrupted)
        train_here(*arguments, compare=True)
    assert "The comparison was stopped; the model is whole in" in str(stopped.value)
    assert str(stopped.value).endswith("To have the report later: python train.py mini --out 'a run'\"'\"'s' --resume")
    with monkeypatch.context() as patch:
        patch.setattr(train, "check_libraries", missing)
        train_here(*arguments, "--resume", compare=True)
    said = capsys.readouterr().out
    assert "the comparison at its end will be left out: no scipy" in said
    assert "The comparison is left out: no scipy. Then: python" in said
    assert not (tmp_path / "run" / "report").exists()
    with monkeypatch.context() as patch:  # a sentence model costs its own metric
        patch.setattr("evaluation.meaning.SentenceEncoder", lambda **_: missing())
        train_here(*arguments, "--resume", compare=True)
    said = capsys.readouterr().out
    assert "similarity is left out: no scipy" in said
    assert "| cider_d |" in said
    assert "| similarity |" not in said
    assert (tmp_path / "run" / "report" / "report.md").exists()


def test_who_is_asked_to_stop_in_the_last_evaluation_makes_no_comparison(
    trained: tuple[Path, Path, str], tmp_path: Path, train_here: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: object) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        return {"loss": 1.0}

    monkeypatch.setattr(train, "_conclude", lambda *_: pytest.fail("it went on"))
    fit = train.fit
    monkeypatch.setattr(train, "fit", lambda *arguments: fit(*arguments, validate=asked))
    with pytest.raises(SystemExit, match=r"stopped after the last step; the model is whole in .* To have the report later: python"):
        train_here("mini", "--data", trained[0], "--out", tmp_path / "run", *TINY, "--max-steps", 4)
    assert load_model(tmp_path / "run" / "model")
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step-000004"]


def test_a_validation_loss_that_is_never_a_number_costs_no_weights(
    trained: tuple[Path, Path, str],
    tmp_path: Path,
    train_here: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loss = CaptionModel.summed_loss
    monkeypatch.setattr(CaptionModel, "summed_loss", lambda self, *batch: loss(self, *batch) * (1 if self.training else float("nan")))
    train_here("mini", "--data", trained[0], "--out", tmp_path / "run", *TINY, "--max-steps", 8)
    assert "No validation loss of this run was a number; the last weights are exported all the same" in capsys.readouterr().out
    last = weights(tmp_path / "run", 8)
    exported = load_model(tmp_path / "run" / "model").state_dict()
    assert all(torch.equal(last[f"model.{name}"], tensor) for name, tensor in exported.items())


@pytest.mark.slow
def test_compiled_steps_are_the_same_steps(trained: tuple[Path, Path, str], tmp_path: Path, train_here: Callable[..., None]) -> None:
    """Five, with texts of other lengths each; compiled once."""
    arguments = ["mini", "--data", trained[0], *TINY, "--precision", "fp32", "--max-steps", 5, "--batch-size", 8, "--model.dropout", 0]
    train_here(*arguments, "--out", tmp_path / "plain")
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    train_here(*arguments, "--out", tmp_path / "compiled", "--compile")
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    assert curve(tmp_path / "compiled", "train/loss") == pytest.approx(curve(tmp_path / "plain", "train/loss"), rel=1e-5)
    ours, theirs = weights(tmp_path / "plain", 5), weights(tmp_path / "compiled", 5)
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-3


def test_of_equal_validation_losses_the_later_weights_are_exported(
    trained: tuple[Path, Path, str], tmp_path: Path, train_here: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    exported: list[Path] = []
    export = train._export

    def noting(model: Any, tokenizer: Any, directory: Path) -> None:
        exported.append(directory)
        export(model, tokenizer, directory)

    monkeypatch.setattr(train, "fit", partial(train.fit, validate=lambda *_: {"loss": 1.5}, export=noting))
    train_here("mini", "--data", trained[0], "--out", tmp_path / "run", *TINY, "--max-steps", "6", "--evaluate-every", "2")
    assert exported == [tmp_path / "run" / "model"] * 3


def test_what_the_model_knows_of_itself_is_found_out_once(
    trained: tuple[Path, Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = dataclasses.replace(TrainConfig.load(trained[1] / "config.json"), label_smoothing=0.3)
    shutil.copytree(trained[1] / "model", tmp_path / "model", ignore=shutil.ignore_patterns("familiarity*"))
    asked: list[Any] = []

    def learned(directory: Path, *sources: Any, **options: Any) -> str:
        asked.append((directory, *sources, options))
        Familiarity(4, known=30).save(directory)
        return "all of it"

    monkeypatch.setattr(train, "learn_certainty", learned)
    for _ in range(2):
        train._learn_certainty(config, tmp_path, SimpleNamespace(known="known", validation="held out"))  # type: ignore[arg-type]
    assert asked == [(tmp_path / "model", "known", "held out", {"label_smoothing": 0.3})]
    assert capsys.readouterr().out == "all of it\n"
