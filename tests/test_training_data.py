"""train.py on data of every kind: streams, folders, few pairs, broken ones, scored ones."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from archives import encoded, numbered, write_tar
from commands import TINY
from left_by_runs import curve, weights
from PIL import Image
from pipelines import save_clip

import score
import train
from data import importers
from data.errors import PairError, ShardError
from data.files import write_json
from data.loading.fit import read_scores
from data.splits import prompt_group, split_of
from data.store.columns import column_origin, read_column
from data.store.directory import DATASET_FILE, finished_shards
from data.store.pairs import PairDataset
from data.store.writer import ShardWriter
from inference import PromptInverter
from training.data import TrainingData
from training.health import TrainingError
from training.run_directory import RunStateError


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
    with pytest.MonkeyPatch.context() as patch:  # the prompts that come first at another time may be longer
        patch.setattr(TrainingData, "some_prompts", lambda *_: iter(["a long prompt " * 50]))
        train_here(*arguments, "--out", tmp_path / "parts", "--resume", "--max-steps", 13)
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


def test_an_image_folder_is_trained_on(tmp_path: Path, train_here: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    lines = []
    broken = next(i for i in range(150) if split_of(prompt_group(f"prompt number {i}")) == "train")
    for i in range(150):
        (tmp_path / f"{i}.png").write_bytes(encoded() if i != broken else b"")
        lines.append(json.dumps({"file_name": f"{i}.png", "words": f"prompt number {i}"}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    train_here("mini", "--data", tmp_path, "--prompt-column", "words", *TINY, "--max-steps", 20, "--out", tmp_path / "run")
    assert "x empty image, of 32" in capsys.readouterr().out


@pytest.mark.slow
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
    train_here("mini", "--data", data, "--out", tmp_path / "all", "--max-steps", 4, *TINY)
    train_here("mini", "--data", data, "--out", tmp_path / "easy", "--max-steps", 4, "--curriculum", *TINY)
    train_here("mini", "--data", data, "--out", tmp_path / "weighed", "--max-steps", 4, "--weigh", *TINY)
    losses = {name: curve(tmp_path / name, "train/loss")[0] for name in ("all", "easy", "weighed")}
    assert len(set(losses.values())) == 3  # each order shows other pairs
    with pytest.raises(ShardError, match=r"score\.py --data .* --clip MODEL"):
        train_here("mini", "--data", data, "--out", tmp_path / "clip", "--max-steps", 4, "--weigh", "--fit-measure", "clip", *TINY)
    save_clip(tmp_path / "clip-model")
    score.main(score.ScoreConfig(data=data, clip=str(tmp_path / "clip-model")))
    train_here("mini", "--data", data, "--out", tmp_path / "clip", "--max-steps", 4, "--weigh", "--fit-measure", "clip", *TINY)
    assert read_column(next(iter(finished_shards(data / "train"))), "fit") is not None  # the other measure stays
    with pytest.raises(ShardError, match="not a data set directory of ours"):
        write_tar(tmp_path / "tars" / "0.tar", numbered(0, 200))
        train_here("mini", "--data", tmp_path / "tars", "--out", tmp_path / "other", "--max-steps", 4, "--curriculum", *TINY)


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_split_without_a_readable_pair_is_named_before_training(
    split: str, trained: tuple[Path, Path, str], tmp_path: Path, train_here: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = shutil.copytree(trained[0], tmp_path / "data")
    for tar in (data / split).glob("*.tar"):
        tar.write_bytes(tar.read_bytes().replace(b"IDAT", b"IDOT"))
    monkeypatch.setattr(train, "check_update", lambda *_: pytest.fail("a step was made"))
    with pytest.raises(ShardError, match=r"of \d+ (validation|test) pairs.* none can be read"):
        train_here("mini", "--data", data, "--out", tmp_path / "run", *TINY, "--max-steps", 4)


@pytest.mark.parametrize("workers", [0, 2])
def test_too_much_that_cannot_be_read_is_one_clean_line(workers: int, tmp_path: Path, train_here: Callable[..., None]) -> None:
    for split in ("train", "val", "test"):
        with ShardWriter(tmp_path / "data" / split, 0) as writer:
            for i in range(150 if split == "train" else 4):
                writer.add(f"{i:05d}", Image.effect_noise((40, 40), 80).convert("RGB"), {"prompt": f"number {i}"})
    tar = tmp_path / "data" / "train" / "00000.tar"
    tar.write_bytes(tar.read_bytes().replace(b"IDAT", b"IDOT"))
    write_json(tmp_path / "data" / DATASET_FILE, {"shards": {"train": 1, "val": 1, "test": 1}})
    with pytest.raises(PairError) as failed:
        train_here("mini", "--data", tmp_path / "data", "--out", tmp_path / "run", *TINY, "--workers", workers, "--max-steps", 4)
    assert str(failed.value).startswith("100 pairs in a row could not be read; the last: ")
    assert "\n" not in str(failed.value)
    assert "Traceback" not in str(failed.value)
    assert not multiprocessing.active_children()  # they end with the run, and not when the memory is tidied up


def test_a_few_pictures_are_imported_and_trained_on(
    tmp_path: Path, train_here: Callable[..., None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of eight every split gets some; and what is imported into datasets/mini is trained on, not made anew."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(8):
        Image.effect_noise((40, 40), 20 * i + 20).convert("RGB").save(pictures / f"{i}.png")
        (pictures / f"{i}.txt").write_text(f"a picture of {['one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight'][i]}")
    with monkeypatch.context() as patch:
        train_here("mini", "--data", pictures, "--out", tmp_path / "plain", *TINY, "--max-steps", 4)
        assert "6 training pairs (val and test taken out of train, by what pairs say or the hash of their prompts" in capsys.readouterr().out
        patch.chdir(tmp_path)
        importers.main(importers.parse(["folder", str(pictures), "--out", "datasets/mini", "--sentence-model", "none"]))
        capsys.readouterr()
        patch.setattr(train.subprocess, "run", lambda *_, **__: pytest.fail("the embedded data set would be made"))
        train.main(train.parse(list(map(str, ["mini", "--out", tmp_path / "imported", *TINY, "--max-steps", 4]))))
    said = capsys.readouterr().out
    assert "training pairs (" in said
    assert "On 1 test pictures of " in said
