"""A training step beside Hugging Face's GIT: forward, backward and AdamW on the same weights and pairs, in alternating rounds.

    python benchmarks/train_step.py
    python benchmarks/train_step.py --batches 8 --dtypes bfloat16 --json train_step.json

bfloat16 is autocast over float32 weights. Both predict the same text tokens; the losses of both are compared first, without dropout.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from gits import build_pair, pictures
from rounds import median_seconds, report


@dataclass(frozen=True, kw_only=True)
class TrainStepConfig:
    """What to compare."""

    source: str | None = None
    """A GIT directory or Hub id; random weights of git-base's shape without it."""
    batches: tuple[int, ...] = (8, 32)
    dtypes: tuple[Literal["float32", "bfloat16", "float16"], ...] = ("bfloat16", "float32")
    text_tokens: int = 24
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


def main(config: TrainStepConfig) -> None:
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
