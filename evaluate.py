"""Measure a checkpoint on held-out pairs beside other captioners: the same images, the same metrics, 95 % intervals.

Examples:
    python evaluate.py --baseline nearest constant mini-blip mini-git           the model in the box, on the pictures in the box
    python evaluate.py --checkpoint runs/mini/model --data datasets/mini --baseline nearest constant
    python evaluate.py --data datasets/mini --baseline blip git=downloads/git-base-coco --json out.json --report reports/all
    accelerate launch evaluate.py --data datasets/mine --limit 100000 --report reports/mine

A baseline that cannot be loaded, or fails, costs its own column; the others go on, and then the exit code is 1. With --report a comparison that was
stopped goes on where it was.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

if __name__ == "__main__":  # Ctrl-C from here on ends the process, whatever is being imported
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from data.console import begin_command, check_finite, check_least, read_command_line
from diffusion.mini import MINI
from evaluation.config import InterrogatorConfig, VlmConfig
from inference import DEFAULT_CHECKPOINT

DEFAULT_DATA = DEFAULT_CHECKPOINT.with_name("mini-benchmark")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What to measure, on what, beside what."""

    data: str = str(DEFAULT_DATA)
    """A data set directory made by generate_data.py, or what else train.py takes: tars, an image folder, a data set of the Hub. By default 500
    pictures of the embedded world, of scenes that no network in the box was trained on."""
    prompt_column: str | None = None
    """The column or key that holds the prompt, where it is not prompt, text or caption."""
    image_column: str | None = None
    """The column of images in a Hub data set, where there are several."""
    checkpoint: str = str(DEFAULT_CHECKPOINT)
    """A checkpoint directory or Hub id, ours or a BLIP or GIT of Hugging Face; the model in the box by default."""
    revision: str | None = None
    """Of a Hub id: a branch, a tag or a commit."""
    baseline: tuple[str, ...] = ()
    """Any of: constant (one training prompt for all), nearest (the prompt of the training picture most alike, by pixels, or by an encoder
    nearest=TIMM_NAME_OR_DIR), blip, blip-large, git, git-large, blip2 (from the Hub, or blip=DIR_OR_ID), mini-blip and mini-git (in the box),
    interrogator (phrases chained onto a caption by CLIP, interrogator=CLIP_DIR_OR_ID), vlm=MODEL (a vision-language model behind OpenAI's API)."""
    split: Literal["train", "val", "test"] = "test"
    partial: bool = False
    """Measure on what is there of a data set directory that is not finished."""
    limit: int = 1000
    """Pictures to measure on, at most."""
    num_beams: int | None = None
    """Hypotheses that each captioner keeps while searching: by default 4, of published ones as many as their authors use (docs/EVALUATION.md)."""
    length_penalty: float = 1.0
    """Of the checkpoint's search: above 1 favours longer prompts, below 1 shorter ones."""
    max_new_tokens: int | None = None
    """Tokens that each captioner writes at most: by default BLIP and GIT 40, and the published ones as their authors have it."""
    batch_size: int = 32
    """Pictures that go through a network together."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of all networks: auto is float32 on a CPU, bfloat16 on a GPU."""
    clip: str | None = None
    """Add CLIPScore and RefCLIPScore by this CLIP: a directory or a Hub id. It compares the pictures of --round-trip too."""
    round_trip: int = 0
    """Paint what each captioner wrote and compare with the originals; with more than 1, caption that and paint again, and so on."""
    model: str = MINI
    """What paints for --round-trip: "mini" (the embedded diffusion model), a diffusers pipeline directory, or a Hub id."""
    image_encoder: str | None = None
    """What compares pictures for --round-trip: a timm model's name or a directory of timm's. Without it --clip, or else the checkpoint's encoder."""
    interrogator: InterrogatorConfig = field(default_factory=InterrogatorConfig)
    vlm: VlmConfig = field(default_factory=VlmConfig)
    json: Path | None = None
    """Write every figure to this file."""
    report: Path | None = None
    """Write a report into this directory: tables, every figure as JSON, all predictions with their scores. What is captioned is kept there."""

    def __post_init__(self) -> None:
        check_least(0, round_trip=self.round_trip)
        check_least(1, limit=self.limit, num_beams=self.num_beams, max_new_tokens=self.max_new_tokens, batch_size=self.batch_size)
        check_finite(length_penalty=self.length_penalty)


if __name__ == "__main__":  # --help, a wrong option and Ctrl-C do not wait for the imports below, which take seconds
    CONFIG = read_command_line(EvaluateConfig, __doc__)

from data.errors import ImageError, MissingExtraError, PairError, ShardError
from data.files import check_writable
from data.sources.held_out import HeldOutPictures
from data.sources.opening import open_splits
from diffusion.contact_sheet import contact_sheet
from diffusion.mini.world import read_slots
from diffusion.painting import painting_with
from diffusion.pipelines import PipelineError
from evaluation.baselines import Known, Settings, build_baseline, check_names
from evaluation.baselines.known import ImageFeatures
from evaluation.captioners import Captioner, CaptionerError
from evaluation.inverting import InverterCaptioner
from evaluation.meaning import SentenceSimilarity
from evaluation.measuring import check_libraries, measure
from evaluation.processes import Processes
from evaluation.provenance import from_here, provenance, without_password
from evaluation.report import failures, markdown
from evaluation.round_trip import Features, Painter
from inference import load_inverter
from inference.loading import Inverter
from model import CheckpointError
from peers.clip import Clip, ClipError


def main(config: EvaluateConfig) -> int:
    """Returns how many captioners failed."""
    check_names(config.baseline)
    splits = open_splits(config.data, image_name=config.image_column, prompt_name=config.prompt_column, partial=config.partial)
    source = splits[config.split]
    for option, path in (("--json", config.json), ("--report", config.report and config.report / "report.md")):
        if path is not None:
            try:
                check_writable(path)
            except OSError as error:
                raise OSError(f"{option} {path} cannot be written: {error}") from error
    check_libraries()
    processes = Processes.here() if int(os.environ.get("WORLD_SIZE", "1")) > 1 else Processes()
    first = processes.index == 0

    def tell(said: str) -> None:
        if first:
            print(said, file=sys.stderr)

    if config.split in splits.missing:
        tell(str(splits))
    similarity = SentenceSimilarity.if_there(tell) if first else None
    clip = Clip(config.clip) if config.clip is not None else None
    inverter = load_inverter(config.checkpoint, dtype=config.dtype, revision=config.revision)
    pictures = HeldOutPictures.of(source, config.limit)
    if pictures.unread:
        kinds = ", ".join(f"{count} x {kind}" for kind, count in pictures.unread.most_common())
        tell(f"{pictures.unread.total()} of {len(source)} pairs could not be read and are left out: {kinds}")
    if not len(pictures):
        raise ShardError(f"none of the {len(source)} pairs of {config.data} ({config.split}) can be read")
    settings = Settings(
        known=Known(lambda: splits["train"]),
        count=len(pictures),
        num_beams=config.num_beams,
        max_new_tokens=config.max_new_tokens,
        device=inverter.device,
        dtype=inverter.model.dtype,
        interrogator=config.interrogator,
        vlm=config.vlm,
        processes=processes.count,
    )
    search: dict[str, Any] = {"num_beams": config.num_beams or 4, "length_penalty": config.length_penalty}
    captioners: dict[str, Callable[[], Captioner]] = {
        "reprompt": lambda: InverterCaptioner(inverter, from_here(config.checkpoint), **search, max_new_tokens=config.max_new_tokens)
    }
    captioners |= {spec: partial(build_baseline, spec, settings) for spec in config.baseline}
    if config.split == "train" and any(spec.startswith("nearest") for spec in config.baseline):
        tell("nearest finds each picture of --split train among what it knows, and so looks its own prompt up")
    data, checkpoint = without_password(from_here(config.data)), from_here(config.checkpoint)
    what = f"{len(pictures)} pictures of {data} ({config.split}) in {len(set(pictures.groups))} groups of prompts"
    painter = _painter(config, inverter, clip) if config.round_trip else None
    asked = {**search, "max_new_tokens": config.max_new_tokens, "batch_size": config.batch_size, "limit": config.limit, "bootstrap_seed": 0}
    origin: dict[str, Any] = {"data": data, "split": config.split, "splits": str(splits), "training": lambda: splits["train"]}
    comparison = measure(
        captioners,
        pictures,
        about=provenance(pictures, **origin, settings=asked) if first else {},
        title=f"{checkpoint} on {what}",
        read_slots=read_slots,
        contact_sheet=partial(contact_sheet, columns=8, cell=192, lines=7),
        similarity=similarity,
        clip=clip,
        painter=painter,
        batch_size=config.batch_size,
        report=config.report,
        json=config.json,
        processes=processes,
    )
    if first:
        print(f"\n{what}, 95 % intervals\n\n{markdown(comparison)}")
        if config.report is not None:
            print(
                f"\nreport: {config.report / 'report.html'}; as text, figures and predictions: report.md, results.json, predictions.jsonl beside it"
            )
    return len(failures(comparison))


def _painter(config: EvaluateConfig, inverter: Inverter, clip: Clip | None) -> Painter:
    render, name = painting_with(config.model, inverter.device)
    features: Features = inverter.features
    encoder = f"the encoder of {from_here(config.checkpoint)}"
    if config.image_encoder is not None:
        features, encoder = ImageFeatures(config.image_encoder, inverter.device), config.image_encoder
    elif clip is not None:
        features, encoder = (lambda images: clip.of_images(images).cpu().numpy()), str(config.clip)
    return Painter(config.round_trip, render, features, name=name, encoder=encoder)


if __name__ == "__main__":
    begin_command()
    try:
        sys.exit(1 if main(CONFIG) else 0)
    except (
        CaptionerError,
        CheckpointError,
        ClipError,
        ImageError,
        MissingExtraError,
        OSError,
        PairError,
        PipelineError,
        ShardError,
        ValueError,
    ) as error:
        sys.exit(f"evaluate.py: {error}")
    except KeyboardInterrupt:
        sys.exit("\nevaluate.py: stopped; with --report the same command goes on")
