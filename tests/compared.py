"""Pictures to compare captioners on, and captioners that write what they are told, for the tests of several rooms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from examples import painted
from listed import ListedPairs
from PIL import Image

from data.sources.held_out import HeldOutPictures
from data.store.pairs import Pair
from diffusion.mini.world import Scene, read_slots
from evaluation.captioners import About, Caption
from evaluation.judging import Judge
from evaluation.meaning import SentenceSimilarity

SCENES = [Scene(subject=name, background="beach", style="neon") for name in ("cat", "dog", "owl", "fox")]
PROMPTS = [scene.prompt() for scene in SCENES]


def pictures(count: int = 4, side: int = 64) -> HeldOutPictures:
    """Each of another colour, with the slots of its scene; in order."""
    pairs = []
    for number in range(count):
        scene = SCENES[number % 4]
        image = painted(scene.subject, "", side)
        image.putpixel((0, 0), (number, 0, 0))
        pairs.append(Pair(f"{number:03d}", image, scene.prompt(), {"slots": scene.slots(), "prompt_group": f"g{number}"}))
    return in_order(pairs)


def in_order(pairs: Sequence[Pair]) -> HeldOutPictures:
    """All pairs as they come, a picture each."""
    metadata = [pair.metadata for pair in pairs]
    groups = [str(about.get("prompt_group", number)) for number, about in enumerate(metadata)]
    references = [[pair.prompt] for pair in pairs]
    return HeldOutPictures(ListedPairs(pairs), range(len(pairs)), [pair.key for pair in pairs], references, metadata, groups, ListedPairs([]).skipped)


def letters(texts: Sequence[str]) -> np.ndarray:
    """Vectors of length 1: how often each letter comes."""
    counts = np.array([[1e-6 + text.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts])
    return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def judge_of(some: HeldOutPictures) -> Judge:
    return Judge(some.references, some.groups, similarity=SentenceSimilarity(letters), slots=some.slots, read_slots=read_slots)


class Told:
    """Writes what it is told, by the pictures' order; `seen` are the sizes of the batches it got."""

    def __init__(self, texts: Sequence[str], confidence: float | None = None, **about: object) -> None:
        self.texts, self.confidence = texts, confidence
        self.about = About(fingerprint=" ".join(texts), **about)  # type: ignore[arg-type]
        self.seen: list[int] = []

    def caption(self, images: Sequence[Image.Image]) -> list[Caption]:
        self.seen.append(len(images))
        return [Caption(self.texts[image.getpixel((0, 0))[0]], self.confidence) for image in images]
