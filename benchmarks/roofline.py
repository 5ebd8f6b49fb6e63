"""How near the network is to what the machine can do: the measured rate of matrix products, the multiply-adds that each phase must do,
and the share of that rate which encode, prefill and decode step reach.

    python benchmarks/roofline.py
    python benchmarks/roofline.py --batches 8 --dtypes bfloat16 --json roofline.json

A decode step of a small batch is limited by reading the weights, not by arithmetic; its share of the measured memory rate is given too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
import tyro
from gits import build_pair, pictures
from rounds import median_seconds, report, usual_dtypes
from torch import nn

from model import CaptionModel
from model.cache import KVCache
from model.linear import linear

PAST = 10  # text tokens before the measured decode step


@dataclass(frozen=True, kw_only=True)
class RooflineConfig:
    """What to measure."""

    source: str | None = None
    """A GIT directory or Hub id; random weights of git-base's shape without it."""
    batches: tuple[int, ...] = (1, 8, 32)
    beams: int = 4
    dtypes: tuple[Literal["float32", "bfloat16", "float16"], ...] = field(default_factory=usual_dtypes)
    """By default float32, and bfloat16 where the device multiplies in it."""
    rounds: int = 5
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    json: Path | None = None


def matmul_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Multiply-adds a second of a large product, the best of several shapes of the network's own kind, by PyTorch and by `model.linear`."""
    best = 0.0
    for rows, inner, columns in ((2048, 2048, 2048), (1576, 768, 3072), (6304, 768, 2304)):
        a, b = torch.randn(rows, inner, device=device, dtype=dtype), torch.randn(columns, inner, device=device, dtype=dtype)
        with torch.inference_mode():
            products = {"plain": lambda a=a, b=b: nn.functional.linear(a, b), "ours": lambda a=a, b=b: linear(a, b, None)}  # type: ignore[misc]
            seconds = median_seconds(products, rounds=15, device=device)
        best = max(best, rows * inner * columns / min(seconds.values()))
    return best


def memory_rate(device: torch.device) -> float:
    """Bytes a second of reading a tensor larger than any cache."""
    values = torch.ones(2**28 // 4, device=device)
    return values.nbytes / median_seconds({"sum": values.sum}, rounds=7, device=device)["sum"]


def weights_of(module: nn.Module) -> int:
    return sum(parameter.numel() for name, parameter in module.named_parameters() if parameter.ndim > 1 and "embed" not in name.rsplit(".", 2)[0])


def multiply_adds(model: CaptionModel, batch: int, beams: int) -> dict[str, float]:
    """What each phase must do for `batch` images: every weight once a token, and attention's two products."""
    vit, config = model.encoder.backbone, model.config
    p, width, layers = model.num_image_tokens, config.width, config.layers
    encode = p * (weights_of(vit.blocks) + vit.embed_dim * width) + (p - 1) * vit.patch_embed.proj.weight.numel()
    encode += len(vit.blocks) * 2 * p * p * vit.embed_dim
    block = 4 * width * width + 2 * width * config.ffn_width
    prefill = (layers - 1) * (p * block + 2 * p * p * width) + p * 2 * width * width  # the last layer makes keys and values alone
    step = layers * (block + 2 * (p + PAST + 1) * width) + config.vocab_size * width
    return {"encode": batch * encode, "prefill": batch * prefill, "decode step": batch * beams * step}


def bytes_read(model: CaptionModel, batch: int, beams: int, size: int) -> float:
    """What a decode step must read: the decoder's weights once, each image's keys and values once, each hypothesis' own."""
    config = model.config
    weights = sum(parameter.numel() for parameter in model.decoder.blocks.parameters()) + config.vocab_size * config.width
    cached = 2 * config.layers * config.width * (batch * model.num_image_tokens + batch * beams * PAST)
    return float(size * (weights + cached))


@torch.inference_mode()
def main(config: RooflineConfig) -> None:
    device, rows = torch.device(config.device), []
    reading = memory_rate(device)
    for dtype_name in config.dtypes:
        dtype = getattr(torch, dtype_name)
        rate = matmul_rate(dtype, device)
        _, model = build_pair(config.source, device=device, dtype=dtype)
        for batch in config.batches:
            pixels = pictures(batch, device=device, dtype=dtype)
            image = model.encoder(pixels)
            prefix = model.decoder.prefix(image)
            hypotheses = batch * config.beams
            cache = KVCache([prefix], config.beams * (PAST + 1))
            model.decoder.step(torch.full((batch, 1), 5, device=device), cache)
            cache.select(torch.arange(batch, device=device).repeat_interleave(config.beams))
            token = torch.full((hypotheses, 1), 5, device=device)
            for _ in range(PAST - 1):
                model.decoder.step(token, cache)

            def decode_step(cache=cache, seen=cache.seen, filled=cache.filled, token=token, model=model) -> None:  # type: ignore[no-untyped-def]
                cache.seen, cache.length, cache.filled = seen, PAST, filled  # the step before is taken back
                model.decoder.logits(model.decoder.step(token, cache)[:, 0])

            phases = {
                "encode": lambda model=model, pixels=pixels: model.encoder(pixels),  # type: ignore[misc]
                "prefill": lambda model=model, image=image: model.decoder.prefix(image),  # type: ignore[misc]
                "decode step": decode_step,
            }
            seconds = median_seconds(phases, rounds=config.rounds, device=device)
            work = multiply_adds(model, batch, config.beams)
            for phase, took in seconds.items():
                row = {"dtype": dtype_name, "phase": phase, "batch": batch, "seconds": took, "Gmac": work[phase] / 1e9}
                row |= {"Gmac/s": work[phase] / took / 1e9, "of matmul rate": work[phase] / took / rate}
                read = bytes_read(model, batch, config.beams, dtype.itemsize) if phase == "decode step" else None
                rows.append(row | {"of memory rate": "" if read is None else read / took / reading})
        print(f"{dtype_name}: {rate / 1e9:.0f} billion multiply-adds a second; memory {reading / 1e9:.1f} GB/s")
    report(f"Shares of the machine's limits, git-base shape, decode step of {config.beams} beams an image", rows, device, config.json)


if __name__ == "__main__":
    main(tyro.cli(RooflineConfig, description=__doc__))
