import random
from collections import Counter

import pytest
import torch
from PIL import Image

from data.errors import ImageError, PairError
from data.loading.augmentation import RandomCrop
from data.loading.examples import Batch, Collate, Examples, TextFormat
from data.loading.order import Place
from data.store.pairs import Pair
from model import IGNORED_LABEL, Preprocessing

TOKENS = {"a": 5, "b": 6, "c": 7}
PREPROCESS = Preprocessing(image_size=8)


class Listed:
    """Pairs in memory; an exception stands for one that cannot be read."""

    def __init__(self, *prompts: str | Exception) -> None:
        self.prompts = prompts

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, index: int) -> Pair:
        return Pair(str(index), self.image(index), self.prompt(index), {})

    def image(self, index: int) -> Image.Image:
        return Image.new("RGB", (8, 8), (255, 0, 0))

    def prompt(self, index: int) -> str:
        prompt = self.prompts[index]
        if isinstance(prompt, Exception):
            raise prompt
        return prompt


def text(max_tokens: int = 10) -> TextFormat:
    return TextFormat(lambda text: [TOKENS[letter] for letter in text], bos_id=1, eos_id=2, pad_id=0, max_tokens=max_tokens)


def batch_of(*prompts: str, max_tokens: int = 10) -> Batch:
    examples = Examples(Listed(*prompts), PREPROCESS, text(max_tokens))
    return Collate(0, IGNORED_LABEL)([examples[Place(index, index)] for index in range(len(prompts))])


def test_labels_are_the_inputs_one_step_on() -> None:
    batch = batch_of("abc", "a")
    assert batch.input_ids.tolist() == [[1, 5, 6, 7], [1, 5, 0, 0]]
    assert batch.labels.tolist() == [[5, 6, 7, 2], [5, 2, -100, -100]]
    assert batch.num_tokens == 6
    assert batch.images.shape == (2, 3, 8, 8)
    assert batch.images[0, :, 0, 0].tolist() == [255, 0, 0]
    assert batch.to(torch.device("cpu"), PREPROCESS.normalise).images[0, :, 0, 0].tolist() == [1, -1, -1]


def test_a_prompt_that_is_cut_has_no_end() -> None:
    batch = batch_of("abc", max_tokens=2)
    assert batch.input_ids.tolist() == [[1, 5]]
    assert batch.labels.tolist() == [[5, 6]]


def test_of_a_very_long_prompt_only_the_beginning_is_tokenised() -> None:
    seen: list[int] = []

    def tokenize(text: str) -> list[int]:
        seen.append(len(text))
        return [5] * len(text)

    form = TextFormat(tokenize, bos_id=1, eos_id=2, pad_id=0, max_tokens=4)
    assert form("a" * 100_000) == [1, 5, 5, 5, 5]
    assert seen[0] < 1000


def test_what_cannot_be_read_is_counted_and_replaced_by_the_next() -> None:
    pairs = Listed("a", ImageError("0: broken"), "  ", PairError("2: none", "no prompt"), "b")
    examples = Examples(pairs, PREPROCESS, text())
    assert examples[Place(0, 0)].skipped == Counter()
    replaced = examples[Place(1, 1)]
    assert replaced.tokens == [1, 6, 2]
    assert replaced.skipped == {"damaged image": 1}  # one place, one pair lost
    batch = Collate(0, IGNORED_LABEL)([replaced, examples[Place(3, 2)], examples[Place(2, 3)], examples[Place(0, 4)], examples[Place(1, 5)]])
    assert batch.skipped == {"damaged image": 2, "empty prompt": 1, "no prompt": 1}
    with pytest.raises(PairError, match="100 pairs in a row could not be read; the last: 0: broken"):
        Examples(Listed(ImageError("0: broken")), PREPROCESS, text())[Place(0, 0)]


def test_captions_of_a_picture_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []

    class Shared(Listed):
        def image(self, index: int) -> Image.Image:
            opened.append(index)
            return Image.effect_noise((64, 48), 80).convert("RGB")

    shared, crop = Shared("a", "b", "", "c", "ab", "bc"), RandomCrop(PREPROCESS.size, PREPROCESS.interpolation)
    examples = Examples(shared, PREPROCESS, text(), augment=crop, pictures=[0, 0, 0, 3, 4, 4])
    places = [Place(index, 10 + position) for position, index in enumerate((1, 0, 2, 3, 5, 4, 0))]  # the caption of 2 is empty: 3 stands there
    batch = Collate(0, IGNORED_LABEL)(examples.__getitems__(places))
    assert batch.pictures is not None
    assert batch.pictures.tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert opened == [1, 3, 5, 0]
    assert batch.images.shape == (4, 3, 8, 8)
    assert batch.input_ids[:, 1].tolist() == [6, 5, 7, 7, 6, 5, 5]
    assert batch.skipped == {"empty prompt": 1}
    assert not torch.equal(batch.images[0], batch.images[3])  # the same picture later in the batch is shown anew
    moved = batch.to(torch.device("cpu"), PREPROCESS.normalise)
    assert moved.pictures is not None
    assert moved.pictures.tolist() == batch.pictures.tolist()
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.clone())  # which needs a GPU
    pinned = batch.pin_memory()
    assert pinned.pictures is not None
    for one, other in zip((pinned.images, pinned.labels, pinned.pictures), (batch.images, batch.labels, batch.pictures), strict=True):
        assert torch.equal(one, other)
        assert one is not other
    assert Collate(0, IGNORED_LABEL)(examples.__getitems__([Place(0, 0), Place(3, 1)])).pictures is None


def test_augmentation_depends_on_the_place_alone() -> None:
    noise = Image.effect_noise((64, 48), 80).convert("RGB")

    class Noise(Listed):
        def image(self, index: int) -> Image.Image:
            return noise

    examples = Examples(Noise("a", "a"), PREPROCESS, text(), augment=RandomCrop(PREPROCESS.size, PREPROCESS.interpolation), seed=3)
    torch.manual_seed(7)
    random.seed(7)
    first = examples[Place(0, 5)].image
    assert torch.equal(examples[Place(0, 5)].image, first)
    assert not torch.equal(examples[Place(0, 6)].image, first)
    other = Examples(Noise("a", "a"), PREPROCESS, text(), augment=RandomCrop(PREPROCESS.size, PREPROCESS.interpolation), seed=4)
    assert not torch.equal(other[Place(0, 5)].image, first)


def test_the_shown_part_is_80_to_100_percent_of_the_area() -> None:
    augment = RandomCrop(PREPROCESS.size, PREPROCESS.interpolation)
    boxes = [augment.box(1000, 600, random.Random(i)) for i in range(300)]
    areas = [(right - left) * (lower - upper) / 600_000 for left, upper, right, lower in boxes]
    assert all(0 <= left < right <= 1000 and 0 <= upper < lower <= 600 for left, upper, right, lower in boxes)
    assert 0.6 < min(areas) < 0.8  # a stretched part may not fit: its longer side is cut to the picture's
    assert max(areas) <= 1
    whole = [area for area, (left, upper, right, lower) in zip(areas, boxes, strict=True) if right - left < 1000 and lower - upper < 600]
    assert min(whole) >= 0.798
    assert len({left for left, *_ in boxes}) > 50
    assert all(augment.box(1, 1, random.Random(i)) == (0, 0, 1, 1) for i in range(9))


def test_the_shown_part_looks_as_pillow_would_show_it() -> None:
    image = Image.effect_noise((90, 70), 60).convert("RGB").resize((360, 280), Image.Resampling.BICUBIC)
    preprocess = Preprocessing(image_size=(64, 48), mean=(0.0,) * 3, std=(1.0,) * 3)
    augment = RandomCrop(preprocess.size, preprocess.interpolation)
    for i in range(5):
        part = image.crop(augment.box(360, 280, random.Random(i)))
        torch.testing.assert_close(augment(image, random.Random(i)), preprocess.pixels(part), atol=1, rtol=0)
