"""The pairs that a run is validated on, as the network sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from PIL import Image
from torch import Tensor

from data.errors import ShardError
from data.loading.examples import Batch, Collate, Example, PictureFormat
from data.sources.chosen import PairSource
from data.sources.held_out import spread_pairs

_BATCH = 64
_SHOWN = 256  # pixels of a picture's longer side in the panels


@dataclass(frozen=True)
class ValidationPairs:
    """Prompts with their tokens, pixels (3, H, W) uint8 as the network takes them, and small copies of the first pictures to look at. The pictures
    themselves, 4 MB of memory for one of 1024 x 1024, are not kept."""

    prompts: Sequence[str]
    examples: Sequence[Example]
    thumbnails: Sequence[Image.Image]

    @classmethod
    def read(cls, source: PairSource, picture: PictureFormat, tokens: Callable[[str], list[int]], *, count: int, shown: int) -> ValidationPairs:
        """`count` pairs from all over the source, or as many as can be read; thumbnails of `shown` of them.

        Raises:
            ShardError: none can be read.
        """
        prompts: list[str] = []
        examples: list[Example] = []
        thumbnails: list[Image.Image] = []
        for pair in islice((pair for _, pair in spread_pairs(source) if pair is not None), count):
            prompts.append(pair.prompt)
            examples.append(Example(picture.pixels(pair.image), tokens(pair.prompt)))
            if len(thumbnails) < shown:
                pair.image.thumbnail((_SHOWN, _SHOWN))
                thumbnails.append(pair.image)
        if not prompts:
            raise ShardError(f"of {len(source)} validation pairs none can be read; look at the data with: python -m data.preview")
        return cls(prompts, examples, thumbnails)

    def __len__(self) -> int:
        return len(self.prompts)

    def batches(self, collate: Collate, device: torch.device, normalise: Callable[[Tensor], Tensor]) -> Iterator[Batch]:
        for first in range(0, len(self), _BATCH):
            yield collate(self.examples[first : first + _BATCH]).to(device, normalise)
