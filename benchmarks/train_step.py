"""A training step beside Hugging Face's GIT: forward, backward and AdamW on the same weights and pairs, in alternating rounds.

    python benchmarks/train_step.py
    python benchmarks/train_step.py --batches 8 --dtypes bfloat16 --json train_step.json
    python benchmarks/train_step.py --captions 5        ours alone: the captions of a picture as one row each, and sharing it

bfloat16 is autocast over float32 weights. Both predict the same text tokens; the losses of both are compared first, without dropout.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from gits import build_pair, pictures
from rounds import median_seconds, report, usual_dtypes

from model import CaptionModel, EncoderConfig, ModelConfig, Preprocessing
from training.config import PRESETS
from training.objective import CaptionLoss


@dataclass(frozen=True, kw_only=True)
class TrainStepConfig:
    """What to compare."""

    source: str | None = None
    """A GIT directory or Hub id; random weights of git-base's shape without it."""
    batches: tuple[int, ...] = (8, 32)
    dtypes: tuple[Literal["float32", "bfloat16", "float16"], ...] = field(default_factory=usual_dtypes)
    """By default float32, and bfloat16 where the device multiplies in it."""
    text_tokens: int = 24
    captions: int = 1
    """Of each picture, on the features of a frozen encoder, in the network of the preset small; 1 compares with Hugging Face's GIT instead."""
    rounds: int = 3
    compile: bool = False
    """Compile ours with torch.compile."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    json: Path | None = None


class Step:
    """Forward, backward and AdamW of one model on one batch; `loss_of` is what tells the two apart."""

    def __init__(self, model: Any, loss_of: Callable[[], torch.Tensor], autocast: torch.autocast) -> None:
        self.model, self.loss_of, self.autocast = model.train(), loss_of, autocast
        self.optimizer = torch.optim.AdamW(model.parameters(), 1e-6, fused=True)

    def __call__(self) -> None:
        with self.autocast:
            loss = self.loss_of()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def loss(self) -> float:
        """Without dropout."""
        self.model.eval()
        with self.autocast:
            loss = float(self.loss_of())
        self.model.train()
        return loss


def steps_of(config: TrainStepConfig, theirs: Any, ours: Any, batch: int, dtype: str, device: torch.device) -> dict[str, Step]:
    pixels = pictures(batch, device=device, dtype=torch.float32)
    ids = torch.randint(1000, 30_000, (batch, config.text_tokens), generator=torch.Generator().manual_seed(2)).to(device)
    autocast = torch.autocast(device.type, getattr(torch, dtype), enabled=dtype != "float32")
    our_loss = torch.compile(ours.loss) if config.compile else ours.loss
    return {
        "hf": Step(theirs, lambda: theirs(input_ids=ids, pixel_values=pixels, labels=ids).loss, autocast),
        "ours": Step(ours, lambda: our_loss(pixels, ids[:, :-1], ids[:, 1:]), autocast),
    }


def measure_captions(config: TrainStepConfig) -> None:
    """A row for each caption beside captions that share what is computed of their picture."""
    device, rows = torch.device(config.device), []
    preset = PRESETS["small"]().model
    shape: dict[str, Any] = {
        "width": preset.width,
        "layers": preset.layers,
        "heads": preset.heads,
        "ffn_width": preset.ffn_width,
        "vocab_size": preset.vocab_size,
    }
    shape |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "dropout": 0.0}
    encoder = EncoderConfig(name=preset.encoder, stage=preset.stage)
    for dtype in config.dtypes:
        autocast = torch.autocast(device.type, getattr(torch, dtype), enabled=dtype != "float32")
        for batch in config.batches:
            torch.manual_seed(0)
            images = -(-batch // config.captions)
            owners = (torch.arange(batch) // config.captions).to(device)
            ids = torch.randint(3, preset.vocab_size, (batch, config.text_tokens), generator=torch.Generator().manual_seed(2)).to(device)
            model = CaptionModel(
                ModelConfig(encoder=encoder, preprocessing=Preprocessing(image_size=224), max_text_tokens=config.text_tokens, **shape)
            ).to(device)
            model.encoder.backbone.requires_grad_(False)
            with torch.no_grad():
                features = model.encoder.features(pictures(images, device=device, dtype=torch.float32))
            objective = CaptionLoss(model, from_features=True)
            count = ids[:, 1:].numel()
            steps = {
                "a row each": Step(model, lambda o=objective, f=features, i=ids, p=owners, n=count: o(f[p], i[:, :-1], i[:, 1:]) / n, autocast),
                "shared": Step(model, lambda o=objective, f=features, i=ids, p=owners, n=count: o(f, i[:, :-1], i[:, 1:], p) / n, autocast),
            }
            losses = {name: step.loss() for name, step in steps.items()}
            seconds = median_seconds(steps, rounds=config.rounds, device=device)
            row = {"dtype": dtype, "pairs": batch, "pictures": images} | {f"{name} pairs/s": batch / took for name, took in seconds.items()}
            rows.append(row | {"ratio": seconds["a row each"] / seconds["shared"]} | {f"{name} loss": f"{loss:.5f}" for name, loss in losses.items()})
            print(rows[-1], file=sys.stderr)
    report(f"Training step, {config.captions} captions a picture, frozen encoder, medians of {config.rounds} rounds", rows, device, config.json)


def main(config: TrainStepConfig) -> None:
    if config.captions > 1:
        measure_captions(config)
        return
    device, rows = torch.device(config.device), []
    for dtype in config.dtypes:
        for batch in config.batches:
            theirs, ours = build_pair(config.source, device=device, dtype=torch.float32)
            ours.config = dataclasses.replace(ours.config, label_smoothing=0.0)  # theirs has none
            steps = steps_of(config, theirs, ours, batch, dtype, device)
            losses = {name: step.loss() for name, step in steps.items()}
            seconds = median_seconds(steps, rounds=config.rounds, device=device)
            row = {"dtype": dtype, "batch": batch, "hf s": seconds["hf"], "our s": seconds["ours"], "ratio": seconds["hf"] / seconds["ours"]}
            rows.append(row | {"hf loss": f"{losses['hf']:.5f}", "our loss": f"{losses['ours']:.5f}"})
            print(rows[-1], file=sys.stderr)
    compiled = ", ours compiled" if config.compile else ""
    report(f"Training step, git-base shape, {config.text_tokens} text tokens{compiled}, medians of {config.rounds} rounds", rows, device, config.json)


if __name__ == "__main__":
    main(tyro.cli(TrainStepConfig, description=__doc__))
