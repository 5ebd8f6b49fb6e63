"""The whole recipe of the embedded model on noise pictures written here, so that no font is needed."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline

from diffusion.mini.networks import build_scheduler
from diffusion.mini.renders import CHUNK
from diffusion.mini.train import MiniDiffusionConfig, main, velocity_loss

ROOT = Path(__file__).parents[2]


def renders(directory: Path) -> None:
    """One chunk of "renders"; the trainer takes what is there."""
    directory.mkdir(parents=True)
    rng = np.random.default_rng(0)
    np.save(directory / "images-00000.npy", rng.integers(0, 256, (CHUNK, 64, 64, 3), dtype=np.uint8))
    np.save(directory / "masks-00000.npy", np.full((CHUNK, 64, 64), 255, dtype=np.uint8))
    lines = [{"prompt": f"a cat on a beach, {word}", "slots": {}} for word in ("rain", "snow") * (CHUNK // 2)]
    (directory / "scenes-00000.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.slow
def test_from_nothing_to_a_pipeline_that_diffusers_loads(tmp_path: Path) -> None:
    renders(tmp_path / "run" / "renders")
    config = MiniDiffusionConfig(
        run_dir=tmp_path / "run", out=tmp_path / "out", renders=CHUNK, autoencoder_samples=64, samples=32, batch_size=16, save_minutes=60
    )
    main(config)
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "out")
    assert np.asarray(pipeline("a cat, snow", num_inference_steps=2).images[0]).shape == (64, 64, 3)
    main(config)  # finished: everything is found in the run directory


def test_a_directory_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="holds something else than a pipeline"):
        main(MiniDiffusionConfig(run_dir=tmp_path / "run", out=tmp_path))
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.slow
def test_a_teacher_can_be_trained_further(tmp_path: Path) -> None:
    for name in ("first", "second"):
        renders(tmp_path / name / "renders")
    first = MiniDiffusionConfig(
        run_dir=tmp_path / "first", out=tmp_path / "teacher", renders=CHUNK, autoencoder_samples=32, samples=32, batch_size=16, save_minutes=60
    )
    main(first)
    main(dataclasses.replace(first, run_dir=tmp_path / "second", out=tmp_path / "out", start_from=tmp_path / "teacher"))
    before, after = (StableDiffusionPipeline.from_pretrained(tmp_path / name, dtype=torch.float32) for name in ("teacher", "out"))
    for name, value in before.vae.state_dict().items():
        assert torch.equal(value, after.vae.state_dict()[name]), name
    assert before.tokenizer.get_vocab() == after.tokenizer.get_vocab()
    moved = (before.unet.conv_in.weight - after.unet.conv_in.weight).abs().max()
    assert 0 < moved < 0.02  # two steps away


def test_a_student_is_not_trained_as_a_teacher(tmp_path: Path) -> None:
    config = MiniDiffusionConfig(run_dir=tmp_path / "run", out=tmp_path / "out", start_from=ROOT / "assets" / "mini-diffusion")
    with pytest.raises(ValueError, match=r"was distilled to few steps; its README\.md says how to have its teacher"):
        main(config)
    assert not (tmp_path / "run").exists()


def test_the_target_is_the_velocity_that_diffusers_schedulers_undo() -> None:
    """A network that gives the right velocity at every noise level has no loss, and a scheduler's own formulas say which that is."""
    scheduler = build_scheduler()
    clean, seen = torch.randn(16, 4, 16, 16, generator=torch.Generator().manual_seed(0)), []

    class Right(torch.nn.Module):
        def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
            share = scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
            noise = (noisy - share.sqrt() * clean) / (1 - share).sqrt().clamp(min=1e-6)
            seen.append(timesteps)
            return DDPMScheduler.get_velocity(SimpleNamespace(alphas_cumprod=scheduler.alphas_cumprod), clean, noise, timesteps)

    class Zero(torch.nn.Module):
        def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(noisy)

    share = scheduler.alphas_cumprod.float()
    subjects = torch.zeros(16, 1, 16, 16)
    ids = torch.zeros(16, 4, dtype=torch.long)
    assert float(velocity_loss(Right(), share, clean, ids, subjects)) < 1e-4
    assert 0.5 < float(velocity_loss(Zero(), share, clean, ids, subjects)) < 2  # a velocity has the variance of noise
    assert seen[0].min() < 200 < 800 < seen[0].max()


def test_a_run_directory_is_gone_on_with_from_where_it_began_only(tmp_path: Path) -> None:
    (tmp_path / "run" / "latents").mkdir(parents=True)  # of a run from nothing
    config = MiniDiffusionConfig(run_dir=tmp_path / "run", out=tmp_path / "out", start_from=tmp_path / "other", renders=CHUNK)
    with pytest.raises(ValueError, match=r"begun with something else \(start_from: None there, .*other now\)"):
        main(config)
