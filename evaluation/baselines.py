"""Captioners to stand beside ours: two that need no training, and BLIP and GIT through transformers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from data.sources.chosen import PairSource
from data.sources.held_out import spread_pairs

HUB_IDS = {"blip": "Salesforce/blip-image-captioning-base", "git": "microsoft/git-base-coco"}
KNOWN_PAIRS = 20_000  # training pairs that nearest and constant know, from all over the data
NAMES = ("constant", "nearest", *HUB_IDS)


class BaselineError(RuntimeError):
    """A baseline that cannot be built; says what to do."""


class Captioner(Protocol):
    """Anything that writes a text for each image."""

    def caption(self, images: Sequence[Image.Image]) -> list[str]: ...


def known_pairs(training: PairSource) -> Iterator[tuple[Image.Image, str]]:
    """What `nearest` and `constant` know."""
    return islice(((pair.image, pair.prompt) for _, pair in spread_pairs(training) if pair is not None), KNOWN_PAIRS)


class Constant:
    """Always the same text: the most frequent training prompt, or, where none repeats, the one nearest to all others in words."""

    def __init__(self, prompts: Sequence[str]) -> None:
        counts = Counter(prompts)
        word_counts = Counter(word for prompt in prompts for word in set(prompt.split()))

        def commonness(prompt: str) -> float:
            found = set(prompt.split())
            return sum(word_counts[word] for word in found) / len(found) if found else 0.0

        most = max(counts.values())
        self.text = max((prompt for prompt, count in counts.items() if count == most), key=commonness)

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        return [self.text] * len(images)


class Nearest:
    """The prompt of the training image that looks most alike: smallest squared distance of pixels at 16 x 16."""

    def __init__(self, pairs: Iterable[tuple[Image.Image, str]]) -> None:
        self.prompts: list[str] = []
        thumbnails = []  # as the pairs come: they need not fit into memory
        for image, prompt in pairs:
            self.prompts.append(prompt)
            thumbnails.append(_thumbnail(image))
        self.pixels = np.stack(thumbnails)

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        queries = np.stack([_thumbnail(image) for image in images])
        distances = (self.pixels**2).sum(1)[None] - 2 * queries @ self.pixels.T
        return [self.prompts[i] for i in distances.argmin(1)]


def _thumbnail(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB").resize((16, 16), Image.Resampling.BOX), dtype=np.float32).ravel() / 255


class HuggingFace:
    """BLIP or GIT as their documentation uses them: processor, generate, batch_decode."""

    def __init__(self, kind: str, source: str, *, num_beams: int, max_new_tokens: int, device: torch.device) -> None:
        """
        Raises:
            BaselineError: transformers is not installed, or `source` cannot be loaded.
        """
        try:
            import transformers
        except ImportError as error:
            raise BaselineError(f"the baseline {kind!r} needs the extra 'eval' ({error}): pip install -e '.[eval]'") from error
        network = transformers.BlipForConditionalGeneration if kind == "blip" else transformers.GitForCausalLM
        try:
            found = transformers.AutoConfig.from_pretrained(source).model_type
            if found != kind:
                raise BaselineError(f"the baseline {kind!r}: {source} holds a model of the type {found!r}")
            self.processor: Any = transformers.AutoProcessor.from_pretrained(source)
            model, loaded = network.from_pretrained(source, use_safetensors=True, output_loading_info=True)
        except BaselineError:
            raise
        except Exception as error:  # the libraries behind it raise many kinds
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BaselineError(
                f"the baseline {kind!r} could not be loaded from {source!r}: {first}\n"
                f"It is fetched from the Hub the first time. Without a network, give a downloaded directory: --baseline {kind}=DIR"
            ) from error
        if lacking := sorted({*loaded["missing_keys"], *(str(key) for key in loaded["mismatched_keys"])}):
            raise BaselineError(f"the baseline {kind!r}: the weights in {source} lack {lacking[0]} and {len(lacking) - 1} more; copy it again")
        tokenizer = getattr(self.processor, "tokenizer", None)
        if tokenizer is None or len(tokenizer) <= len(tokenizer.all_special_ids):  # where there is none, transformers makes one without words
            raise BaselineError(f"the baseline {kind!r}: {source} has no tokenizer (tokenizer.json or vocab.txt); copy it again, whole")
        self.model: Any = model.eval().to(device)
        self.arguments = {"num_beams": num_beams, "max_new_tokens": max_new_tokens}
        self.device = device

    @torch.inference_mode()
    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        pixel_values = self.processor(images=list(images), return_tensors="pt").pixel_values.to(self.device)
        tokens = self.model.generate(pixel_values=pixel_values, **self.arguments)
        return [text.strip() for text in self.processor.batch_decode(tokens, skip_special_tokens=True)]


def build_baseline(
    spec: str,
    *,
    training_pairs: Callable[[], Iterable[tuple[Image.Image, str]]],
    num_beams: int,
    max_new_tokens: int,
    device: torch.device,
) -> Captioner:
    """A baseline by name: `constant`, `nearest`, `blip`, `git`, or `blip=DIR_OR_ID` and `git=DIR_OR_ID`.

    Raises:
        BaselineError: an unknown name, or one that cannot be loaded.
    """
    kind, _, source = spec.partition("=")
    if kind == "constant":
        return Constant([prompt for _, prompt in training_pairs()])
    if kind == "nearest":
        return Nearest(training_pairs())
    if kind in HUB_IDS:
        if source and not Path(source).exists() and source.count("/") != 1:
            raise BaselineError(f"the baseline {kind!r}: {source} is neither a directory nor a Hub id")
        return HuggingFace(kind, source or HUB_IDS[kind], num_beams=num_beams, max_new_tokens=max_new_tokens, device=device)
    raise BaselineError(f"unknown baseline {spec!r}; there are {', '.join(NAMES)} (blip and git also as blip=DIR)")
