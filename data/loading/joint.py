"""Several images of one prompt as one example, as GIT shows the frames of a video (arXiv 2205.14100, section 3.1)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from typing import Protocol

import torch
from torch.utils.data import Dataset, Sampler

from data.errors import PairError
from data.loading.examples import Example
from data.loading.order import Place, ShuffledBatches
from data.sources.chosen import PairSource


def prompt_numbers(pairs: PairSource) -> list[int]:
    """Of each pair which prompt it has: pairs of the same prompt have the same number. One that cannot be read has its own."""
    known: dict[str | int, int] = {}
    numbers = []
    for index in range(len(pairs)):
        try:
            prompt: str | int = pairs.prompt(index)
        except PairError:
            prompt = index
        numbers.append(known.setdefault(prompt, len(known)))
    return numbers


class JointBatches(Sampler[list[tuple[Place, ...]]]):
    """The batches of `ShuffledBatches`, each pair together with others of its prompt: so many in all as the update draws. What is drawn depends on
    the seed and on the update's number alone, and is as many for all its batches and processes. A prompt with fewer images shows some of them again.
    """

    def __init__(self, batches: ShuffledBatches, prompts: Sequence[int], numbers: Sequence[int], *, accumulate: int = 1) -> None:
        """
        Args:
            prompts: of each pair (`prompt_numbers`).
            numbers: of images that are shown together, drawn from.
            accumulate: batches of an update.
        """
        super().__init__()
        self.batches = batches
        self.prompts = prompts
        self.numbers = numbers
        self.accumulate = accumulate
        self.pairs: dict[int, list[int]] = {}
        for pair, prompt in enumerate(prompts):
            self.pairs.setdefault(prompt, []).append(pair)

    def __iter__(self) -> Iterator[list[tuple[Place, ...]]]:
        for number, batch in enumerate(self.batches, self.batches.step):
            together = random.Random(f"{self.batches.seed}:images of a prompt:{number // self.accumulate}").choice(self.numbers)
            yield [self._joined(place, together) for place in batch]

    def _joined(self, place: Place, together: int) -> tuple[Place, ...]:
        draw = random.Random(f"{self.batches.seed}:others:{place.position}")
        others = [pair for pair in self.pairs[self.prompts[place.index]] if pair != place.index]
        shown = [place.index, *draw.sample(others, min(together - 1, len(others)))]
        # each with a position of its own, by which a random part of it is drawn; the same picture twice in a row has the same part
        return tuple(Place(pair, place.position * max(self.numbers) + number) for number, pair in enumerate(islice(cycle(shown), together)))


class BatchedExamples(Protocol):
    """`Examples`, or features in the place of their images."""

    def __getitems__(self, places: Sequence[Place]) -> list[Example]: ...


class JointExamples(Dataset[Example]):
    """The images of some places as one example: (F, 3, H, W), or features (F, P, width); of a single place as it is."""

    def __init__(self, examples: BatchedExamples) -> None:
        self.examples = examples

    def __getitems__(self, groups: Sequence[tuple[Place, ...]]) -> list[Example]:
        """A batch, asked for by DataLoader."""
        each = iter(self.examples.__getitems__([place for group in groups for place in group]))
        return [_joined([next(each) for _ in group]) for group in groups]


def _joined(examples: Sequence[Example]) -> Example:
    first = examples[0]
    own = [example.image for example in examples if example.tokens == first.tokens]  # what stands in for an unreadable one has another prompt
    image = first.image if len(examples) == 1 else torch.stack(list(islice(cycle(own), len(examples))))
    return Example(image, first.tokens, sum((example.skipped for example in examples), Counter()), pairs=len(examples))
