"""From what `--baseline` says to a captioner."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import torch
from PIL import Image

from data.sources.chosen import ChosenPairs, PairSource, prompts, spread
from data.sources.held_out import spread_pairs
from evaluation.baselines.known import Constant, ImageFeatures, Nearest
from evaluation.baselines.transformers_models import MODELS, HuggingFace
from evaluation.captioners import Captioner, CaptionerError

KNOWN_PAIRS = 20_000  # training pairs that nearest and constant know, from all over the data
NAMES = ("constant", "nearest", *MODELS)
_WITH_SOURCE = ("nearest", *MODELS)  # which take name=SOURCE


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
        if spec in specs[:number]:
            raise ValueError(f"--baseline {spec} is named twice")


def build_baseline(
    spec: str, *, known: Known, num_beams: int, max_new_tokens: int, device: torch.device | str, dtype: torch.dtype = torch.float32
) -> Callable[[], Captioner]:
    """What builds the baseline that `spec` names (`check_names`), when it is called: `constant`, `nearest`, `nearest=TIMM_NAME_OR_DIR`, or one of
    transformers' models, with `=DIR_OR_ID` another one of its kind.

    Raises, when called:
        CaptionerError: it cannot be loaded; says how to get it.
    """
    name, _, source = spec.partition("=")
    if name == "constant":
        return lambda: Constant(known.prompts())
    if name == "nearest":
        return lambda: Nearest(known.pairs(), ImageFeatures(source, device) if source else None)
    if name in MODELS:
        return partial(HuggingFace, name, source, num_beams=num_beams, max_new_tokens=max_new_tokens, device=device, dtype=dtype)
    raise CaptionerError(f"unknown baseline {spec!r}")
