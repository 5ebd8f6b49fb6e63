"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from accelerate.state import AcceleratorState
from commands import ROOT, TINY, run
from examples import lively, tiny_config, write_dataset

from diffusion.mini.world import random_scenes
from model import CaptionModel


@pytest.fixture(autouse=True)
def _one_thread_and_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # read from the environment once, at import
    AcceleratorState._reset_state(reset_partial_state=True)  # a process has one: each test may start its own kind


@pytest.fixture
def tiny_model() -> CaptionModel:
    return lively(CaptionModel(tiny_config())).eval()


@pytest.fixture
def small_dataset(tmp_path: Path) -> Path:
    """A data set directory of 120 pairs, written without a diffusion model."""
    return write_dataset(tmp_path / "pairs", 120)


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A StableDiffusionPipeline directory with random weights, a few hundred kilobytes."""
    from diffusers import AutoencoderTiny, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel

    from diffusion.mini.networks import build_prompt_tokenizer, build_text_encoder

    torch.manual_seed(3)
    tokenizer = build_prompt_tokenizer([prompt for _, prompt in zip(range(200), (p for _, p in random_scenes(2, held_out=False)), strict=False)])
    widths = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8), "num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderTiny(latent_channels=4, **widths),
        text_encoder=build_text_encoder(len(tokenizer), tokenizer.eos_token_id, tokenizer.bos_token_id),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(
            sample_size=16,
            in_channels=4,
            out_channels=4,
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            attention_head_dim=2,
            cross_attention_dim=128,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        ),
        scheduler=DPMSolverMultistepScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    directory = tmp_path_factory.mktemp("pipeline") / "tiny"
    pipeline.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A data set, a run trained on it, and what the run printed."""
    directory = tmp_path_factory.mktemp("trained")
    data = write_dataset(directory / "data", 150)
    out, _ = run("train.py", "mini", "--data", data, "--out", directory / "run", "--max-steps", "12", *TINY)
    return data, directory / "run", out


@pytest.fixture
def train_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Training inside the test's process, which spares it the imports; with the comparison at the end where a test asks for it."""
    import train

    monkeypatch.chdir(ROOT)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def train_here(*arguments: object, compare: bool = False) -> None:
        with monkeypatch.context() as patch:
            if not compare:
                patch.setattr(train, "_compare", lambda *_: ({}, ""))
                patch.setattr(train, "_learn_certainty", lambda *_: None)
            train.main(train.parse(list(map(str, arguments))))

    yield train_here
    for number, handler in handlers.items():
        signal.signal(number, handler)
