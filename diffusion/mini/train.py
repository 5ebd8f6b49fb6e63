"""Train the embedded Stable Diffusion from nothing: render scenes, train the autoencoder, then the text encoder and UNet together.

    python -m diffusion.mini.train                                    one process
    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 -m diffusion.mini.train     two: faster on 2 cores

It may be stopped at any time; the same command goes on where it stopped. It paints in twelve guided steps, 24 passes of its UNet;
`python -m diffusion.mini.distil` brings them to four. `--run-dir` holds the renders, the state and sample sheets.
The emoji font is needed (Debian: apt-get install fonts-noto-color-emoji).
"""

from __future__ import annotations

import copy
import itertools
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro


@dataclass(frozen=True, kw_only=True)
class MiniDiffusionConfig:
    """How to train the embedded Stable Diffusion."""

    run_dir: Path = Path("runs/mini-diffusion")
    """Directory of renders, latents, training state, sample sheets and TensorBoard logs."""
    out: Path = Path("runs/mini-teacher")
    """Where the finished pipeline goes: python -m diffusion.mini.distil makes of it what is shipped."""
    start_from: Path | None = None
    """Go on from this pipeline's weights instead of from nothing: its autoencoder and tokenizer are kept, its text encoder and UNet
    trained further. assets/mini-diffusion/README.md says how to have the shipped model's teacher."""
    renders: int = 240_000
    """Distinct rendered pictures to learn from."""
    autoencoder_samples: int = 110_000
    """Pictures the autoencoder sees."""
    samples: int = 3_000_000
    """Pictures the text encoder and UNet see. More is better; on a GPU use 20 million."""
    batch_size: int = 64
    """Over all processes."""
    learning_rate: float = 6e-4
    decay: float = 0.4
    """The last part of the run, in which the learning rate falls linearly to nothing."""
    save_minutes: float = 8.0
    """Time between two saves of the state, each with a sheet of samples."""
    compile: bool = False
    """Compile the text encoder and UNet (torch.compile): a minute's wait, then about 1.3 times the speed on a CPU. Needs a C++ compiler."""
    seed: int = 0


if __name__ == "__main__":  # --help and a wrong option do not wait for the imports below, which take seconds
    CONFIG = tyro.cli(MiniDiffusionConfig, description=__doc__)

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm
from transformers import CLIPTokenizer

from diffusion.contact_sheet import contact_sheet
from diffusion.mini.begun import check_begun
from diffusion.mini.card import TEACHER_CARD
from diffusion.mini.fit import FitConfig, InterruptedTrainingError, fit, start_accelerator
from diffusion.mini.networks import (
    LATENT_SIZE,
    TEACHER_GUIDANCE,
    TEACHER_STEPS,
    Denoiser,
    build_autoencoder,
    build_pipeline,
    build_prompt_tokenizer,
    build_scheduler,
    build_text_encoder,
    build_unet,
    is_student,
)
from diffusion.mini.render import IMAGE_SIZE, MissingFontError
from diffusion.mini.renders import CHUNK, Chunks, make_renders, open_images, open_masks, read_prompts, save_array
from diffusion.mini.world import random_scenes

GUIDANCE_DROPOUT = 0.1
SUBJECT_WEIGHT = 3.0  # an error on a subject counts that much more: backgrounds are learnt soon, and a third of the picture is who it shows


def main(config: MiniDiffusionConfig) -> None:
    check_out(config.out)
    if config.start_from is not None and is_student(config.start_from):
        raise ValueError(f"--start-from {config.start_from} was distilled to few steps; its README.md says how to have its teacher")
    accelerator = start_accelerator()
    config.run_dir.mkdir(parents=True, exist_ok=True)
    with accelerator.main_process_first():
        _check_begun(config)
    renders = config.run_dir / "renders"
    with accelerator.main_process_first():  # the first process renders, the others find it done
        make_renders(renders, config.renders, seed=config.seed, processes=os.cpu_count() or 1)
    vae = _autoencoder(config, accelerator, open_images(renders, config.renders))
    with accelerator.main_process_first():
        tokenizer = _tokenizer(config, renders)
    latents = _latents(config, vae, tokenizer, renders, accelerator)
    _denoiser(config, accelerator, vae, tokenizer, latents, open_masks(renders, config.renders))
    if accelerator.is_main_process:
        replace_pipeline(config.out, config.run_dir / "pipeline")
        print(f"The pipeline is in {config.out}. Look at it: python -m diffusion.mini.probe --model {config.out}")


def _check_begun(config: MiniDiffusionConfig) -> None:
    """What a run directory holds depends on where its run began: latents on the autoencoder, the state on the weights."""
    now = {"start_from": str(config.start_from) if config.start_from is not None else None, "seed": config.seed, "batch_size": config.batch_size}
    old = any((config.run_dir / name).exists() for name in ("vae", "latents", "tokenizer"))
    check_begun(config.run_dir, now, unrecorded=now | {"start_from": None} if old else None)


def _autoencoder(config: MiniDiffusionConfig, accelerator: Accelerator, images: Chunks) -> AutoencoderTiny:
    if config.start_from is not None:
        return AutoencoderTiny.from_pretrained(config.start_from / "vae", dtype=torch.float32)
    finished = config.run_dir / "vae"
    if finished.exists():
        return AutoencoderTiny.from_pretrained(finished)

    vae = build_autoencoder().to(memory_format=torch.channels_last)

    def draw_batch(rng: np.random.Generator, n: int) -> tuple[torch.Tensor]:
        return (_to_tensor(images[rng.integers(0, len(images), n)]),)

    def report(module: nn.Module, step: int) -> None:
        with torch.no_grad():
            some = _to_tensor(images[np.arange(256)])
            again = vae.decode(vae.encode(some).latents).sample
        psnr = 10 * torch.log10(4 / (again - some).square().mean((1, 2, 3))).mean()
        tqdm.write(f"autoencoder after {step} steps: {psnr:.2f} dB")

    fit_config = FitConfig(
        name="autoencoder",
        samples=config.autoencoder_samples,
        batch_size=32,
        learning_rate=1.5e-3,
        decay=0.6,
        ema_decay=0.999,
        save_minutes=config.save_minutes / 2,
        seed=config.seed,
    )
    autoencoder = _Autoencoder(vae)
    fit(
        autoencoder,
        draw_batch,
        _reconstruction_loss,
        fit_config,
        accelerator=accelerator,
        directory=config.run_dir,
        on_save=report,
    )
    with torch.no_grad():  # the UNet wants latents of unit variance
        spread = vae.encode(_to_tensor(images[np.arange(min(2000, len(images)))])).latents.std()
    vae.register_to_config(scaling_factor=round(1 / float(spread), 4))
    if accelerator.is_main_process:
        vae.save_pretrained(finished.with_suffix(".tmp"))
        os.replace(finished.with_suffix(".tmp"), finished)
    accelerator.wait_for_everyone()
    return vae


class _Autoencoder(nn.Module):
    """Encode, disturb the latent a little as a diffusion model will, decode."""

    def __init__(self, vae: AutoencoderTiny) -> None:
        super().__init__()
        self.vae: Any = vae

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        latents = self.vae.encode(images).latents
        noisy = latents + 0.06 * torch.randn_like(latents)
        return self.vae.decode(noisy).sample, latents


def _reconstruction_loss(module: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """`image_loss`, and a pull of each channel of the latents towards N(0, 1)."""
    again, latents = module(images)
    latents = latents.float()
    mean, variance = latents.mean((0, 2, 3)), latents.var((0, 2, 3))
    return image_loss(again.float(), images) + 0.01 * (mean.square() + (variance - 1).square()).mean()


def image_loss(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """L1 + squared error + L1 of the image gradients, which keeps lines: (B, 3, h, w) twice -> scalar."""
    error = images - targets
    lines = (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    return error.abs().mean() + error.square().mean() + 0.5 * lines


def _to_tensor(images: np.ndarray) -> torch.Tensor:
    """(B, 64, 64, 3) uint8 -> (B, 3, 64, 64) float in [-1, 1], channels last in memory."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def _tokenizer(config: MiniDiffusionConfig, renders: Path) -> CLIPTokenizer:
    if config.start_from is not None:
        return CLIPTokenizer.from_pretrained(config.start_from / "tokenizer")
    saved = config.run_dir / "tokenizer"
    if not saved.exists():
        build_prompt_tokenizer(read_prompts(renders, config.renders)).save_pretrained(saved.with_suffix(".tmp"))
        os.replace(saved.with_suffix(".tmp"), saved)
    return CLIPTokenizer.from_pretrained(saved)


def _latents(
    config: MiniDiffusionConfig, vae: AutoencoderTiny, tokenizer: CLIPTokenizer, renders: Path, accelerator: Accelerator
) -> tuple[Chunks, np.ndarray]:
    """Encode every render once, the processes sharing the chunks. Returns latents, scaled to unit variance, and all prompts' token ids."""
    directory = config.run_dir / "latents"
    directory.mkdir(exist_ok=True)
    images = open_images(renders, config.renders)
    paths = [directory / f"{number:05d}.npy" for number in range(len(images) // CHUNK)]
    vae.to(accelerator.device)
    mine = [number for number in range(len(paths)) if number % accelerator.num_processes == accelerator.process_index]
    for number in tqdm(mine, "encoding", unit="chunk", disable=not accelerator.is_main_process):
        path = paths[number]
        if path.exists():
            continue
        parts = []
        for start in range(0, CHUNK, 250):
            batch = _to_tensor(images[number * CHUNK + start + np.arange(250)]).to(accelerator.device)
            with torch.no_grad(), accelerator.autocast():
                parts.append(vae.encode(batch).latents.float().cpu() * vae.config.scaling_factor)
        save_array(path, torch.cat(parts).half().numpy())
    vae.to("cpu")
    tokens = config.run_dir / "tokens.npy"
    if accelerator.is_main_process and not tokens.exists():
        prompts = read_prompts(renders, config.renders)
        save_array(tokens, np.array(tokenizer(prompts, padding="max_length", truncation=True).input_ids, dtype=np.int32))
    accelerator.wait_for_everyone()
    return Chunks(paths), np.load(tokens)


def _denoiser(
    config: MiniDiffusionConfig,
    accelerator: Accelerator,
    vae: AutoencoderTiny,
    tokenizer: CLIPTokenizer,
    data: tuple[Chunks, np.ndarray],
    masks: Chunks,
) -> None:
    latents, tokens = data
    no_prompt = np.array(tokenizer("", padding="max_length").input_ids, dtype=np.int32)
    signal_share = build_scheduler().alphas_cumprod.float().to(accelerator.device)

    def draw_batch(rng: np.random.Generator, n: int) -> tuple[torch.Tensor, ...]:
        rows = rng.integers(0, min(len(latents), len(tokens)), n)
        prompts = np.where(rng.random((n, 1)) < GUIDANCE_DROPOUT, no_prompt, tokens[rows])
        subjects = F.avg_pool2d(torch.from_numpy(masks[rows])[:, None].float() / 255, IMAGE_SIZE // LATENT_SIZE)
        return torch.from_numpy(latents[rows]).float(), torch.from_numpy(prompts).long(), subjects

    def loss_of(module: nn.Module, clean: torch.Tensor, input_ids: torch.Tensor, subjects: torch.Tensor) -> torch.Tensor:
        return velocity_loss(module, signal_share, clean, input_ids, subjects)

    prompts = [prompt for _, prompt in itertools.islice(random_scenes(config.seed + 1, held_out=True), 32)]

    def export(module: nn.Module, step: int) -> None:
        export_pipeline(build_pipeline(vae, module.unet, module.text_encoder, tokenizer, build_scheduler()), config.run_dir / "pipeline")
        pipeline = StableDiffusionPipeline.from_pretrained(config.run_dir / "pipeline", dtype=torch.bfloat16).to(accelerator.device)
        pipeline.set_progress_bar_config(disable=True)
        sampling = {"num_inference_steps": TEACHER_STEPS, "guidance_scale": TEACHER_GUIDANCE, "generator": torch.Generator().manual_seed(0)}
        images = pipeline(prompts, **sampling).images
        (config.run_dir / "samples").mkdir(exist_ok=True)
        contact_sheet(images, prompts, columns=8, cell=128).save(config.run_dir / "samples" / f"{step * config.batch_size:09d}.png")

    torch.manual_seed(config.seed)
    if config.start_from is not None:
        pipeline = StableDiffusionPipeline.from_pretrained(config.start_from, dtype=torch.float32)
        text_encoder, unet = pipeline.text_encoder.train(), pipeline.unet.train()
    else:
        text_encoder, unet = build_text_encoder(len(tokenizer), tokenizer.eos_token_id, tokenizer.bos_token_id), build_unet()
    unet.set_attn_processor(AttnProcessor())  # the backward pass of SDPA is slow on a CPU
    module = Denoiser(text_encoder, unet).to(memory_format=torch.channels_last)
    if config.compile:
        module.compile()  # in place: the weights keep their names
    fit_config = FitConfig(
        name="denoiser",
        samples=config.samples,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        decay=config.decay,
        ema_decay=0.9995,
        save_minutes=config.save_minutes,
        seed=config.seed,
    )
    fit(module, draw_batch, loss_of, fit_config, accelerator=accelerator, directory=config.run_dir, on_save=export)


def velocity_loss(
    module: nn.Module, signal_share: torch.Tensor, clean: torch.Tensor, input_ids: torch.Tensor, subjects: torch.Tensor
) -> torch.Tensor:
    """Squared error of the velocity, sqrt(a) noise - sqrt(1 - a) clean (Salimans and Ho, arXiv 2202.00512, section 4), weighted towards subjects.

    Args:
        signal_share: (timesteps,), the a of each.
        clean: (B, C, h, w) latents.
        input_ids: (B, T).
        subjects: (B, 1, h, w), how much of each place is a subject, 0 to 1.
    """
    timesteps = (_noise_levels(len(clean)).to(clean.device) * len(signal_share)).long()
    share = signal_share[timesteps].view(-1, 1, 1, 1)
    noise = torch.randn_like(clean)
    noisy = (share.sqrt() * clean + (1 - share).sqrt() * noise).contiguous(memory_format=torch.channels_last)
    velocity = share.sqrt() * noise - (1 - share).sqrt() * clean
    weight = 1 + SUBJECT_WEIGHT * subjects
    error = (module(noisy, timesteps, input_ids).float() - velocity).square().mean(1, keepdim=True)
    return (weight * error).sum() / weight.sum()


def _noise_levels(n: int) -> torch.Tensor:
    """(n,) in [0, 1), each n-th part of the distribution drawn once: half uniform, half logit-normal around the middle, where the shapes
    of things are decided (arXiv 2403.03206, section 3.1)."""
    evenly = (torch.arange(n) + torch.rand(n)) / n
    middle = torch.sigmoid(torch.special.ndtri(evenly.clamp(1e-4, 1 - 1e-4)))
    return torch.where(torch.arange(n) % 2 == 0, evenly, middle).clamp(max=1 - 1e-6)


def export_pipeline(pipeline: StableDiffusionPipeline, directory: Path, *, card: str = TEACHER_CARD) -> None:
    """Save a half-precision copy of `pipeline` with its model card, replacing `directory` when all is written."""
    temporary = directory.with_suffix(".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    copies = {name: copy.deepcopy(getattr(pipeline, name)).half() for name in ("unet", "vae", "text_encoder")}
    for name, part in copies.items():
        if any(not torch.isfinite(weight).all() for weight in part.parameters()):
            raise ValueError(f"{name} has weights that are not finite in half precision; nothing was exported")
    copy_of = build_pipeline(**copies, tokenizer=pipeline.tokenizer, scheduler=pipeline.scheduler)
    copy_of.save_pretrained(temporary, safe_serialization=True, max_shard_size="12MB")
    # transformers computes in the dtype that config.json names, diffusers in float32 unless told otherwise: let them agree
    _edit_json(temporary / "text_encoder" / "config.json", lambda config: config | {"dtype": "float32"})
    # saved by AutoencoderTiny, but not an argument of it: loading would warn; and where it lay during training is nobody's business
    unwanted = ("block_out_channels", "_name_or_path")
    _edit_json(temporary / "vae" / "config.json", lambda config: {name: config[name] for name in config if name not in unwanted})
    (temporary / "README.md").write_text(card, encoding="utf-8")
    _exchange(directory, temporary)


def check_out(out: Path) -> None:
    """
    Raises:
        ValueError: `out` is there, and no pipeline.
    """
    if out.exists() and not (out / "model_index.json").is_file():
        raise ValueError(f"--out {out} holds something else than a pipeline, and would be replaced; name another directory")


def replace_pipeline(out: Path, finished: Path) -> None:
    """Copy a pipeline to `out`, as a whole: weights left over from another export would be loaded instead."""
    copy_of = out.with_name(f"{out.name}.tmp")
    shutil.rmtree(copy_of, ignore_errors=True)
    shutil.copytree(finished, copy_of)
    _exchange(out, copy_of)


def _exchange(directory: Path, whole: Path) -> None:
    """Put `whole` in its place. Whatever ends this in the middle, one of the two is there under its name or the name's `.before`."""
    before = directory.with_name(f"{directory.name}.before")
    shutil.rmtree(before, ignore_errors=True)
    if directory.exists():
        os.replace(directory, before)
    os.replace(whole, directory)
    shutil.rmtree(before, ignore_errors=True)


def _edit_json(path: Path, edit: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path.write_text(json.dumps(edit(json.loads(path.read_text(encoding="utf-8"))), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main(CONFIG)
    except (MissingFontError, InterruptedTrainingError, OSError, ValueError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("\nstopped; what was rendered stays, and the same command goes on")
