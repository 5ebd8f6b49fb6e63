"""Can the pictures of the embedded diffusion model be read? A classifier trained on renders, tried on unseen renders and on generated images.

    python -m diffusion.mini.probe --model assets/mini-diffusion --json probe.json

It learns subject, style and background from rendered scenes (the emoji font is needed), then reads them off renders it has never
seen and off images generated from scenes that the diffusion model never trained on. The ratio of the two says how much the diffusion
model costs; no model that reads its images can do better than the second figure allows. A subject counts as read when the
classifier names one of the subjects in the scene.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """How to train the probe and what to read with it."""

    model: str = "mini"
    """"mini" or a pipeline directory."""
    run_dir: Path = Path("runs/mini-diffusion")
    """Where renders and the trained probe are kept; the run directory of diffusion.mini.train has renders already."""
    renders: int = 100_000
    epochs: int = 3
    batch_size: int = 128
    images: int = 1000
    """Unseen renders, and generated images, to read."""
    steps: int | None = None
    """None: what the model usually takes, 2 for the shipped one; 12 for its teacher, with --guidance 4."""
    guidance: float | None = None
    json: Path | None = None
    sheet: Path | None = None
    """Write a contact sheet of 64 generated images here."""


if __name__ == "__main__":  # --help and a wrong option do not wait for the imports below, which take seconds
    CONFIG = tyro.cli(ProbeConfig, description=__doc__)

import numpy as np
import safetensors.torch
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from core.device import autocast
from diffusion.contact_sheet import contact_sheet
from diffusion.families import usual_sampling
from diffusion.mini.render import MissingFontError, load_sprites
from diffusion.mini.renders import make_renders, open_images, read_slots_of, render_scenes
from diffusion.mini.world import BACKGROUNDS, STYLES, SUBJECTS, random_scenes
from diffusion.pipelines import Failure, PipelineError, default_device, load_pipeline, synthesize

SLOTS: dict[str, list[str]] = {"subject": list(SUBJECTS), "style": list(STYLES), "background": list(BACKGROUNDS)}


class Probe(nn.Module):
    """ResNet-18 up to its third stage, kept at 8 x 8, with one linear head per slot: (B, 3, 64, 64) in [0, 1] -> {slot: (B, values)}."""

    def __init__(self) -> None:
        super().__init__()
        backbone: Any = timm.create_model("resnet18", features_only=True, out_indices=(3,), output_stride=8)
        self.backbone = backbone
        width = 2 * backbone.feature_info.channels()[-1]
        self.heads = nn.ModuleDict({slot: nn.Linear(width, len(values)) for slot, values in SLOTS.items()})

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        (features,) = self.backbone(images * 2 - 1)
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3))], dim=1)  # a background is everywhere, a subject somewhere
        return {slot: head(pooled) for slot, head in self.heads.items()}


def main(config: ProbeConfig) -> None:
    probe = _probe(config)
    sprites = load_sprites()
    rendered, _, lines = render_scenes(config.images, seed=77, held_out=True, sprites=sprites)
    scenes = list(itertools.islice(random_scenes(78, held_out=True), config.images))
    device = default_device()
    pipeline = load_pipeline(config.model, device=device)
    steps, guidance = usual_sampling(pipeline, config.model)
    steps, guidance = config.steps or steps, config.guidance if config.guidance is not None else guidance
    generated: list[Image.Image] = []
    prompts = [prompt for _, prompt in scenes]
    for start in tqdm(range(0, config.images, 32), "generating", unit="batch"):
        part = prompts[start : start + 32]
        seeds = range(10_000_000 + start, 10_000_000 + start + len(part))
        images = synthesize(pipeline, part, seeds, steps=steps, guidance_scale=guidance)
        failures = [image for image in images if isinstance(image, Failure)]
        if failures:
            raise PipelineError(f"the pipeline made {len(failures)} of {len(images)} images not: {failures[0].message}")
        generated += [image for image in images if not isinstance(image, Failure)]
    on_renders = read_accuracy(probe, rendered, [line["slots"] for line in lines])
    on_generated = read_accuracy(probe, np.stack([np.asarray(image) for image in generated]), [scene.slots() for scene, _ in scenes])
    print(f"\n{config.images} unseen renders, {config.images} images generated from unseen prompts\n")
    print("| read | renders | generated | ratio |\n|---|---|---|---|")
    for slot in SLOTS:
        print(f"| {slot} | {on_renders[slot]:.3f} | {on_generated[slot]:.3f} | {on_generated[slot] / on_renders[slot]:.3f} |")
    if config.json is not None:
        config.json.write_text(
            json.dumps({"renders": on_renders, "generated": on_generated, "images": config.images}, indent=2) + "\n", encoding="utf-8"
        )
    if config.sheet is not None:
        contact_sheet(generated[:64], prompts[:64], columns=8, cell=128).save(config.sheet)


@torch.inference_mode()
def read_accuracy(probe: Probe, images: NDArray[np.uint8], slots: list[dict[str, str]]) -> dict[str, float]:
    """Share of `images` (B, 64, 64, 3) whose subject, style and background the probe names rightly."""
    probe.eval()
    right = dict.fromkeys(SLOTS, 0)
    for start in range(0, len(images), 200):
        guesses = probe(_to_tensor(images[start : start + 200]))
        for slot, values in SLOTS.items():
            for truth, guess in zip(slots[start : start + 200], guesses[slot].argmax(-1).tolist(), strict=True):
                accepted = {truth[slot], truth["other"]} if slot == "subject" else {truth[slot]}
                right[slot] += values[guess] in accepted
    return {slot: count / len(images) for slot, count in right.items()}


def _probe(config: ProbeConfig) -> Probe:
    """The trained probe: from the run directory, or trained now."""
    path = config.run_dir / "probe.safetensors"
    probe = Probe()
    if path.exists():
        probe.load_state_dict(safetensors.torch.load_file(path))
        return probe
    renders = config.run_dir / "renders"
    make_renders(renders, config.renders, seed=0, processes=os.cpu_count() or 1)
    images, slots = open_images(renders, config.renders), read_slots_of(renders, config.renders)
    targets = {slot: torch.tensor([values.index(line[slot]) for line in slots]) for slot, values in SLOTS.items()}
    others = torch.tensor([SLOTS["subject"].index(line["other"] or line["subject"]) for line in slots])
    device = default_device()
    probe.to(device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(probe.parameters(), lr=2e-3, weight_decay=0.05)
    total = config.epochs * (len(slots) // config.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=total, pct_start=0.1)
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.permutation(len(slots))[: len(slots) // config.batch_size * config.batch_size] for _ in range(config.epochs)])
    for step in tqdm(range(total), "training the probe", unit="step"):
        some = rows[step * config.batch_size : (step + 1) * config.batch_size]
        batch = _disturb(_to_tensor(images[some])).to(device)
        with autocast(device):
            guesses = probe(batch)
        places = torch.from_numpy(some)
        loss = sum(F.cross_entropy(guesses[slot].float(), targets[slot][places].to(device)) for slot in SLOTS if slot != "subject")
        first, second = (F.cross_entropy(guesses["subject"].float(), target[places].to(device)) for target in (targets["subject"], others))
        loss = loss + 0.5 * first + 0.5 * second
        loss.backward()
        nn.utils.clip_grad_norm_(probe.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    probe.to("cpu").to(memory_format=torch.contiguous_format)
    safetensors.torch.save_file(probe.state_dict(), path)
    return probe


def _disturb(images: torch.Tensor) -> torch.Tensor:
    """Blur half of a batch and add a little noise, so that the probe reads shapes and not the renderer's exact pixels."""
    half = len(images) // 2
    kernel = torch.tensor([1.0, 2.0, 1.0])
    kernel = (kernel[:, None] * kernel / 16).expand(3, 1, 3, 3)
    blurred = F.conv2d(F.pad(images[:half], (1, 1, 1, 1), mode="replicate"), kernel, groups=3)
    images = torch.cat([blurred, images[half:]])
    return images + 0.03 * torch.randn_like(images)


def _to_tensor(images: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


if __name__ == "__main__":
    try:
        main(CONFIG)
    except (MissingFontError, PipelineError) as error:
        sys.exit(str(error))
