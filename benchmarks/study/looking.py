"""Where the networks look as they write a word, and whether they need what they look at: the patches that a word attends to most are hidden, and the
log-probability that the word then loses stands beside what it loses when others are."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks.study.learning import TEXT_TOKENS, LearnConfig, model_of
from data.sources.held_out import HeldOutPictures
from evaluation.statistics import Units, mean_estimates
from tokenizer import PromptTokenizer
from training.config import PRESETS
from training.networks import Network
from training.starting import build_network

SLOTS = ("subject", "other", "background", "style", "colour", "weather")
HIDDEN = 0.25  # of the picture
_CHOICES = ("most", "random", "least")


@dataclass(frozen=True)
class Look:
    """One word of one prompt.

    Attributes:
        place: of the picture.
        attention: (rows, columns), where the network looks as it writes the word, summing to 1.
        lost: natural log-probability that the word loses when a quarter of the picture is hidden: that which it looks at most, at random, least.
    """

    place: int
    slot: str
    word: str
    attention: NDArray[np.float32]
    lost: Mapping[str, float]


def trained_network(run: Path, config: LearnConfig) -> tuple[Network, PromptTokenizer]:
    """In evaluation mode."""
    tokenizer = PromptTokenizer.load(config.tokenizer)
    plan = dataclasses.replace(PRESETS[config.preset](), network=config.network, init=str(model_of(run)))
    return build_network(plan, tokenizer, text_tokens=TEXT_TOKENS, pretrained=False).eval(), tokenizer


def looks(network: Network, tokenizer: PromptTokenizer, pictures: HeldOutPictures) -> Iterator[Look]:
    """Of each picture every part of the scene that stands in its prompt as a word."""
    for place in range(len(pictures)):
        prompt = pictures.references[place][0]
        tokens = tokenizer.encode(prompt)
        pixels = network.config.preprocessing.pixels(pictures.images(place, 1)[0]).float()
        text = torch.tensor([[network.config.bos_token_id, *tokens]])
        maps = network.attention_maps(_seen(network, [pixels]), text[:, :-1])
        if maps is None:
            raise ValueError("the tokens of this network's encoder do not stand for places")
        before = _log_probabilities(network, [pixels], tokens)[0]
        for slot in SLOTS:
            word = pictures.slots[place].get(slot, "")
            positions = tokens_of(word, prompt, tokenizer.added(tokens)) if word else []
            if not positions:
                continue
            attention = maps[0, positions].mean(0)
            hidden = [_without(pixels, patches) for patches in _patches(attention, f"{place} {slot}").values()]
            after = _log_probabilities(network, hidden, tokens)
            lost = (before[positions].sum() - after[:, positions].sum(1)).tolist()
            yield Look(place, slot, word, attention.numpy(), dict(zip(_CHOICES, lost, strict=True)))


def tokens_of(word: str, prompt: str, added: Sequence[str]) -> list[int]:
    """The places of the tokens that write a word: where it stands in the prompt alone, not as a part of another. Empty where it does not stand.

    Args:
        added: the text that each token adds; joined they are the prompt.
    """
    bounded = f" {prompt} ".replace(",", " ")
    start = bounded.find(f" {word} ")
    if start < 0:
        return []
    end, found, at = start + len(word), [], 0
    for number, piece in enumerate(added):
        inside = range(max(at + len(piece) - len(piece.lstrip()), start), min(at + len(piece), end))
        if inside:
            found.append(number)
        at += len(piece)
    return found


def summary(found: Sequence[Look], groups: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Of each slot, and of all, the mean losses, and how much more is lost with what the word looks at most than at random, with intervals over
    pictures."""
    rows = {}
    for slot in (*SLOTS, "all"):
        some = [look for look in found if slot in (look.slot, "all")]
        if not some:
            continue
        scores = {choice: np.array([look.lost[choice] for look in some]) for choice in _CHOICES}
        scores["most less random"] = scores["most"] - scores["random"]
        estimates = mean_estimates(scores, Units([groups[look.place] for look in some]))
        rows[slot] = {name: asdict(one) | {"established": one.established} for name, one in estimates.items()}
    return rows


def _patches(attention: Tensor, name: str) -> dict[str, Tensor]:
    """(rows, columns) masks of a quarter of the picture."""
    count = round(HIDDEN * attention.numel())
    order = attention.flatten().argsort(descending=True)
    generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big"))
    chosen = {"most": order[:count], "random": torch.randperm(attention.numel(), generator=generator)[:count], "least": order[-count:]}
    return {choice: torch.zeros(attention.numel(), dtype=torch.bool).index_fill(0, chosen[choice], True).view_as(attention) for choice in _CHOICES}


def _without(pixels: Tensor, patches: Tensor) -> Tensor:
    """(3, H, W) with the mean colour of the picture where `patches` (rows, columns) says."""
    rows, columns = pixels.shape[1] // patches.shape[0], pixels.shape[2] // patches.shape[1]
    mask = patches.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
    return torch.where(mask, pixels.mean((1, 2), keepdim=True), pixels)


def _seen(network: Network, pixels: Sequence[Tensor]) -> Tensor:
    return network.config.preprocessing.normalise(torch.stack(list(pixels)))


@torch.no_grad()
def _log_probabilities(network: Network, pixels: Sequence[Tensor], tokens: Sequence[int]) -> Tensor:
    """Of each token of a text after those before it, (pictures, tokens)."""
    text = torch.tensor([[network.config.bos_token_id, *tokens]]).expand(len(pixels), -1)
    logits = network(_seen(network, pixels), text[:, :-1]).float()
    return logits.log_softmax(-1).gather(-1, text[:, 1:, None])[..., 0]


def shown(image: Image.Image, attention: NDArray[np.float32]) -> NDArray[np.float64]:
    """A picture (H, W, 3), 0 to 1, dark where the network does not look."""
    light = Image.fromarray((255 * attention / attention.max()).astype(np.uint8)).resize(image.size, Image.Resampling.BICUBIC)
    return np.asarray(image.convert("RGB")) / 255 * (0.2 + 0.8 * np.asarray(light)[..., None] / 255)
