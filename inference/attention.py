"""Where in the picture a network looks for each word of a prompt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from inference.inverter import PromptInverter
from model import Preprocessing

_DARK = 0.25  # of its light, what a picture keeps where nobody looks


@dataclass(frozen=True)
class WordMap:
    """A word, how likely it is right where all before it is, and where the network looks for it: (rows, columns), summing to 1."""

    word: str
    confidence: float
    where: np.ndarray


def word_maps(inverter: PromptInverter, image: Image.Image, prompt: str) -> list[WordMap]:
    """Of each word of a prompt, the network's own or another one, cut to what it can read; none where its encoder keeps no places.

    Args:
        image: RGB.
    """
    model, tokenizer = inverter.model, inverter.tokenizer
    tokens = tokenizer.encode(prompt)[: model.config.max_text_tokens]
    if not tokens:
        return []
    pixels = inverter.network_input(inverter.preprocess.pixels(image)[None])
    text = torch.tensor([[model.config.bos_token_id, *tokens[:-1]]], device=model.device)  # a position looks for the token after it
    maps = model.attention_maps(pixels, text)
    if maps is None:
        return []
    with torch.inference_mode():
        each = model(pixels, text)[0].float().log_softmax(-1)[range(len(tokens)), tokens].tolist()
    undone = inverter.confidence.without_smoothing(each)
    pieces = tokenizer.added(tokens)
    found = []
    for match in re.finditer(r"[^\s,]+", "".join(pieces)):
        inside = _tokens_in(pieces, match.start(), match.end())
        where = maps[0, inside].float().mean(0).cpu().numpy()
        found.append(WordMap(match[0], inverter.confidence.of_piece([undone[place] for place in inside]), where))
    return found


def _tokens_in(pieces: Sequence[str], begin: int, end: int) -> list[int]:
    """The tokens that have a share in the characters from `begin` to `end`; one without text begins the character that the next one ends."""
    found, place = [], 0
    for number, piece in enumerate(pieces):
        if place < end and (place + len(piece) > begin or (not piece and place == begin)):
            found.append(number)
        place += len(piece)
    return found


def lit(image: Image.Image, where: np.ndarray, preprocess: Preprocessing) -> Image.Image:
    """The picture, light where the network looks and dark elsewhere.

    Args:
        preprocess: of the network, which may see the middle of a picture alone.
    """
    share = Image.fromarray((255 * np.sqrt(where / max(float(where.max()), 1e-9))).clip(0, 255).astype(np.uint8))  # of which a half is seen too
    left, top, right, bottom = _seen(preprocess, *image.size)
    whole = Image.new("L", image.size)
    whole.paste(share.resize((right - left, bottom - top), Image.Resampling.BICUBIC), (left, top))
    light = np.asarray(whole, dtype=np.float32)[..., None] / 255
    return Image.fromarray((np.asarray(image) * (_DARK + (1 - _DARK) * light)).round().astype(np.uint8))


def _seen(preprocess: Preprocessing, width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the part of a picture that a network sees."""
    if preprocess.crop == "squeeze":
        return 0, 0, width, height
    down, across = preprocess.size
    scale = min(width / across, height / down)
    across, down = max(1, round(across * scale)), max(1, round(down * scale))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down
