"""evaluate.py on what is in the box."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tyro
from commands import ROOT, run_on_two_processes
from gits import save_git
from PIL import Image

import evaluate
from data.errors import ShardError
from data.splits import SPLITS
from diffusion import painting
from diffusion.pipelines import SAFETY_CHECKER, Failure
from inference import PromptInverter
from model import CaptionModel, CheckpointError

BOX, DATA = ROOT / "assets" / "mini-inverter", ROOT / "assets" / "mini-benchmark"


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def evaluate_here(*arguments: object) -> int:
    """The exit code."""
    return 1 if evaluate.main(tyro.cli(evaluate.EvaluateConfig, args=list(map(str, arguments)))) else 0


def test_it_needs_no_argument(capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate_here("--limit", "3") == 0
    out = capsys.readouterr().out
    assert "3 pictures of assets/mini-benchmark (test) in 3 groups of prompts" in out
    assert "| metric | reprompt | another's prompt to the true one |" in out


def test_evaluate_measures_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["evaluate.py", "--vlm.base-url", "https://name:se@cret@host/v1"])
    outputs = ["--json", tmp_path / "out.json", "--report", tmp_path / "report"]
    evaluate_here("--limit", "4", "--baseline", "nearest", "constant", *outputs)
    assert "| metric | reprompt | nearest | constant |" in capsys.readouterr().out
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["data"]["pictures"] == 4
    assert content["data"]["split"] == "test"
    assert content["command"] == "evaluate.py --vlm.base-url https://***@host/v1"
    assert content["sentence_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert [row["name"] for row in content["results"]] == ["reprompt", "nearest", "constant"]
    assert {"similarity", "cider_d", "rouge_l", "token_f1", "exact_match", "bleu_1", "bleu_4", "degenerate"} <= set(content["results"][0]["metrics"])
    files = {"captions", "report.html", "report.md", "results.json", "predictions.jsonl", "samples.png"}
    assert {file.name for file in (tmp_path / "report").iterdir()} == files
    assert json.loads((tmp_path / "report" / "results.json").read_text())["results"] == content["results"]
    for arguments, message in (
        (["--data", tmp_path], "is not a data set"),
        (["--checkpoint", DATA], "is not a Reprompt checkpoint"),
        (["--baseline", "bllip"], "unknown baseline"),
    ):
        with pytest.raises((CheckpointError, ShardError, ValueError), match=message):
            evaluate_here(*arguments)


def test_a_baseline_that_cannot_be_had_costs_its_column_and_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin = ["--limit", "4", "--json", tmp_path / "out.json"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        assert evaluate_here(*begin, "--baseline", f"blip={tmp_path}", "constant") == 1
    out = capsys.readouterr().out
    assert f"blip={tmp_path} failed: {tmp_path} could not be loaded" in out
    reprompt, blip, constant = json.loads((tmp_path / "out.json").read_text())["results"]
    assert "metrics" in reprompt
    assert "metrics" in constant
    assert "failed" in blip
    assert evaluate_here(*begin, "--baseline", "constant") == 0


def test_evaluate_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    begin = ["--limit", "6", "--batch-size", "2", "--report", tmp_path]
    asked: list[int] = []
    predict = PromptInverter.predict

    def stopping(self: PromptInverter, images: Any, **how: Any) -> Any:
        asked.append(len(images))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return predict(self, images, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PromptInverter, "predict", stopping)
        with pytest.raises(KeyboardInterrupt):
            evaluate_here(*begin)
        assert evaluate_here(*begin) == 0
    assert asked == [2, 2, 2, 2]
    before = json.loads((tmp_path / "results.json").read_text())["results"][0]
    assert before["captioned_before"] == 4
    whole = tmp_path / "whole"
    assert evaluate_here(*begin[:-1], whole) == 0
    assert json.loads((whole / "results.json").read_text())["results"][0]["metrics"] == before["metrics"]


@pytest.mark.slow
def test_two_processes_measure_what_one_does(tmp_path: Path) -> None:
    begin = ["--limit", "6", "--batch-size", "2", "--baseline", "nearest", "constant"]
    run_on_two_processes("evaluate.py", *begin, "--report", tmp_path / "two", cwd=tmp_path)
    assert evaluate_here(*begin, "--report", tmp_path / "one") == 0
    one, two = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two"))
    assert [row["metrics"] for row in two["results"]] == [row["metrics"] for row in one["results"]]
    assert two["range"] == one["range"]
    assert len(list((tmp_path / "two" / "captions" / "reprompt").iterdir())) == 2


@pytest.mark.slow
def test_the_round_trip_has_a_ceiling_a_floor_and_a_drift(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin = ["--limit", "3", "--baseline", "constant", "--round-trip", "2"]
    assert evaluate_here(*begin, "--report", tmp_path) == 0
    found = json.loads((tmp_path / "results.json").read_text())["round_trip"]
    assert set(found["recovery"]) == {"reprompt", "constant"}
    assert len(found["drifts"]["constant"]["image"]) == len(found["drifts"]["constant"]["sentence"]) == 2
    assert found["ceiling"]["mean"] > found["floor"]["mean"]
    assert found["encoder"] == "the encoder of assets/mini-inverter"
    assert "| painted from | picture similarity | recovery |" in capsys.readouterr().out
    assert (tmp_path / "report.html").read_text().count("<svg") == 4


@pytest.mark.parametrize(("kind", "why"), [("out of memory", "3 of 3 pictures could not be painted"), (SAFETY_CHECKER, "are they black")])
def test_a_painter_that_fails_costs_the_round_trip_alone(
    kind: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(painting, "synthesize", lambda pipeline, prompts, *_, **__: [Failure(kind, "no picture")] * len(prompts))
    assert evaluate_here("--limit", "3", "--round-trip", "1", "--report", tmp_path) == 1
    out = capsys.readouterr().out
    assert "| similarity |" in out
    assert "round trip failed: " in out
    assert why in out
    assert why in (tmp_path / "report.html").read_text()
    assert json.loads((tmp_path / "results.json").read_text())["round_trip"] is None


def test_evaluate_searches_as_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    search = CaptionModel.search_on
    monkeypatch.setattr(CaptionModel, "search_on", lambda self, features, **how: told.append(how) or search(self, features, **how))
    where = ("--json", tmp_path / "out.json")
    evaluate_here(*where, "--limit", "2", "--num-beams", "3", "--length-penalty", "0.5", "--max-new-tokens", "4")
    content = json.loads((tmp_path / "out.json").read_text())
    settings = content["settings"]
    assert [(how["num_beams"], how["length_penalty"]) for how in told] == [(3, 0.5)] == [(settings["num_beams"], settings["length_penalty"])]
    assert [how["max_new_tokens"] for how in told] == [4] == [settings["max_new_tokens"]]


def test_evaluate_looks_at_once_whether_it_can_write_what_it_will_find(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    begin = ["--checkpoint", BOX]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "measure", lambda *_, **__: pytest.fail("hours of work"))
        for option, path in (("--json", tmp_path), ("--json", tmp_path / "file" / "out.json"), ("--report", tmp_path / "file")):
            with pytest.raises(OSError, match="file"):
                evaluate_here(*begin, option, path)


def test_baselines_know_no_test_pair(tmp_path: Path) -> None:
    """Where one table lists the pictures of all splits; of noise no picture is near another."""
    rows = []
    for i in range(45):
        (tmp_path / SPLITS[i % 3]).mkdir(exist_ok=True)
        Image.effect_noise((32, 32), 90).convert("RGB").save(tmp_path / SPLITS[i % 3] / f"{i}.png")
        rows.append(json.dumps({"file_name": f"{SPLITS[i % 3]}/{i}.png", "text": f"picture number {i}"}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows))
    evaluate_here("--data", tmp_path, "--baseline", "nearest", "--json", tmp_path / "out.json")
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["data"]["pictures"] == 15
    assert content["results"][1]["metrics"]["exact_match"]["mean"] == 0


def test_two_baselines_of_a_kind_have_two_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        save_git(tmp_path / name)
    names = (f"git={tmp_path / 'one'}", f"git={tmp_path / 'two'}")
    common = {"limit": 3}
    evaluate.main(evaluate.EvaluateConfig(baseline=names, json=tmp_path / "out.json", **common))
    assert [row["name"] for row in json.loads((tmp_path / "out.json").read_text())["results"]] == ["reprompt", *names]
    with pytest.raises(ValueError, match="is named twice"):
        evaluate.main(evaluate.EvaluateConfig(baseline=("constant", "constant"), **common))
    capsys.readouterr()
    evaluate.main(evaluate.EvaluateConfig(baseline=("nearest",), split="train", **common))
    assert "looks its own prompt up" in capsys.readouterr().err
