"""Pairs made ready for the network: pictures decoded and augmented, prompts tokenised. What cannot be read is counted and its
place taken by another pair."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from data.errors import ImageError, PairError
from data.loading.augmentation import RandomCrop
from data.loading.order import Place
from data.sources.chosen import PairSource

TRIES = 100  # unreadable pairs in a row before giving up
_CHARACTERS_PER_TOKEN = 64  # of a longer prompt the end is cut before it is tokenised, which takes time


class PictureFormat(Protocol):
    """How a picture becomes the network's input: pixels (3, H, W) uint8, which are normalised on the device."""

    def pixels(self, image: Image.Image) -> Tensor: ...

    def normalise(self, pixels: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class TextFormat:
    """How a prompt becomes tokens: begin, at most `max_tokens` of them, end. A prompt that is cut has no end."""

    tokenize: Callable[[str], list[int]]
    bos_id: int
    eos_id: int
    pad_id: int
    max_tokens: int

    def __call__(self, prompt: str) -> list[int]:
        return [self.bos_id, *self.tokenize(prompt[: self.max_tokens * _CHARACTERS_PER_TOKEN]), self.eos_id][: self.max_tokens + 1]


@dataclass(frozen=True)
class Example:
    """One pair: the pixels of the image in the network's size, or features, and tokens, begin and end included. Neighbours that share a picture have
    the same tensor of it. `skipped` has the kind of the failure where another pair should have stood here and could not be read; `after` is where
    a stream stands after it; `pairs` are those of one prompt that it shows together (`data.loading.joint`)."""

    image: Tensor
    tokens: list[int]
    skipped: Counter[str] = field(default_factory=Counter)
    after: Any = None
    pairs: int = 1


@dataclass(frozen=True)
class _Read:
    picture: int
    image: Image.Image
    prompt: str
    skipped: Counter[str]


class Examples(Dataset[Example]):
    """The pairs at given places, augmented (or not) by a random number generator of each place's own: what a place holds depends neither on the
    worker that reads it nor on an interruption. Pairs that share a picture with the one before them in a batch take its part of it too."""

    def __init__(
        self,
        pairs: PairSource,
        preprocess: PictureFormat,
        text: TextFormat,
        *,
        augment: RandomCrop | None = None,
        seed: int = 0,
        pictures: Sequence[int] | None = None,
    ) -> None:
        """
        Args:
            pictures: of each pair (`data.sources.pictures.picture_numbers`): neighbours in a batch that share one are given the same part of it.
        """
        self.pairs = pairs
        self.pictures = pictures if pictures is not None else range(len(pairs))
        self.preprocess = preprocess
        self.text = text
        self.augment = augment
        self.seed = seed

    def __getitem__(self, place: Place) -> Example:
        return self.__getitems__([place])[0]

    def __getitems__(self, places: Sequence[Place]) -> list[Example]:
        """A batch, asked for by DataLoader. All are decoded, then all are tokenised, then all are resized: small pictures take a third less
        time so than one by one, as each step finds its code and tables in the processor's cache.

        Raises:
            PairError: a hundred pairs in a row cannot be read; names the last.
        """
        read: list[_Read] = []
        for place in places:
            read.append(self._read(place.index, read[-1] if read else None))
        tokens = [self.text(one.prompt) for one in read]
        pixels: list[Tensor] = []
        for number, (one, place) in enumerate(zip(read, places, strict=True)):
            shared = number > 0 and one.image is read[number - 1].image
            pixels.append(pixels[-1] if shared else self._pixels(one.image, place))
        return [Example(shown, text, one.skipped) for shown, text, one in zip(pixels, tokens, read, strict=True)]

    def _read(self, index: int, before: _Read | None) -> _Read:
        """Image and prompt of a pair, or of the next that can be read; the image of the one before where it is the same."""
        skipped: Counter[str] = Counter()
        for offset in range(TRIES):
            number = (index + offset) % len(self.pairs)
            try:
                prompt = self.readable_prompt(number)
                picture = self.pictures[number]
                image = before.image if before is not None and before.picture == picture else self.pairs.image(number)
                return _Read(picture, image, prompt, skipped)
            except (ImageError, PairError) as error:
                last = error
                if not skipped:  # those that were meant to stand in for it have places of their own, where they count
                    skipped[error.kind] += 1
        raise PairError(f"{TRIES} pairs in a row could not be read; the last: {last}", last.kind)

    def readable_prompt(self, number: int) -> str:
        """
        Raises:
            PairError: it cannot be read, or is empty.
        """
        prompt = self.pairs.prompt(number)
        if not prompt.strip():
            raise PairError(f"pair {number}: the prompt is empty", "empty prompt")
        return prompt

    def _pixels(self, image: Image.Image, place: Place) -> Tensor:
        if self.augment is None:
            return self.preprocess.pixels(image)
        return self.augment(image, random.Random(f"{self.seed}:{place.position}"))


@dataclass(frozen=True)
class Batch:
    """images (P, 3, H, W) uint8, until they are on the device, or features; of F images of each prompt (B, F, 3, H, W). input_ids and labels (B, T);
    `pictures` (B,), which of the images each text belongs to, None where there is one for each. Labels are shifted once, here: the text a position
    sees ends before its label, input = begin, t1 .. tn; labels = t1 .. tn, end. `num_tokens` are the labels that count, `num_pairs` the pairs that
    are shown."""

    images: Tensor
    input_ids: Tensor
    labels: Tensor
    num_tokens: int
    num_pairs: int
    skipped: Counter[str]
    after: Any = None
    pictures: Tensor | None = None

    def pin_memory(self) -> Batch:
        """Asked for by DataLoader."""
        pictures = self.pictures.pin_memory() if self.pictures is not None else None
        images, input_ids, labels = (tensor.pin_memory() for tensor in (self.images, self.input_ids, self.labels))
        return replace(self, images=images, input_ids=input_ids, labels=labels, pictures=pictures)

    def to(self, device: torch.device, normalise: Callable[[Tensor], Tensor]) -> Batch:
        """On a device, and there what the network takes."""
        images, input_ids, labels = (tensor.to(device, non_blocking=True) for tensor in (self.images, self.input_ids, self.labels))
        pictures = self.pictures.to(device, non_blocking=True) if self.pictures is not None else None
        return replace(self, images=normalise(images), input_ids=input_ids, labels=labels, pictures=pictures)


@dataclass(frozen=True)
class Collate:
    """Examples to a `Batch`, padded at the right to the longest text, where labels are `ignored_label`."""

    pad_id: int
    ignored_label: int

    def __call__(self, examples: Sequence[Example]) -> Batch:
        longest = max(len(example.tokens) for example in examples) - 1
        input_ids = torch.full((len(examples), longest), self.pad_id)
        labels = torch.full((len(examples), longest), self.ignored_label)
        for row, example in enumerate(examples):
            input_ids[row, : len(example.tokens) - 1] = torch.tensor(example.tokens[:-1])
            labels[row, : len(example.tokens) - 1] = torch.tensor(example.tokens[1:])
        skipped: Counter[str] = sum((example.skipped for example in examples), Counter())
        num_tokens = sum(len(example.tokens) - 1 for example in examples)
        images = [example.image for number, example in enumerate(examples) if number == 0 or example.image is not examples[number - 1].image]
        pictures = None
        if len(images) < len(examples):
            new = [number > 0 and example.image is not examples[number - 1].image for number, example in enumerate(examples)]
            pictures = torch.tensor(new).cumsum(0)
        num_pairs = sum(example.pairs for example in examples)
        return Batch(torch.stack(images), input_ids, labels, num_tokens, num_pairs, skipped, examples[-1].after, pictures)
