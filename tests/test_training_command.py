"""train.py as a user runs it: several processes, kills, full disks, broken data."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from archives import encoded, numbered, write_tar
from commands import ROOT, TINY, TINY_VIT, command, run, run_on_two_processes
from examples import write_dataset
from PIL import Image
from pipelines import save_clip
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import score
import train
from data.errors import ShardError
from data.files import write_json
from data.loading.fit import read_scores
from data.splits import prompt_group, split_of
from data.store.columns import column_origin, read_column
from data.store.directory import DATASET_FILE, finished_shards
from data.store.pairs import PairDataset
from data.store.writer import ShardWriter
from inference import PromptInverter
from model import EncoderError, load_model
from training.config import ConfigError
from training.health import TrainingError
from training.run_state import RunStateError


def weights(run_directory: Path, step: int) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run_directory / "checkpoints" / f"step-{step:06d}" / "model.safetensors")


@pytest.fixture
def train_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Training inside the test's process, which spares it the imports."""
    monkeypatch.chdir(ROOT)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield lambda *arguments: train.main(train.parse(list(map(str, arguments))))
    for number, handler in handlers.items():
        signal.signal(number, handler)


def curve(run_directory: Path, name: str) -> list[float]:
    events = EventAccumulator(str(run_directory))
    events.Reload()
    return [event.value for event in events.Scalars(name)]


def test_training_leaves_a_run(trained: tuple[Path, Path, str]) -> None:
    _, run_directory, out = trained
    assert sorted(path.name for path in (run_directory / "model").iterdir()) == ["README.md", "config.json", "model.safetensors", "tokenizer.json"]
    assert [path.name for path in sorted((run_directory / "checkpoints").iterdir())] == ["step-000008", "step-000012"]
    assert list(run_directory.glob("events.out.tfevents.*"))
    assert (run_directory / "report" / "samples.png").exists()
    assert "| metric | reprompt | nearest | constant |" in out
    assert f"python caption.py IMAGE_OR_FOLDER --checkpoint {run_directory / 'model'}" in out


def test_processes_and_accumulation_train_what_one_large_batch_trains(
    trained: tuple[Path, Path, str], tmp_path: Path, train_here: Callable[..., None]
) -> None:
    """2 processes x 2 accumulated batches of 4 pairs and 1 x 16: the same loss curve, the same weights; the prompts differ in length."""
    shared = ["mini", "--data", trained[0], *TINY_VIT, "--precision", "fp32", "--max-steps", 10, "--ema-decay", 0.9]
    train_here(*shared, "--out", tmp_path / "one")
    out = run_on_two_processes("train.py", *shared, "--batch-size", 4, "--accumulate", 2, "--out", tmp_path / "two", cwd=tmp_path)
    assert out.count("report        ") == 1
    for name in ("train/loss", "train/gradient_norm", "validation/loss"):
        assert curve(tmp_path / "two", name) == pytest.approx(curve(tmp_path / "one", name), rel=1e-5)
    one, two = weights(tmp_path / "one", 10), weights(tmp_path / "two", 10)
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-5
    exported = [safetensors.torch.load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two")]
    assert max(float((exported[0][name] - exported[1][name]).abs().max()) for name in exported[0]) < 1e-5
    moved = [float((exported[0][name] - one[f"model.{name}"]).abs().max()) for name in exported[0]]
    assert max(moved) > 1e-4  # the running mean was exported, not the last weights


def test_sharded_training_is_equal() -> None:
    """FSDP on two processes against one; by hand, since Accelerate offers FSDP on accelerators alone."""
    out = run_on_two_processes("tests/sharded.py", cwd=ROOT)
    differences = [json.loads(line) for line in out.splitlines()]
    assert [found["sharded"] for found in differences] == ["whole", "blocks"]
    assert all(found["difference"] < 1e-5 for found in differences)


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


def interrupted(arguments: list[object], out: Path, steps: int, number: int, draw: random.Random) -> str:
    """Start or go on, send `number` at a random moment of training; what it printed as an error."""
    before = set(out.rglob("events*"))
    resume = ["--resume"] if (out / "begun.json").exists() else []
    process = command("train.py", *arguments, "--out", out, *resume)
    while process.poll() is None and set(out.rglob("events*")) == before:
        time.sleep(0.02)
    time.sleep(draw.uniform(0.05, 1.5))
    process.send_signal(number)
    return process.communicate(timeout=100)[1]


def check_interruptions(data: Path, tmp_path: Path, train_here: Callable[..., None], signals: list[int], steps: int) -> None:
    # a checkpoint after every step, so that many signals arrive in the middle of one
    arguments = [
        "mini",
        "--data",
        data,
        *TINY,
        "--max-steps",
        steps,
        "--save-every",
        1,
        "--ema-decay",
        0.9,
        "--model.dropout",
        0.1,
        "--accumulate",
        2,
    ]
    arguments += ["--batch-size", 4]
    train_here(*arguments, "--out", tmp_path / "whole")
    draw = random.Random(int(time.time()))
    for number in signals:
        err = interrupted(arguments, tmp_path / "parts", steps, number, draw)
        if number != signal.SIGKILL and "stopped" in err:
            assert "go on with: python train.py mini" in err
            assert "Traceback" not in err
    train_here(*arguments, "--out", tmp_path / "parts", "--resume")
    for file in ("model.safetensors", "average.safetensors"):
        ends = [safetensors.torch.load_file(tmp_path / name / "checkpoints" / f"step-{steps:06d}" / file) for name in ("whole", "parts")]
        assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    ends = [safetensors.torch.load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "parts")]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_killed_and_stopped_it_resumes_to_the_same_weights(trained: tuple[Path, Path, str], tmp_path: Path, train_here: Callable[..., None]) -> None:
    check_interruptions(trained[0], tmp_path, train_here, [signal.SIGKILL, signal.SIGINT], steps=60)


@pytest.mark.slow
def test_killed_many_times_it_resumes_to_the_same_weights(trained: tuple[Path, Path, str], tmp_path: Path, train_here: Callable[..., None]) -> None:
    check_interruptions(trained[0], tmp_path, train_here, [signal.SIGKILL] * 8 + [signal.SIGTERM] * 2 + [signal.SIGKILL] * 2, steps=400)


def test_unreadable_pairs_are_counted_and_too_many_stop_the_run(
    tmp_path: Path, train_here: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    for broken in (4, 40):
        data = tmp_path / f"broken{broken}"
        with ShardWriter(data / "train", 0) as writer:
            for i in range(200):
                image = Image.new("RGB", (40, 40), (i, 0, 0))
                if i < broken:  # an image that is cut short once the shard is written
                    image = Image.effect_noise((40, 40), 80).convert("RGB")
                writer.add(f"{i:05d}", image, {"prompt": f"a picture of number {i}"})
        tar = data / "train" / "00000.tar"
        content = bytearray(tar.read_bytes())
        start = 0
        for _ in range(broken):
            start = content.index(b"IDAT", start) + 4
            content[start : start + 60] = bytes(60)
        tar.write_bytes(bytes(content))
        for split in ("val", "test"):
            with ShardWriter(data / split, 0) as writer:
                for i in range(8):
                    writer.add(f"{i:05d}", Image.new("RGB", (40, 40), (0, i, 0)), {"prompt": f"a green picture {i}"})
        write_json(data / DATASET_FILE, {"shards": {"train": 1, "val": 1, "test": 1}})
        arguments = ["mini", "--data", data, "--out", tmp_path / f"run{broken}", *TINY, "--max-steps", "20"]
        if broken == 40:
            with pytest.raises(TrainingError, match=r"pairs could not be used: \d+ x damaged image\. Mend or remove them"):
                train_here(*arguments)
        else:
            train_here(*arguments)
            assert re.search(r"skipped: [4-8] x damaged image, of 32\d pairs shown", capsys.readouterr().out)
            assert curve(tmp_path / "run4", "skipped/damaged image")[-1] >= 4


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


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_trains_and_goes_on_where_it_stopped(workers: int, tmp_path: Path, train_here: Callable[..., None]) -> None:
    for shard in range(3):
        write_tar(tmp_path / "tars" / f"{shard}.tar", numbered(60 * shard, 60 * shard + 60))
    tars = tmp_path / "tars" / "{0..2}.tar" if workers else f"file://{tmp_path}/tars/{{0..2}}.tar"
    arguments = ["mini", "--data", tars, "--stream", *TINY, "--batch-size", 8, "--max-steps", 12]
    arguments += ["--keep-checkpoints", 9, "--workers", workers]
    train_here(*arguments, "--out", tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    for step in (8, 12):
        shutil.rmtree(tmp_path / "parts" / "checkpoints" / f"step-{step:06d}")
    train_here(*arguments, "--out", tmp_path / "parts", "--resume")
    whole, parts = weights(tmp_path / "whole", 12), weights(tmp_path / "parts", 12)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    with pytest.raises(RunStateError, match=f"readers of the stream: 1 processes x {max(1, workers)} workers there, 1 processes x 3 workers now"):
        train_here(*arguments, "--workers", 3, "--out", tmp_path / "parts", "--resume")


def test_pairs_are_scored_by_the_model_that_is_named(trained: tuple[Path, Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One model scores, another one half, and then that one all: never is a half taken for the whole."""
    data = shutil.copytree(trained[0], tmp_path / "data")
    other = PromptInverter.from_pretrained(trained[1] / "model")
    with torch.no_grad():
        for parameter in other.model.decoder.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    other.save_pretrained(tmp_path / "other")
    one = score.ScoreConfig(data=data, checkpoint=str(trained[1] / "model"))
    two = score.ScoreConfig(data=data, checkpoint=str(tmp_path / "other"))

    def fits() -> list[float | None]:
        return [value for tar in sorted(data.rglob("*.tar")) for value in (read_column(tar, "fit") or {}).values()]

    score.main(one)
    by_one = fits()
    written = score.write_column

    def stop_after_two(*arguments: Any, **rest: Any) -> None:
        written(*arguments, **rest)
        if len(stopped := [tar for tar in data.rglob("*.tar") if column_origin(tar, "fit") != column_origin(first, "fit_chance")]) == 2:
            raise KeyboardInterrupt(stopped)

    first = sorted(data.rglob("*.tar"))[-1]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(score, "write_column", stop_after_two)
        score.main(two)
    with pytest.raises(ShardError, match="scored by different models"):
        read_scores(PairDataset(data, "train"), data / "train", "fit")
    score.main(two)
    by_two = fits()
    assert by_two != by_one
    assert len({column_origin(tar, column) for tar in data.rglob("*.tar") for column in ("fit", "fit_chance")}) == 1
    for tar in data.rglob("*.tar"):  # as a run leaves it that ended between the scores and what is likely by them
        score.write_column(tar, "fit_chance", {}, origin=column_origin(tar, "fit") + " of before")
    score.main(two)
    assert len({column_origin(tar, column) for tar in data.rglob("*.tar") for column in ("fit", "fit_chance")}) == 1
    assert all(value is not None for tar in data.rglob("*.tar") for value in (read_column(tar, "fit_chance") or {}).values())
    fresh = shutil.copytree(trained[0], tmp_path / "fresh")
    score.main(dataclasses.replace(two, data=fresh))
    assert [value for tar in sorted(fresh.rglob("*.tar")) for value in (read_column(tar, "fit") or {}).values()] == pytest.approx(by_two)


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


def test_an_image_folder_is_trained_on(tmp_path: Path, train_here: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    lines = []
    broken = next(i for i in range(150) if split_of(prompt_group(f"prompt number {i}")) == "train")
    for i in range(150):
        (tmp_path / f"{i}.png").write_bytes(encoded() if i != broken else b"")
        lines.append(json.dumps({"file_name": f"{i}.png", "words": f"prompt number {i}"}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    train_here("mini", "--data", tmp_path, "--prompt-column", "words", *TINY, "--max-steps", 20, "--out", tmp_path / "run")
    assert "x empty image, of 32" in capsys.readouterr().out


def test_pairs_are_scored_and_those_that_fit_trained_on(
    trained: tuple[Path, Path, str], tmp_path: Path, train_here: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(trained[0], tmp_path / "data")
    with pytest.raises(ShardError, match="has no scores"):
        train_here("mini", "--data", data, "--out", tmp_path / "run", "--max-steps", 4, "--min-fit", 0, *TINY)
    config = score.ScoreConfig(data=data, checkpoint=str(trained[1] / "model"))
    score.main(config)
    assert "pairs by their fit" in capsys.readouterr().out
    stamps = [path.stat().st_mtime_ns for path in sorted(data.rglob("*.parquet"))]
    score.main(config)  # what is scored is scored
    assert [path.stat().st_mtime_ns for path in sorted(data.rglob("*.parquet"))] == stamps
    score.main(dataclasses.replace(config, seed=1))  # other references
    assert "are scored anew, since another model or other references scored them" in capsys.readouterr().err
    score.main(config)
    fits = [value for tar in finished_shards(data / "train") for value in (read_column(tar, "fit") or {}).values()]
    middle = sorted(fits)[len(fits) // 2]
    train_here("mini", "--data", data, "--out", tmp_path / "run", "--max-steps", 4, "--min-fit", middle, *TINY)
    assert f"{sum(fit >= middle for fit in fits)} training pairs" in capsys.readouterr().out
    train_here("mini", "--data", data, "--out", tmp_path / "easy", "--max-steps", 4, "--curriculum", *TINY)
    train_here("mini", "--data", data, "--out", tmp_path / "weighed", "--max-steps", 4, "--weigh", *TINY)
    with pytest.raises(ShardError, match=r"score\.py --data .* --clip MODEL"):
        train_here("mini", "--data", data, "--out", tmp_path / "clip", "--max-steps", 4, "--weigh", "--fit-measure", "clip", *TINY)
    save_clip(tmp_path / "clip-model")
    score.main(score.ScoreConfig(data=data, clip=str(tmp_path / "clip-model")))
    train_here("mini", "--data", data, "--out", tmp_path / "clip", "--max-steps", 4, "--weigh", "--fit-measure", "clip", *TINY)
    assert read_column(next(iter(finished_shards(data / "train"))), "fit") is not None  # the other measure stays
    with pytest.raises(ShardError, match="not a data set directory of ours"):
        write_tar(tmp_path / "tars" / "0.tar", numbered(0, 200))
        train_here("mini", "--data", tmp_path / "tars", "--out", tmp_path / "other", "--max-steps", 4, "--curriculum", *TINY)
