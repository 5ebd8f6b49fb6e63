"""The commands as a user runs them: real processes, tiny models."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import tyro
from commands import BRIEF, ROOT, command, run, run_on_two_processes
from examples import painted, write_dataset
from gits import save_git
from PIL import Image
from safetensors.torch import load_file, save_file

import app
import caption
import evaluate
import generate_data
import score
from data.audit import AuditConfig
from data.errors import PairError, ShardError
from data.preview import PreviewConfig
from data.splits import SPLITS
from data.store.directory import index_shard
from data.store.pairs import PairDataset
from diffusion.pipelines import PipelineError
from inference import PromptInverter
from model import CaptionModel
from tokenizer import TokenizerError
from training.config import TrainConfig


@pytest.fixture
def generate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    """generate_data.py inside the test's process, which spares it the imports; what it printed."""
    monkeypatch.chdir(tmp_path)

    def here(*arguments: object) -> tuple[str, str]:
        given = list(map(str, arguments))
        monkeypatch.setattr(sys, "argv", ["generate_data.py", *given])
        generate_data.main(tyro.cli(generate_data.GenerateConfig, args=given))
        found = capsys.readouterr()
        return found.out, found.err

    return here


COMMANDS = {
    "caption.py": caption.CaptionConfig, "evaluate.py": evaluate.EvaluateConfig, "generate_data.py": generate_data.GenerateConfig,
    "score.py": score.ScoreConfig, "app.py": app.AppConfig, "train.py": TrainConfig,
    "data/importers.py": None, "data/audit.py": AuditConfig, "data/preview.py": PreviewConfig,
}  # fmt: skip


def test_every_help_shows_examples_and_explains_every_option() -> None:
    for name, config in COMMANDS.items():
        text = (ROOT / name).read_text()
        description = text.split('"""')[1]
        assert "Examples:" in description or "python train.py" in description, name
        if config is not None:
            parsed = io.StringIO()
            with contextlib.redirect_stdout(parsed), pytest.raises(SystemExit) as ended:
                tyro.cli(config, args=["--help"], description=description)
            assert ended.value.code == 0
            assert "--" in parsed.getvalue(), name


@pytest.mark.parametrize("script", ["train.py", "caption.py"])
def test_help_teaches(script: str) -> None:
    out, _ = run(script, "--help")
    assert "Examples:" in out or "python train.py" in out


def test_generate_makes_a_data_set_and_leaves_a_finished_one_alone(
    tmp_path: Path, tiny_pipeline: Path, generate: Callable[..., tuple[str, str]]
) -> None:
    (tmp_path / "prompts.txt").write_text("a cat\na dog\ntwo owls\n")
    arguments = ["--prompts", "prompts.txt", "--model", tiny_pipeline, "--out", "data", "--num-images", "7", "--steps", "2", "--shard-size", "3"]
    out, _ = generate(*arguments)
    assert re.search(r"data: 7 pairs \(train \d, val \d, test \d\)", out)
    about = json.loads((tmp_path / "data" / "dataset.json").read_text())
    assert about["generator"] == "StableDiffusionPipeline"
    assert about["settings"]["steps"] == [2]
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "data").rglob("*")}
    generate(*arguments)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "data").rglob("*")} == before
    # a lost shard is made again, the same to the byte
    stats = sorted((tmp_path / "data" / "train").glob("*_stats.json"))[0]
    tar = Path(str(stats).replace("_stats.json", ".tar"))
    content = tar.read_bytes()
    stats.unlink()
    tar.unlink()
    generate(*arguments)
    assert tar.read_bytes() == content
    with pytest.raises(ShardError, match=r"begun with other settings \(steps: \[2\] there, \[3\] now\)"):
        generate(*arguments[:-3], "3", "--shard-size", "3")


def test_generate_draws_settings_and_makes_one_image_again(tmp_path: Path, tiny_pipeline: Path, generate: Callable[..., tuple[str, str]]) -> None:
    lines = [
        "id,title",
        *(f"{i},a {colour} {thing}" for i, (colour, thing) in enumerate(itertools.product(["red", "blue", "green"], ["cat", "owl"]))),
    ]
    (tmp_path / "titles.csv").write_text("\n".join(lines))
    arguments = ["--prompts", "titles.csv", "--prompt-column", "title", "--model", tiny_pipeline, "--images-per-prompt", 3, "--out", "data"]
    arguments += ["--steps", 1, 2, 3, "--guidance", 1.5, 3, "--scheduler", "euler", "--negative-prompt", "a beach", "--width", 32, "--height", 48]
    out, _ = generate(*arguments)
    assert "data: 18 pairs" in out
    pairs = [pair for split in SPLITS if (tmp_path / "data" / split).exists() for pair in PairDataset(tmp_path / "data", split)]
    assert Counter(pair.prompt for pair in pairs) == Counter({line.split(",")[1]: 3 for line in lines[1:]})
    assert {pair.metadata["steps"] for pair in pairs} == {1, 2, 3}
    assert {pair.metadata["guidance_scale"] for pair in pairs} == {1.5, 3.0}
    assert {pair.image.size for pair in pairs} == {(32, 48)}
    assert {pair.metadata["sampler"] for pair in pairs} == {"EulerDiscreteScheduler"}
    out, _ = generate("--out", "data", "--only", "000000007")
    again = Image.open(tmp_path / "000000007.png").convert("RGB")
    (pair,) = [pair for pair in pairs if pair.key == "000000007"]
    difference = np.abs(np.asarray(again, dtype=int) - np.asarray(pair.image, dtype=int)).max()
    assert difference <= 2
    assert f"by at most {difference} of 255" in out
    with pytest.raises(PairError, match="no finished shard holds the pair '7'"):
        generate("--out", "data", "--only", "7")


def test_generate_counts_failures_and_retries_them(tmp_path: Path, tiny_pipeline: Path, generate: Callable[..., tuple[str, str]]) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_pipeline, broken)
    weights = broken / "vae" / "diffusion_pytorch_model.safetensors"
    content = load_file(weights)
    save_file({name: torch.full_like(value, float("nan")) for name, value in content.items()}, weights)
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    arguments = ["--prompts", "prompts.txt", "--model", "broken", "--out", "data", "--steps", 1]
    _, err = generate(*arguments)
    assert "2 images could not be made: 2 x not finite" in err
    rows = [row for path in (tmp_path / "data").rglob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert {(row["status"], row["error_kind"]) for row in rows} == {("failed", "not finite")}
    shutil.copy(tiny_pipeline / "vae" / weights.name, weights)
    generate(*arguments)  # what is done is done
    assert not any(index_shard(path) for path in (tmp_path / "data").rglob("*.tar"))
    _, err = generate(*arguments, "--retry")
    assert "could not be made" not in err
    assert sum(len(index_shard(path)) for path in (tmp_path / "data").rglob("*.tar")) == 2


@pytest.mark.slow
def test_generate_killed_at_random_moments_makes_the_same(tmp_path: Path, tiny_pipeline: Path) -> None:
    (tmp_path / "prompts.txt").write_text("\n".join(f"prompt {i} {'abcdef'[i % 6]}{i}" for i in range(40)))
    arguments = ["--prompts", "prompts.txt", "--model", tiny_pipeline, "--num-images", "80", "--steps", "1", "--shard-size", "4"]
    run("generate_data.py", *arguments, "--out", "whole", cwd=tmp_path)
    draw, kills = random.Random(1), 0
    for _ in range(3):
        process = command("generate_data.py", *arguments, "--out", "killed", cwd=tmp_path)
        for _ in range(1500):
            if (tmp_path / "killed" / "dataset.json").exists() or process.poll() is not None:
                break
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 0.6))
        if process.poll() is None:
            kills += 1
            process.kill()
        process.communicate()
    assert kills
    run("generate_data.py", *arguments, "--out", "killed", cwd=tmp_path)
    made = sorted(path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*") if path.suffix in (".tar", ".parquet"))
    assert len(made) >= 40
    for path in made:
        assert (tmp_path / "whole" / path).read_bytes() == (tmp_path / "killed" / path).read_bytes()
    assert not list((tmp_path / "killed").rglob("*.tmp"))


@pytest.mark.slow
def test_two_runs_on_one_directory_share_the_work(tmp_path: Path, tiny_pipeline: Path) -> None:
    (tmp_path / "prompts.txt").write_text("\n".join(f"prompt {i} {'abcdef'[i % 6]}{i}" for i in range(40)))
    arguments = ["--prompts", "prompts.txt", "--model", tiny_pipeline, "--num-images", "80", "--steps", "1", "--shard-size", "4"]
    run("generate_data.py", *arguments, "--out", "one", cwd=tmp_path)
    processes = [command("generate_data.py", *arguments, "--out", "both", cwd=tmp_path) for _ in range(2)]
    outcomes = [(process.communicate(timeout=200), process.returncode) for process in processes]
    assert 0 in {code for _, code in outcomes}, outcomes  # the last to be done finds all of it there
    for (_, err), code in outcomes:  # the other may not, and says so
        assert code == 0 or (code == 1 and "are being made by another run" in err), err
    out, _ = run("generate_data.py", *arguments, "--out", "both", cwd=tmp_path)
    assert "both: 80 pairs" in out
    for path in (tmp_path / "one").rglob("*.tar"):
        assert path.read_bytes() == (tmp_path / "both" / path.relative_to(tmp_path / "one")).read_bytes()


@pytest.mark.slow
def test_two_processes_make_the_shards_of_one(tmp_path: Path, tiny_pipeline: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a cat\na dog\ntwo owls\n")
    arguments = ["--prompts", "prompts.txt", "--model", tiny_pipeline, "--num-images", "9", "--steps", "2", "--shard-size", "2"]
    arguments += ["--sentence-model", "none"]  # which takes seconds to load
    run("generate_data.py", *arguments, "--out", "one", cwd=tmp_path)
    out = run_on_two_processes("generate_data.py", *arguments, "--out", "two", cwd=tmp_path)
    assert out.count("two: 9 pairs") == 1
    shards = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.tar"))
    assert len(shards) >= 5
    for shard in shards:
        assert (tmp_path / "one" / shard).read_bytes() == (tmp_path / "two" / shard).read_bytes()


def test_generate_refuses_what_cannot_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.doc").write_text("x")
    for arguments, message in (
        (["--prompts", "empty.txt"], "holds no prompt"),
        (["--prompts", "none.txt"], "none.txt does not exist"),
        (["--out", "other"], "holds other things and no dataset.json"),
        (["--out", "empty.txt"], "is a file; name a directory"),
        (["--out", "new", "--model", "other"], "no model_index.json"),
        (["--out", "new", "--batch-size", "0"], "--batch-size must be 1 or more, not 0"),
        (["--out", "new", "--shard-size", "-1"], "--shard-size must be 1 or more, not -1"),
        (["--out", "new", "--steps", "4", "0"], "--steps must be 1 or more, not 0"),
        (["--out", "new", "--guidance", "nan"], "--guidance must be 0 or more, not nan"),
        (["--out", "new", "--seed", "-5"], "--seed must be 0 or more, not -5"),
    ):
        with pytest.raises((OSError, ValueError, RuntimeError), match=re.escape(message)):
            generate_data.main(tyro.cli(generate_data.GenerateConfig, args=list(map(str, arguments))))
    assert not (tmp_path / "new").exists()
    _, err = run("generate_data.py", "--prompts", "none.txt", cwd=tmp_path, fails=True)
    assert err.startswith("generate_data.py: ")


def test_a_mistake_in_the_settings_costs_a_correction(tmp_path: Path, tiny_pipeline: Path, generate: Callable[..., tuple[str, str]]) -> None:
    """A directory in which nothing has been made is begun anew; of one that holds a shard the settings stay."""
    arguments = ["--model", tiny_pipeline, "--num-images", 3, "--steps", 1, "--shard-size", 3, "--out", "data"]
    with pytest.raises(PipelineError, match="divisible by 8"):
        generate(*arguments, "--width", 100, "--height", 100)
    assert json.loads((tmp_path / "data" / "dataset.json").read_text())["settings"]["size"] == [100, 100]
    out, _ = generate(*arguments, "--width", 16, "--height", 16)
    assert "data: 3 pairs" in out
    with pytest.raises(ShardError, match="begun with other settings"):
        generate(*arguments, "--width", 24, "--height", 24)


@pytest.mark.slow
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


def test_the_batch_size_is_the_networks(trained: tuple[Path, Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    encode = CaptionModel.encode
    monkeypatch.setattr(CaptionModel, "encode", lambda self, pixels: batches.append(len(pixels)) or encode(self, pixels))
    evaluate.main(evaluate.EvaluateConfig(data=str(trained[0]), checkpoint=str(trained[1] / "model"), batch_size=4, limit=6))
    assert batches == [4, 2]


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (evaluate.EvaluateConfig, {"data": "x", "limit": 0}, "--limit must be 1 or more"),
        (evaluate.EvaluateConfig, {"data": "x", "num_beams": 0}, "--num-beams must be 1 or more"),
        (evaluate.EvaluateConfig, {"data": "x", "length_penalty": float("inf")}, "--length-penalty must be a number"),
        (score.ScoreConfig, {"data": Path("x"), "batch_size": 0}, "--batch-size must be 1 or more"),
        (app.AppConfig, {"port": 99999}, "--port must be 1 to 65535, not 99999"),
    ],
)
def test_numbers_out_of_range_are_named_before_anything_is_loaded(config: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**options)


def test_ctrl_c_while_libraries_are_imported_leaves_no_traceback() -> None:
    for script in ("caption.py", "train.py"):
        process = command(script, *(("docs/examples",) if script == "caption.py" else ("--data", "nowhere")))
        time.sleep(1.5)  # the imports take some four seconds
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert "Traceback" not in err


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "diffusers.py").write_text("raise ImportError('blocked')")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    line = [sys.executable, str(ROOT / "generate_data.py"), "--out", str(tmp_path / "new")]
    process = subprocess.run(line, capture_output=True, text=True, env=environment, check=False)
    assert "pip install -e '.[generate]'" in process.stderr
    assert "Traceback" not in process.stderr
    assert not (tmp_path / "new").exists()


def test_a_git_directory_captions_and_is_trained_further(tmp_path: Path, train_here: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    save_git(tmp_path / "git")
    data = write_dataset(tmp_path / "data", 150)
    painted("cat", "red").save(tmp_path / "cat.png")

    def write(checkpoint: Path) -> str:
        (prediction,) = PromptInverter.from_pretrained(checkpoint).predict([tmp_path / "cat.png"], max_new_tokens=8)
        return prediction.prompt

    before = write(tmp_path / "git")
    arguments = ["--data", data, "--init", tmp_path / "git", "--out", tmp_path / "run", "--max-steps", 6, "--learning-rate", 0.005, *BRIEF]
    train_here("mini", *arguments)
    assert "vit_base_patch16_clip_quickgelu_224" in capsys.readouterr().out
    assert write(tmp_path / "run" / "model") != before
    with pytest.raises(TokenizerError, match=r"none/tokenizer\.json"):
        train_here("mini", "--data", data, "--init", tmp_path / "none", "--out", tmp_path / "other")
