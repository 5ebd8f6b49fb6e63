import sys
import weakref
from typing import Any

import pytest
import torch
from listed import ListedPairs
from PIL import Image

from data.errors import ImageError, ShardError
from data.loading.examples import Collate
from data.sources.chosen import spread
from data.store.pairs import Pair
from model import IGNORED_LABEL, Preprocessing
from training.validation import ValidationPairs

PREPROCESS = Preprocessing(image_size=16)


class Large(ListedPairs):
    """Pictures of 12 MB, made when they are read; the third is broken, the fifth has no prompt."""

    held: list[weakref.ref[Image.Image]]

    def __init__(self) -> None:
        super().__init__([Pair(str(i), Image.new("RGB", (1, 1)), "" if i == 5 else f"number {i}", {}) for i in range(12)])
        self.held = []

    def __getitem__(self, index: int) -> Pair:
        if index == 3:
            raise ImageError("broken")
        image = Image.new("RGB", (2000, 1000), (index, 0, 0))
        self.held.append(weakref.ref(image))
        return Pair(str(index), image, self.prompt(index), {})


def read(source: ListedPairs, **more: Any) -> ValidationPairs:
    return ValidationPairs.read(source, PREPROCESS, lambda prompt: [1, *map(int, prompt.split()[-1:]), 2], **more)


def test_of_the_pictures_only_what_the_network_sees_is_kept() -> None:
    source = Large()
    pairs = read(source, count=6, shown=2)
    expected = [number for number in spread(source) if number not in (3, 5)][:6]
    assert list(pairs.prompts) == [f"number {number}" for number in expected]
    alive = [image() for image in source.held if image() is not None]
    assert len(alive) == 2
    assert [image.size for image in pairs.thumbnails] == [(256, 128)] * 2
    assert all(sys.getsizeof(example.image.untyped_storage()) < 5000 for example in pairs.examples)
    (batch,) = pairs.batches(Collate(0, IGNORED_LABEL), torch.device("cpu"), PREPROCESS.normalise)
    assert torch.equal(batch.images[1], PREPROCESS(Image.new("RGB", (2000, 1000), (expected[1], 0, 0))))
    assert batch.labels.tolist() == [[number, 2] for number in expected]


def test_batches_are_as_large_as_they_may_be() -> None:
    source = ListedPairs([Pair(str(i), Image.new("RGB", (8, 8)), f"number {i}", {}) for i in range(150)])
    pairs = read(source, count=140, shown=0)
    sizes = [len(batch.images) for batch in pairs.batches(Collate(0, IGNORED_LABEL), torch.device("cpu"), PREPROCESS.normalise)]
    assert sizes == [64, 64, 12]


def test_without_one_readable_pair_nothing_begins() -> None:
    with pytest.raises(ShardError, match="of 1 validation pairs none can be read"):
        read(ListedPairs([Pair("0", Image.new("RGB", (8, 8)), " ", {})]), count=4, shown=1)
