import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion.pipelines import MINI, MINI_DIRECTORY, PipelineError, compile_denoiser, load_pipeline, synthesize

CPU = torch.device("cpu")


def test_a_pipeline_directory_renders_whatever_the_batch(tiny_pipeline: Path) -> None:
    pipeline = load_pipeline(str(tiny_pipeline), device=CPU, dtype=torch.float32)
    prompts, seeds = ["a cat on a beach", "a dog", "two owls"], [5, 6, 7]
    together = synthesize(pipeline, prompts, seeds, steps=3, guidance_scale=2.0)
    for prompt, seed, image in zip(prompts, seeds, together, strict=True):
        alone = synthesize(pipeline, [prompt], [seed], steps=3, guidance_scale=2.0)[0]
        assert np.abs(np.asarray(alone, dtype=int) - np.asarray(image, dtype=int)).max() <= 2
    other_seed = synthesize(pipeline, prompts[:1], [99], steps=3, guidance_scale=2.0)[0]
    assert np.abs(np.asarray(other_seed, dtype=int) - np.asarray(together[0], dtype=int)).mean() > 1


def test_an_image_that_is_not_finite_is_none(tiny_pipeline: Path) -> None:
    pipeline = load_pipeline(str(tiny_pipeline), device=CPU, dtype=torch.float32)
    with torch.no_grad():
        next(pipeline.vae.decoder.parameters()).fill_(float("nan"))
    assert synthesize(pipeline, ["a cat"], [1], steps=2, guidance_scale=1.0) == [None]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_compiled_pipeline_makes_the_same_image(tiny_pipeline: Path) -> None:
    pipeline = load_pipeline(str(tiny_pipeline), device=CPU, dtype=torch.float32)
    (plain,) = synthesize(pipeline, ["a cat"], [1], steps=2, guidance_scale=2.0)
    compile_denoiser(pipeline)
    (compiled,) = synthesize(pipeline, ["a cat"], [1], steps=2, guidance_scale=2.0)
    assert np.abs(np.asarray(plain, dtype=int) - np.asarray(compiled, dtype=int)).max() <= 2


def test_compiling_without_a_compiler_says_what_to_do(tiny_pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(PipelineError, match="apt install g"):
        compile_denoiser(load_pipeline(str(tiny_pipeline), device=CPU, dtype=torch.float32))


def test_errors_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PipelineError, match=r"no model_index\.json"):
        load_pipeline(str(tmp_path), device=CPU, dtype=torch.float32)
    with pytest.raises(PipelineError, match=r"could not be loaded.*\n.*Hub id while there is a network"):
        load_pipeline("someone/not-a-model", device=CPU, dtype=torch.float32)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(PipelineError, match=r"pip install -e '\.\[generate\]'"):
        load_pipeline(MINI, device=CPU, dtype=torch.float32)


def test_the_embedded_pipeline_loads_with_diffusers_alone() -> None:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(MINI_DIRECTORY)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a watercolor painting of a fox in a forest", num_inference_steps=2).images[0]
    assert image.size == (64, 64)
    files = [file for file in MINI_DIRECTORY.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 24_000_000
    assert max(file.stat().st_size for file in files) < 16_000_000
    assert {file.suffix for file in files} <= {".json", ".safetensors", ".md", ".txt"}
