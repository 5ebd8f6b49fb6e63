"""What becomes of pictures that a pipeline does not make."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion import painting
from diffusion.families import usual_sampling
from diffusion.painting import Render, painting_with
from diffusion.pipelines import SAFETY_CHECKER, Failure, PipelineError, load_pipeline, synthesize

Made = Image.Image | Failure
PICTURE = Image.new("RGB", (8, 8), "red")
BLACKENED, LOST = Failure(SAFETY_CHECKER, "blackened"), Failure("out of memory", "no room")


def render_that_gives(made: Sequence[Made], pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> Render:
    monkeypatch.setattr(painting, "synthesize", lambda pipeline, prompts, *_, **__: list(made))
    return painting_with(str(pipeline), torch.device("cpu"))[0]


def test_pictures_are_those_of_the_pipeline_and_the_seeds(tiny_pipeline: Path) -> None:
    render, name = painting_with(str(tiny_pipeline), torch.device("cpu"))
    pipeline = load_pipeline(str(tiny_pipeline), device=torch.device("cpu"))
    steps, guidance_scale = usual_sampling(pipeline, str(tiny_pipeline))
    expected = synthesize(pipeline, ["a cat", "a dog"], [3, 4], steps=steps, guidance_scale=guidance_scale)
    assert [np.asarray(one).tolist() for one in render(["a cat", "a dog"], [3, 4])] == [np.asarray(one).tolist() for one in expected]
    assert name == f"{tiny_pipeline} in {steps} steps"


def test_what_a_safety_checker_blackens_is_black_and_counted(
    tiny_pipeline: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    render = render_that_gives([PICTURE, BLACKENED], tiny_pipeline, monkeypatch)
    first, second = render(["a", "b"], [0, 1])
    assert first is PICTURE
    assert second.getextrema() == ((0, 0),) * 3
    assert capsys.readouterr().err == "1 of 2 pictures are black: blackened\n"


def test_pictures_that_fail_otherwise_are_an_error_whatever_else_failed(tiny_pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    render = render_that_gives([BLACKENED, PICTURE, LOST], tiny_pipeline, monkeypatch)
    with pytest.raises(PipelineError, match="1 of 3 pictures could not be painted: no room"):
        render(["a", "b", "c"], [0, 1, 2])
