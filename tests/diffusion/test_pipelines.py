import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from pipelines import save_sd3, save_sdxl
from safetensors.torch import save_file

from diffusion.families import usual_dtype, usual_sampling
from diffusion.mini import MINI, MINI_DIRECTORY
from diffusion.pipelines import (
    Failure,
    MemoryLimit,
    PipelineError,
    add_lora,
    compile_denoiser,
    load_pipeline,
    synthesize,
    use_scheduler,
)
from diffusion.reading import PromptReader

CPU = torch.device("cpu")


@pytest.fixture(scope="session", params=["sd", "sdxl", "sd3"])
def some_pipeline(request: pytest.FixtureRequest, tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "sd":
        return tiny_pipeline
    save = {"sdxl": save_sdxl, "sd3": save_sd3}[request.param]
    return save(tmp_path_factory.mktemp("pipelines") / request.param)


def test_a_pipeline_directory_renders_whatever_the_batch(some_pipeline: Path) -> None:
    pipeline = load_pipeline(str(some_pipeline), device=CPU, dtype=torch.float32)
    prompts, seeds = ["a cat on a beach", "a dog", "two owls"], [5, 6, 7]
    together = synthesize(pipeline, prompts, seeds, steps=3, guidance_scale=2.0)
    for prompt, seed, image in zip(prompts, seeds, together, strict=True):
        alone = synthesize(pipeline, [prompt], [seed], steps=3, guidance_scale=2.0)[0]
        assert np.abs(np.asarray(alone, dtype=int) - np.asarray(image, dtype=int)).max() <= 2
    other_seed = synthesize(pipeline, prompts[:1], [99], steps=3, guidance_scale=2.0)[0]
    assert np.abs(np.asarray(other_seed, dtype=int) - np.asarray(together[0], dtype=int)).mean() > 1


def test_size_and_negative_prompt(some_pipeline: Path) -> None:
    pipeline = load_pipeline(str(some_pipeline), device=CPU, dtype=torch.float32)
    arguments = {"steps": 2, "guidance_scale": 3.0}
    (plain,) = synthesize(pipeline, ["a cat"], [1], **arguments)
    (negative,) = synthesize(pipeline, ["a cat"], [1], negative_prompt="two owls on a beach", **arguments)
    assert np.abs(np.asarray(plain, dtype=int) - np.asarray(negative, dtype=int)).max() > 0
    (wide,) = synthesize(pipeline, ["a cat"], [1], size=(64, 32), **arguments)
    assert wide.size == (64, 32)


def test_another_scheduler(tiny_pipeline: Path, tmp_path: Path) -> None:
    pipeline = load_pipeline(str(tiny_pipeline), device=CPU, dtype=torch.float32)
    (before,) = synthesize(pipeline, ["a cat"], [1], steps=3, guidance_scale=3.0)
    use_scheduler(pipeline, "euler-a")
    assert type(pipeline.scheduler).__name__ == "EulerAncestralDiscreteScheduler"
    (after,) = synthesize(pipeline, ["a cat"], [1], steps=3, guidance_scale=3.0)
    assert np.abs(np.asarray(before, dtype=int) - np.asarray(after, dtype=int)).max() > 0
    use_scheduler(pipeline, "DDIMScheduler")
    for name in ("eulr", "UNet2DModel"):
        with pytest.raises(PipelineError, match="take one of ddim"):
            use_scheduler(pipeline, name)
    flow = load_pipeline(str(save_sd3(tmp_path / "sd3")), device=CPU, dtype=torch.float32)
    with pytest.raises(PipelineError, match="samples a flow"):
        use_scheduler(flow, "ddim")


def test_a_lora_changes_the_image_by_its_weight(tiny_pipeline: Path, tmp_path: Path) -> None:
    pipeline = load_pipeline(str(tiny_pipeline), device=CPU, dtype=torch.float32)
    (plain,) = synthesize(pipeline, ["a cat"], [1], steps=2, guidance_scale=3.0)
    layers = {}
    for name, module in pipeline.unet.named_modules():
        if name.endswith("to_q"):
            layers |= {
                f"unet.{name}.lora_A.weight": torch.randn(2, module.in_features),
                f"unet.{name}.lora_B.weight": torch.randn(module.out_features, 2),
            }
    save_file(layers, tmp_path / "lora.safetensors")
    pictures = []
    for weight in (0.0, 1.0):
        other = load_pipeline(str(tiny_pipeline), device=CPU, dtype=torch.float32)
        add_lora(other, str(tmp_path / "lora.safetensors"), weight)
        pictures += synthesize(other, ["a cat"], [1], steps=2, guidance_scale=3.0)
    without, with_it = (np.abs(np.asarray(picture, dtype=int) - np.asarray(plain, dtype=int)).max() for picture in pictures)
    assert without <= 1
    assert with_it > 3
    (tmp_path / "broken.safetensors").write_bytes(b"x")
    for place in ("broken.safetensors", "none.safetensors"):
        with pytest.raises(PipelineError, match="could not be loaded"):
            add_lora(pipeline, str(tmp_path / place), 1.0)


class Stubborn:
    """A pipeline that has memory for two images at once, and finds some of them unfit to be seen."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.sizes: list[int] = []

    def __call__(
        self, prompt: list[str], num_inference_steps: int = 50, guidance_scale: float = 7.5, generator: object = None, output_type: str = "pil"
    ) -> object:
        self.sizes.append(len(prompt))
        if len(prompt) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        unsafe = [text == "naked" for text in prompt]
        return SimpleNamespace(images=np.zeros((len(prompt), 8, 8, 3)), nsfw_content_detected=unsafe)


def test_a_batch_that_does_not_fit_is_divided() -> None:
    pipeline, limit = Stubborn(2), MemoryLimit()
    found = synthesize(pipeline, ["a", "naked", "b", "c", "d"], [1, 2, 3, 4, 5], steps=2, guidance_scale=1.0, limit=limit)
    assert pipeline.sizes == [5, 2, 2, 1]
    assert [one.kind if isinstance(one, Failure) else one.size for one in found] == [(8, 8), "safety checker", (8, 8), (8, 8), (8, 8)]
    pipeline.sizes.clear()
    assert len(synthesize(pipeline, list("abcde"), [1, 2, 3, 4, 5], steps=2, guidance_scale=1.0, limit=limit)) == 5
    assert pipeline.sizes == [2, 2, 1]  # what did not fit is not tried again
    (failure,) = synthesize(Stubborn(0), ["a"], [1], steps=2, guidance_scale=1.0)
    assert isinstance(failure, Failure)
    assert failure.kind == "out of memory"
    with pytest.raises(PipelineError, match="takes no negative prompt"):
        synthesize(pipeline, ["a"], [1], steps=2, guidance_scale=1.0, negative_prompt="b")
    with pytest.raises(PipelineError, match="cannot do this"):
        synthesize(pipeline, ["a"], [1], steps=2, guidance_scale=1.0, size=(8, 8))


@pytest.mark.parametrize(
    ("kind", "name", "sampling"),
    [
        ("StableDiffusionPipeline", "stabilityai/stable-diffusion-2-base", (25, 7.5)),
        ("StableDiffusionPipeline", "stabilityai/sd-turbo", (4, 0.0)),
        ("StableDiffusionXLPipeline", "stabilityai/stable-diffusion-xl-base-1.0", (30, 5.0)),
        ("StableDiffusionXLPipeline", "ByteDance/SDXL-Lightning", (4, 0.0)),
        ("StableDiffusionXLPipeline", "/home/lightning/sdxl-turbo", (30, 5.0)),  # where it lies says nothing of what it is
        ("StableDiffusionPipeline", "turbo", (25, 7.5)),
        ("StableDiffusion3Pipeline", "stabilityai/stable-diffusion-3-medium", (28, 7.0)),
        ("FluxPipeline", "black-forest-labs/FLUX.1-dev", (28, 3.5)),
        ("FluxPipeline", "black-forest-labs/FLUX.1-schnell", (4, 0.0)),
        ("SanaPipeline", "Efficient-Large-Model/Sana_1600M", (20, 4.5)),
        ("PixArtSigmaPipeline", "PixArt-alpha/PixArt-Sigma", (20, 4.5)),
        ("QwenImagePipeline", "Qwen/Qwen-Image", (50, 4.0)),
    ],
)
def test_usual_sampling(kind: str, name: str, sampling: tuple[int, float]) -> None:
    pipeline = object.__new__(getattr(diffusers, kind))
    vars(pipeline)["scheduler"] = diffusers.DDIMScheduler()
    assert usual_sampling(pipeline, name) == sampling


@pytest.mark.parametrize(
    ("kind", "part", "config", "scheduler", "sampling"),
    [
        ("StableDiffusionPipeline", "unet", {"time_cond_proj_dim": 256}, diffusers.DDIMScheduler(), (8, 1.0)),
        ("StableDiffusionPipeline", "unet", {"time_cond_proj_dim": 4}, diffusers.DDIMScheduler(timestep_spacing="trailing"), (2, 1.0)),
        ("StableDiffusionPipeline", "unet", {}, diffusers.DDIMScheduler(timestep_spacing="trailing"), (25, 7.5)),
        ("StableDiffusionPipeline", "unet", {}, diffusers.LCMScheduler(), (8, 1.0)),
        ("StableDiffusionXLPipeline", "unet", {}, diffusers.EulerDiscreteScheduler(timestep_spacing="trailing"), (4, 0.0)),
        ("StableDiffusionXLPipeline", "unet", {}, diffusers.EulerDiscreteScheduler(timestep_spacing="leading"), (30, 5.0)),
        (
            "StableDiffusionXLPipeline", "unet", {},
            diffusers.EulerDiscreteScheduler(timestep_spacing="trailing", prediction_type="v_prediction"), (30, 5.0),
        ),
        ("FluxPipeline", "transformer", {"guidance_embeds": False}, diffusers.FlowMatchEulerDiscreteScheduler(), (4, 0.0)),
        ("FluxPipeline", "transformer", {"guidance_embeds": True}, diffusers.FlowMatchEulerDiscreteScheduler(), (28, 3.5)),
    ],
)  # fmt: skip
def test_a_distilled_model_in_a_directory_is_known_by_its_config(
    kind: str, part: str, config: dict[str, Any], scheduler: Any, sampling: tuple[int, float], tmp_path: Path
) -> None:
    pipeline = object.__new__(getattr(diffusers, kind))
    vars(pipeline).update({"scheduler": scheduler, part: SimpleNamespace(config=config)})
    assert usual_sampling(pipeline, str(tmp_path)) == sampling


def test_prompts_are_counted_and_cut_as_the_text_encoder_reads_them(tiny_pipeline: Path) -> None:
    pipeline = load_pipeline(str(tiny_pipeline), device=torch.device("cpu"))
    reader = PromptReader(pipeline)
    long = ", ".join(["a red fox in a dark forest"] * 20)
    encoded = pipeline.tokenizer([long], truncation=False).input_ids[0]
    assert reader.limit == pipeline.tokenizer.model_max_length < len(encoded)
    assert reader.count(["a cat", long]) == [len(pipeline.tokenizer(["a cat"]).input_ids[0]), len(encoded)]
    part = reader.cut(long)
    assert long.startswith(part)
    assert len(pipeline.tokenizer([part], truncation=False).input_ids[0]) <= reader.limit
    longer = long[: len(part) + 12].rsplit(" ", 1)[0]
    assert len(longer) > len(part)
    assert len(pipeline.tokenizer([longer], truncation=False).input_ids[0]) > reader.limit
    assert reader.cut("a cat") == "a cat"
    # what is cut away changes nothing of what the text encoder is given
    seen = [pipeline.tokenizer([text], truncation=True, padding="max_length").input_ids[0] for text in (long, f"{long} and more")]
    assert seen[0] == seen[1]


def test_a_scheduler_that_draws_from_no_seed_is_refused(tiny_pipeline: Path) -> None:
    pipeline = load_pipeline(str(tiny_pipeline), device=torch.device("cpu"))
    for name in ("DPMSolverSDEScheduler", "dpm++-sde"):
        with pytest.raises(PipelineError, match=r"draws its noise from no seed|no scheduler"):
            use_scheduler(pipeline, name)


@pytest.mark.parametrize(
    ("parts", "device", "bfloat16", "expected"),
    [
        ({"unet": [], "vae": []}, "cuda", True, torch.float16),
        ({"transformer": [], "vae": []}, "cuda", True, torch.bfloat16),
        ({"transformer": [], "vae": []}, "cuda", False, torch.float16),
        ({"transformer": [], "vae": []}, "mps", False, torch.float16),
        ({"unet": [], "vae": []}, "cpu", True, torch.bfloat16),
        ({"transformer": [], "vae": []}, "cpu", False, torch.float32),
    ],
)
def test_usual_dtype(parts: dict[str, list], device: str, bfloat16: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bfloat16)
    monkeypatch.setattr("core.device._cpu_multiplies_in", lambda dtype: bfloat16)
    assert usual_dtype(parts, torch.device(device)) == expected


def test_an_image_that_is_not_finite_is_a_failure(tiny_pipeline: Path) -> None:
    pipeline = load_pipeline(str(tiny_pipeline), device=CPU, dtype=torch.float32)
    with torch.no_grad():
        next(pipeline.vae.decoder.parameters()).fill_(float("nan"))
    (failure,) = synthesize(pipeline, ["a cat"], [1], steps=2, guidance_scale=1.0)
    assert isinstance(failure, Failure)
    assert failure.kind == "not finite"


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
