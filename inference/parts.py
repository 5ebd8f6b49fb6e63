"""The parts of a prompt: what it shows, how it is made, and the modifiers after it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from inference.prediction import Prediction, Token
from model.confidence import Confidence

_KINDS = (
    *("painting", "watercolor", "drawing", "sketch", "photo", "photograph", "picture", "illustration", "render", "rendering", "portrait", "art"),
    *("artwork", "print", "poster", "engraving", "etching", "woodcut", "mosaic", "sculpture", "statue", "figurine", "sprite", "icon", "logo"),
    *("sticker", "cartoon", "comic", "anime", "collage", "fresco", "mural", "tapestry", "embroidery", "origami", "papercut", "doodle", "linocut"),
    *("screenshot", "wallpaper", "still", "film", "shot", "closeup", "close-up", "image", "diorama", "model", "blueprint", "sign"),
)
# "a watercolor painting of X", "pixel art of X", "a photo of X": the shortest beginning that ends with such a word and "of"
_MEDIUM = re.compile(rf"\s*(?:(?:an?|the)\s+)?((?:[\w'-]+\s+){{0,4}}?(?:{'|'.join(_KINDS)}))\s+of\s+", re.IGNORECASE)


@dataclass(frozen=True)
class Part:
    """A piece of a prompt and the probability that it is right where all before it is."""

    text: str
    confidence: float


@dataclass(frozen=True)
class PromptParts:
    """`medium` is how it is made ("watercolor painting"), None where the prompt does not begin with it; `subject` what comes before the first comma
    without it; `modifiers` what comes after."""

    subject: Part
    medium: Part | None
    modifiers: Sequence[Part]


def prompt_parts(prediction: Prediction, confidence: Confidence) -> PromptParts:
    """
    Args:
        confidence: of the network that wrote it.
    """
    text = prediction.prompt
    first, *others = list(_between_commas(text)) or [(0, 0)]
    medium = _MEDIUM.match(text, first[0], first[1])

    def part(begin: int, end: int) -> Part:
        raw = text[begin:end]
        return Part(raw.strip(), _confidence(prediction, confidence, begin, begin + len(raw.rstrip())))

    subject = part(medium.end() if medium else first[0], first[1])
    modifiers = [part(begin, end) for begin, end in others if text[begin:end].strip()]
    return PromptParts(subject, part(medium.start(1), medium.end(1)) if medium else None, modifiers)


def _between_commas(text: str) -> Iterator[tuple[int, int]]:
    begin = 0
    for comma in re.finditer(",", text):
        yield begin, comma.start()
        begin = comma.end()
    yield begin, len(text)


def _confidence(prediction: Prediction, confidence: Confidence, begin: int, end: int) -> float:
    """Of the tokens that have a share in the characters from `begin` to `end`."""
    place = len(prediction.prompt) - sum(len(token.text) for token in prediction.tokens)
    inside: list[Token] = []
    for token in prediction.tokens:
        before, place = place, place + len(token.text)
        if token.text[max(0, begin - before) : max(0, end - before)].strip() or (not token.text and begin <= before < end):
            inside.append(token)  # one without text begins the character that the next one ends
    return confidence.of_piece(confidence.without_smoothing([token.log_prob for token in inside]))
