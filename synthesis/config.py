"""What to render, with what, and where to put it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from data.console import check_least
from data.groups.nearness import Nearness
from data.store.writer import Format
from diffusion.mini import MINI

DEFAULT_IMAGES = 13_000
LongPrompts = Literal["keep", "cut", "skip"]


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """What to render, with what, and where to put it."""

    out: Path = Path("datasets/mini")
    """The data set directory; a finished one is left as it is."""
    num_images: int | None = None
    """How many images (default: --images-per-prompt for each prompt, or 13,000 of the embedded world). More images than prompts go through
    the prompts again with other seeds."""
    images_per_prompt: int = 1
    prompts: str | None = None
    """A text file with one prompt a line; a .csv, .tsv, .parquet or .jsonl; the id of a data set on the Hub; - for standard input. Without it the
    embedded world's grammar invents them."""
    prompt_column: str | None = None
    """The column of a table that holds the prompts (default: prompt, text or caption)."""
    delimiter: str | None = None
    """Between the values of a CSV (default: found in its first line)."""
    encoding: str | None = None
    """Of the prompts' file (default: found; utf-8, utf-16, cp1252 ...)."""
    long_prompts: LongPrompts = "cut"
    """What is done with a prompt of more tokens than the text encoder reads (77 for Stable Diffusion): "cut" keeps what it reads, "keep" all of it,
    of which the picture shows the beginning, "skip" leaves it out. Each is counted."""
    model: str = MINI
    """"mini" (the embedded diffusion model), a diffusers pipeline directory, or a Hub id."""
    steps: tuple[int, ...] = ()
    """Denoising steps; of several each image draws one (default: what the model usually takes; 2 for the embedded one)."""
    guidance: tuple[float, ...] = ()
    """Guidance scale; of several each image draws one (default: what the model usually takes). To the embedded one it makes no
    difference: its guidance is in its weights."""
    scheduler: str | None = None
    """dpm++, euler, euler-a, ddim, unipc, lcm ..., or a class of diffusers (default: the model's own)."""
    negative_prompt: str = ""
    width: int | None = None
    """In pixels (default: the model's own size)."""
    height: int | None = None
    lora: str | None = None
    """A LoRA: a .safetensors file, a directory or a Hub id."""
    lora_weight: float = 1.0
    nearness: Annotated[Nearness, tyro.conf.arg(name="")] = field(default_factory=Nearness)
    batch_size: int | None = None
    """Images made at once (default: 64 with the embedded model, 32 with others). It does not change them."""
    format: Format = "png"
    """How images are kept: "png" as they are, "webp" and "jpg" in a tenth to a fifth of the bytes, with differences that can hardly be seen."""
    shard_size: int = 500
    """Pairs in a shard. An interruption costs at most the shard being made."""
    seed: int = 0
    """Decides the seeds of all images and the embedded world's prompts."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    compile: bool = False
    """Compile the denoiser with torch.compile: a wait at the beginning, faster images after it. Needs a C++ compiler on a CPU."""
    retry: bool = False
    """Make the shards again in which images have failed."""
    seconds_after: float = 0.0
    """Seconds of work that follow, as train.py has measured them: the progress line counts them into what is left."""
    only: str | None = None
    """The key of one pair of --out: make its image again from its metadata, keep it as KEY.png, and say how far it is from the one in the shard."""

    @property
    def size(self) -> tuple[int, int] | None:
        return (self.width, self.height) if self.width is not None and self.height is not None else None

    @property
    def images_at_once(self) -> int:
        return self.batch_size or (64 if self.model == MINI else 32)

    def total(self, prompts: int) -> int:
        """How many images are made of so many prompts."""
        if self.num_images is not None:
            return self.num_images
        return DEFAULT_IMAGES if self.prompts is None else prompts * self.images_per_prompt

    def check(self) -> None:
        """
        Raises:
            ValueError: options out of range, or that do not go together.
        """
        check_least(1, batch_size=self.batch_size, images_per_prompt=self.images_per_prompt, shard_size=self.shard_size, num_images=self.num_images)
        check_least(0, seed=self.seed, seconds_after=self.seconds_after)
        for steps in self.steps:
            check_least(1, steps=steps)
        for guidance in self.guidance:
            check_least(0, guidance=guidance)
        if not math.isfinite(self.lora_weight):
            raise ValueError(f"--lora-weight must be a number, not {self.lora_weight}")
        if (self.width is None) != (self.height is None) or min(self.width or 8, self.height or 8) < 8:
            raise ValueError("give --width and --height together, 8 pixels or more")
        if self.prompt_column is not None and self.prompts is None:
            raise ValueError("--prompt-column belongs to --prompts FILE")
        if self.prompts is not None and self.images_per_prompt > 1 and self.num_images is not None:
            raise ValueError("of given prompts --images-per-prompt and --num-images both say how many images there are; leave one out")
        if self.prompts is None and (self.delimiter is not None or self.encoding is not None):
            raise ValueError("--delimiter and --encoding belong to --prompts FILE")
