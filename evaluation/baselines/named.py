"""From what `--baseline` says to a captioner."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch
from PIL import Image

from data.sources.chosen import ChosenPairs, PairSource, prompts, spread
from data.sources.held_out import spread_pairs
from evaluation.baselines.interrogator import Interrogator
from evaluation.baselines.known import Constant, ImageFeatures, Nearest
from evaluation.baselines.transformers_models import MODELS, HuggingFace
from evaluation.baselines.vlm import Spending, VisionLanguageModel
from evaluation.captioners import Captioner, CaptionerError
from evaluation.config import InterrogatorConfig, VlmConfig

KNOWN_PAIRS = 20_000  # training pairs that nearest and constant know, from all over the data
NAMES = ("constant", "nearest", *MODELS, "interrogator", "vlm")
_WITH_SOURCE = ("nearest", *MODELS, "interrogator", "vlm")  # which take name=SOURCE
_CLIP = "openai/clip-vit-large-patch14"


@dataclass(frozen=True)
class Known:
    """Training pairs, opened when somebody asks for them: by then the comparison may have begun, and what goes wrong costs one column."""

    training: Callable[[], PairSource]

    def prompts(self) -> list[str]:
        """Without reading a picture."""
        source = self.training()
        return [prompt for prompt in prompts(ChosenPairs(source, spread(source)[:KNOWN_PAIRS])) if prompt.strip()]

    def pairs(self) -> Iterable[tuple[Image.Image, str]]:
        return islice(((pair.image, pair.prompt) for _, pair in spread_pairs(self.training()) if pair is not None), KNOWN_PAIRS)


def check_names(specs: Sequence[str]) -> None:
    """
    Raises:
        ValueError: an unknown name, one that takes no source, or one twice: before anything is computed.
    """
    for number, spec in enumerate(specs):
        name, sign, source = spec.partition("=")
        if name not in NAMES:
            raise ValueError(f"unknown baseline {spec!r}; there are {', '.join(NAMES)}; NAME=DIR_OR_ID for {', '.join(_WITH_SOURCE)}")
        if sign and (name not in _WITH_SOURCE or not source):
            raise ValueError(f"--baseline {spec}: {'nothing stands after =' if not source else f'{name} takes no source'}")
        if name == "vlm" and not source:
            raise ValueError("--baseline vlm: name the model as its server does, vlm=MODEL")
        if spec in specs[:number]:
            raise ValueError(f"--baseline {spec} is named twice")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What baselines need to know.

    Attributes:
        known: the training pairs of `constant` and `nearest`.
        count: how many pictures will be captioned.
        num_beams, max_new_tokens: of transformers' models; None for what is usual for each.
        processes: how many share the pictures, and what may be spent on them.
    """

    known: Known
    count: int
    num_beams: int | None = None
    max_new_tokens: int | None = None
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32
    interrogator: InterrogatorConfig = field(default_factory=InterrogatorConfig)
    vlm: VlmConfig = field(default_factory=VlmConfig)
    spending: Spending = field(default_factory=Spending)
    processes: int = 1


def build_baseline(spec: str, settings: Settings) -> Captioner:
    """The baseline that `spec` names (`check_names`): `constant`, `nearest`, `nearest=TIMM_NAME_OR_DIR`, one of transformers' models, with
    `=DIR_OR_ID` another one of its kind, `interrogator` or `interrogator=CLIP`, `vlm=MODEL`.

    Raises:
        CaptionerError: it cannot be loaded; says how to get it.
    """
    name, _, source = spec.partition("=")
    known = settings.known
    if name == "constant":
        return Constant(known.prompts())
    if name == "nearest":
        return Nearest(known.pairs(), ImageFeatures(source, settings.device) if source else None)
    if name in MODELS:
        lengths = {"num_beams": settings.num_beams, "max_new_tokens": settings.max_new_tokens}
        return HuggingFace(name, source, **lengths, device=settings.device, dtype=settings.dtype)
    if name == "interrogator":
        inner = settings.interrogator.caption
        try:
            check_names([inner])
        except ValueError as error:
            raise CaptionerError(f"--interrogator.caption {inner}: {error}") from error
        if inner.partition("=")[0] == name:
            raise CaptionerError(f"--interrogator.caption {inner}: name another baseline")
        return Interrogator(source or _CLIP, build_baseline(inner, settings), settings.interrogator)
    if name == "vlm":
        return VisionLanguageModel(source, settings.vlm, count=settings.count, spending=settings.spending, processes=settings.processes)
    raise CaptionerError(f"unknown baseline {spec!r}")
