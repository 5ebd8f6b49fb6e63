"""The commands as a user runs them: real processes, tiny models."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from examples import painted, write_dataset
from gits import save_git

ROOT = Path(__file__).resolve().parents[1]
TINY = ["--model.encoder", "test_convnext", "--model.stage", "1", "--model.image-size", "32", "--model.width", "32"]
TINY += [
    "--model.layers",
    "1",
    "--model.heads",
    "2",
    "--model.ffn-width",
    "32",
    "--model.vocab-size",
    "300",
    "--model.encoder-arguments",
    "drop_rate=0.0",
]
TINY += ["--batch-size", "16", "--workers", "0", "--warmup-steps", "2", "--evaluate-every", "8", "--save-every", "4", "--final-pairs", "6"]


def command(script: str, *arguments: object, cwd: Path = ROOT) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    line = [sys.executable, str(ROOT / script), *map(str, arguments)]
    # a test run in the background has Ctrl-C ignored, and its children would inherit that
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, env=environment, preexec_fn=listen)


def run(script: str, *arguments: object, cwd: Path = ROOT, fails: bool = False) -> tuple[str, str]:
    process = command(script, *arguments, cwd=cwd)
    out, err = process.communicate(timeout=200)
    assert (process.returncode != 0) == fails, err
    assert "Traceback" not in err
    return out, err


def run_on_two_processes(script: str, *arguments: object, cwd: Path) -> str:
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    launch += ["--dynamo_backend", "no", "--num_cpu_threads_per_process", "1", "--main_process_port", "0"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    line = [*launch, str(ROOT / script), *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, cwd=cwd, env=environment, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A data set, a run trained on it, and what the run printed."""
    directory = tmp_path_factory.mktemp("trained")
    data = write_dataset(directory / "data", 150)
    out, _ = run("train.py", "mini", "--data", data, "--out", directory / "run", "--max-steps", "12", *TINY)
    return data, directory / "run", out


@pytest.mark.parametrize("script", ["generate_data.py", "train.py", "evaluate.py", "caption.py"])
def test_help_teaches(script: str) -> None:
    out, _ = run(script, "--help")
    assert "Examples:" in out or "python train.py" in out


def test_generate_makes_a_data_set_and_leaves_a_finished_one_alone(tmp_path: Path, tiny_pipeline: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a cat\na dog\ntwo owls\n")
    arguments = ["--prompts", "prompts.txt", "--model", tiny_pipeline, "--out", "data", "--num-images", "7", "--steps", "2", "--shard-size", "3"]
    out, _ = run("generate_data.py", *arguments, cwd=tmp_path)
    assert re.search(r"data: 7 pairs \(train \d, val \d, test \d\)", out)
    about = json.loads((tmp_path / "data" / "dataset.json").read_text())
    assert about["generator"] == "StableDiffusionPipeline"
    assert about["settings"]["steps"] == 2
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "data").rglob("*")}
    run("generate_data.py", *arguments, cwd=tmp_path)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "data").rglob("*")} == before
    # a lost shard is made again, the same to the byte
    stats = sorted((tmp_path / "data" / "train").glob("*_stats.json"))[0]
    tar = Path(str(stats).replace("_stats.json", ".tar"))
    content = tar.read_bytes()
    stats.unlink()
    tar.unlink()
    run("generate_data.py", *arguments, cwd=tmp_path)
    assert tar.read_bytes() == content
    _, err = run("generate_data.py", *arguments[:-3], "3", "--shard-size", "3", cwd=tmp_path, fails=True)
    assert "begun with other settings (steps: 2 there, 3 now)" in err


def test_two_processes_make_the_shards_of_one(tmp_path: Path, tiny_pipeline: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a cat\na dog\ntwo owls\n")
    arguments = ["--prompts", "prompts.txt", "--model", tiny_pipeline, "--num-images", "9", "--steps", "2", "--shard-size", "2"]
    run("generate_data.py", *arguments, "--out", "one", cwd=tmp_path)
    out = run_on_two_processes("generate_data.py", *arguments, "--out", "two", cwd=tmp_path)
    assert out.count("two: 9 pairs") == 1
    shards = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.tar"))
    assert len(shards) >= 5
    for shard in shards:
        assert (tmp_path / "one" / shard).read_bytes() == (tmp_path / "two" / shard).read_bytes()


def test_generate_refuses_what_cannot_work(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.doc").write_text("x")
    for arguments, message in (
        (["--prompts", "empty.txt"], "holds no prompt"),
        (["--prompts", "none.txt"], "none.txt does not exist"),
        (["--out", "other"], "holds other things and no dataset.json"),
        (["--out", "empty.txt"], "is a file; name a directory"),
        (["--out", "new", "--model", "other"], "no model_index.json"),
        (["--out", "new", "--batch-size", "0"], "must be 1 or more"),
    ):
        _, err = run("generate_data.py", *arguments, cwd=tmp_path, fails=True)
        assert message in err
    assert not (tmp_path / "new").exists()


def test_generate_stopped_by_ctrl_c_says_how_to_go_on(tmp_path: Path, tiny_pipeline: Path) -> None:
    process = command("generate_data.py", "--model", tiny_pipeline, "--num-images", "5000", "--out", "data", "--steps", "2", cwd=tmp_path)
    for _ in range(600):
        if (tmp_path / "data" / "train").exists():
            break
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert "run the same command to go on" in err
    assert "Traceback" not in err
    assert not list((tmp_path / "data").rglob("*.tmp"))


def test_training_leaves_a_run(trained: tuple[Path, Path, str]) -> None:
    _, run_directory, out = trained
    assert sorted(path.name for path in (run_directory / "model").iterdir()) == ["README.md", "config.json", "model.safetensors", "tokenizer.json"]
    assert [path.name for path in sorted((run_directory / "checkpoints").iterdir())] == ["step-000008", "step-000012"]
    assert list(run_directory.glob("events.out.tfevents.*"))
    assert (run_directory / "report" / "samples.png").exists()
    assert "| metric | reprompt | nearest | constant |" in out
    assert f"python caption.py IMAGE_OR_FOLDER --checkpoint {run_directory / 'model'}" in out


def test_two_processes_train_one_network(trained: tuple[Path, Path, str], tmp_path: Path) -> None:
    arguments = ["mini", "--data", trained[0], "--out", tmp_path / "run", "--max-steps", "4", *TINY, "--batch-size", "8"]
    out = run_on_two_processes("train.py", *arguments, cwd=tmp_path)
    assert out.count("report        ") == 1
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()


def test_training_refuses_what_cannot_work(trained: tuple[Path, Path, str], tmp_path: Path) -> None:
    data, run_directory, _ = trained
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("x")
    for arguments, message in (
        (["--data", tmp_path / "none"], "is not a data set"),
        (["--data", data, "--out", run_directory], "holds a run already. Go on with it: python train.py"),
        (["--data", data, "--out", tmp_path / "other"], "holds something else than a run"),
        (["--data", data, "--out", tmp_path / "x", "--resume"], "no run to resume"),
        (["--data", data, "--out", run_directory, "--resume", "--seed", "5"], "begun with other settings"),
    ):
        _, err = run("train.py", "mini", *arguments, *TINY, fails=True)
        assert message in err


def test_training_stopped_by_ctrl_c_resumes_to_the_same_weights(trained: tuple[Path, Path, str], tmp_path: Path) -> None:
    import safetensors.torch
    import torch

    data, _, _ = trained
    arguments = ["mini", "--data", data, "--max-steps", "40", *TINY]
    run("train.py", *arguments, "--out", tmp_path / "whole")
    process = command("train.py", *arguments, "--out", tmp_path / "parts")
    for _ in range(900):
        if list((tmp_path / "parts" / "checkpoints").glob("step-*4")):
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    if process.returncode:  # it may have been faster than the signal
        assert "go on with: python train.py mini" in err
        run("train.py", *arguments, "--out", tmp_path / "parts", "--resume")
    ends = [safetensors.torch.load_file(tmp_path / name / "checkpoints" / "step-000040" / "model.safetensors") for name in ("whole", "parts")]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_evaluate_measures_and_writes(trained: tuple[Path, Path, str], tmp_path: Path) -> None:
    data, run_directory, _ = trained
    outputs = ["--json", tmp_path / "out.json", "--report", tmp_path / "report"]
    out, _ = run(
        "evaluate.py", "--checkpoint", run_directory / "model", "--data", data, "--limit", "4", "--baseline", "nearest", "constant", *outputs
    )
    assert "| metric | reprompt | nearest | constant |" in out
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["pairs"] == 4
    assert [row["name"] for row in content["results"]] == ["reprompt", "nearest", "constant"]
    assert set(content["results"][0]["metrics"]) == {"similarity", "cider_d", "rouge_l", "token_f1", "exact_match", "bleu_4"}
    assert {file.name for file in (tmp_path / "report").iterdir()} == {"report.md", "predictions.jsonl", "samples.png"}
    for arguments, message in (
        (["--data", tmp_path], "is not a data set"),
        (["--data", data, "--checkpoint", data], "is not a Reprompt checkpoint"),
        (["--data", data, "--checkpoint", run_directory / "model", "--baseline", "bllip"], "unknown baseline"),
    ):
        _, err = run("evaluate.py", *arguments, fails=True)
        assert message in err


def test_caption_writes_a_line_for_each_picture_and_counts_what_it_skips(trained: tuple[Path, Path, str], tmp_path: Path) -> None:
    _, run_directory, _ = trained
    for i in range(3):
        painted("cat", "").save(tmp_path / f"{i}.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n")
    out, err = run("caption.py", tmp_path, "--checkpoint", run_directory / "model", fails=True)
    assert [line.split("\t")[0] for line in out.splitlines()] == [str(tmp_path / f"{i}.png") for i in range(3)]
    assert "skipped" in err
    assert "1 of 4 files could not be read" in err
    for arguments, message in (([tmp_path / "none"], "does not exist"), ([run_directory / "checkpoints"], "there are no pictures in")):
        _, err = run("caption.py", *arguments, "--checkpoint", run_directory / "model", fails=True)
        assert message in err


def test_the_model_in_the_box_reads_an_example() -> None:
    out, _ = run("caption.py", "docs/examples")
    assert len(out.splitlines()) >= 4
    assert all("\t" in line for line in out.splitlines())


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "diffusers.py").write_text("raise ImportError('blocked')")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    line = [sys.executable, str(ROOT / "generate_data.py"), "--out", str(tmp_path / "new")]
    process = subprocess.run(line, capture_output=True, text=True, env=environment, check=False)
    assert "pip install -e '.[generate]'" in process.stderr
    assert "Traceback" not in process.stderr
    assert not (tmp_path / "new").exists()


def test_a_git_directory_captions_and_is_trained_further(tmp_path: Path) -> None:
    save_git(tmp_path / "git")
    data = write_dataset(tmp_path / "data", 150)
    painted("cat", "red").save(tmp_path / "cat.png")
    before, _ = run("caption.py", tmp_path / "cat.png", "--checkpoint", tmp_path / "git", "--max-new-tokens", 8)
    arguments = ["--data", data, "--init", tmp_path / "git", "--out", tmp_path / "run", "--max-steps", 6, "--learning-rate", 0.005, *TINY[-12:]]
    out, _ = run("train.py", "mini", *arguments)
    assert "vit_base_patch16_clip_quickgelu_224" in out
    after, _ = run("caption.py", tmp_path / "cat.png", "--checkpoint", tmp_path / "run" / "model", "--max-new-tokens", 8)
    assert after.split("\t")[1] != before.split("\t")[1]
    _, err = run("train.py", "mini", "--data", data, "--init", tmp_path / "none", "--out", tmp_path / "other", fails=True)
    assert "none" in err
    assert "tokenizer.json" in err or "not a directory" in err


def test_caption_samples_with_a_forced_start_and_without_banned_words(trained: tuple[Path, Path, str], tmp_path: Path) -> None:
    _, run_directory, _ = trained
    painted("cat", "red").save(tmp_path / "cat.png")
    arguments = [tmp_path / "cat.png", "--checkpoint", run_directory / "model", "--prefix", "a pencil sketch", "--num-return", 5]
    out, _ = run("caption.py", *arguments, "--sample", "--seed", 3, "--temperature", 1.5, "--ban", "beach", "snow")
    lines = [line.split("\t")[1] for line in out.splitlines()]
    assert len(lines) == 5
    assert all(line.startswith("a pencil sketch") and "beach" not in line and "snow" not in line for line in lines)
    again, _ = run("caption.py", *arguments, "--sample", "--seed", 3, "--temperature", 1.5, "--ban", "beach", "snow")
    assert again == out
    _, err = run("caption.py", *arguments, "--sample", "--temperature", 0, fails=True)
    assert "temperature must be above 0" in err
    _, err = run("caption.py", *arguments, "--temperature", 1.3, fails=True)
    assert "add --sample" in err
