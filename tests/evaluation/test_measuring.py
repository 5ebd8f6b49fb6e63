"""What becomes of a comparison whose painter fails; what its JSON says it was made with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from compared import PROMPTS, Told, pictures
from PIL import Image

from data.errors import DiskFullError
from evaluation.comparison import Comparison
from evaluation.measuring import measure
from evaluation.processes import Processes
from evaluation.round_trip import Painter


def told() -> dict[str, object]:
    return {"told": lambda: Told(PROMPTS)}


def failing_with(error: Exception) -> Painter:
    def render(prompts: object, seeds: object) -> list[Image.Image]:
        raise error

    return Painter(1, render, lambda images: np.ones((len(images), 2), np.float32), name="none", encoder="none")


def measured(**how: object) -> Comparison:
    return measure(told(), pictures(), about={}, title="", **how)  # type: ignore[arg-type]


def test_without_a_sentence_model_the_figures_say_so(tmp_path: Path) -> None:
    measured(json=tmp_path / "out.json")
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["sentence_model"] == "none: similarity is left out"
    assert "similarity" not in content["results"][0]["metrics"]


def test_a_painter_that_fails_leaves_what_was_written(tmp_path: Path) -> None:
    found = measured(painter=failing_with(RuntimeError("no paint")), json=tmp_path / "out.json")
    assert found.unpainted == "RuntimeError: no paint"
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["unpainted"] == "RuntimeError: no paint"
    assert content["results"][0]["metrics"]["exact_match"]["mean"] == 1


def test_a_full_disk_ends_all_and_so_does_a_painter_whose_results_other_processes_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DiskFullError):
        measured(painter=failing_with(DiskFullError("full")))
    monkeypatch.setattr(Processes, "gather", lambda self, thing: [thing])
    with pytest.raises(RuntimeError, match="no paint"):
        measured(painter=failing_with(RuntimeError("no paint")), processes=Processes(0, 2))
