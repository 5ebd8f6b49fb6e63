"""Images of one prompt shown together: which, how many, and what stands in their place where they cannot be read."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from listed import ListedPairs
from PIL import Image

from data.errors import ImageError, PairError
from data.loading.augmentation import RandomCrop
from data.loading.examples import Batch, Collate, Example, Examples, TextFormat
from data.loading.joint import JointBatches, JointExamples, prompt_numbers
from data.loading.order import Place, ShuffledBatches
from data.store.pairs import Pair
from model import IGNORED_LABEL, Preprocessing

PREPROCESS = Preprocessing(image_size=8)
PROMPTS = [0, 1, 1, 2, 3, 2, 2, 3, 4, 4, 4, 4, 4, 5, 2, 6, 6]  # with 1, 2, 4, 2, 5, 1 and 2 images, not all of them neighbours
OF = {prompt: {pair for pair, own in enumerate(PROMPTS) if own == prompt} for prompt in PROMPTS}

Drawn = list[list[tuple[Place, ...]]]


def draw(steps: int, most: int = 3, batch_size: int = 4, seed: int = 1, prompts: Sequence[int] = PROMPTS, fewest: int = 1, **arguments: int) -> Drawn:
    shuffled = ShuffledBatches(len(prompts), batch_size, seed=seed, **arguments)
    return list(itertools.islice(JointBatches(shuffled, prompts, range(fewest, most + 1)), steps))


class Listed(ListedPairs):
    """Of which the pictures say their numbers in red; a prompt "?" cannot be read, nor the pictures of `broken`."""

    def __init__(self, prompts: Sequence[str], broken: Sequence[int] = ()) -> None:
        super().__init__([Pair(str(number), Image.new("RGB", (8, 8), (number, 0, 0)), prompt, {}) for number, prompt in enumerate(prompts)])
        self.broken = broken

    def image(self, index: int) -> Image.Image:
        if index in self.broken:
            raise ImageError(f"{index}: broken")
        return super().image(index)

    def prompt(self, index: int) -> str:
        if (prompt := super().prompt(index)) == "?":
            raise PairError(f"{index}: none", "no prompt")
        return prompt


def joint_examples(pairs: ListedPairs, augment: RandomCrop | None = None) -> JointExamples:
    form = TextFormat(lambda text: [3 + ord(letter) - ord("a") for letter in text], bos_id=1, eos_id=2, pad_id=0, max_tokens=10)
    return JointExamples(Examples(pairs, PREPROCESS, form, augment=augment))


def together(pairs: ListedPairs, *indices: int) -> Example:
    (example,) = joint_examples(pairs).__getitems__([tuple(Place(index, position) for position, index in enumerate(indices))])
    return example


def shown(example: Example) -> list[int]:
    return [int(red) for red in example.image[..., 0, 0, 0].flatten()]


def test_prompts_are_numbered_but_for_spaces_and_what_cannot_be_read_is_alone() -> None:
    pairs = Listed(["a cat", " a \n cat ", "?", "A cat", "2", "a cat", "?", "acat", "6"])
    assert prompt_numbers(pairs) == [0, 1, 2, 3, 4, 0, 5, 6, 7]  # pairs 2 and 6 are not those that say "2" and "6"


def test_a_pair_is_shown_with_others_of_its_prompt_and_no_image_twice_while_there_are_enough() -> None:
    shuffled = iter(ShuffledBatches(17, 4, seed=1))
    for batch in draw(60, most=4):
        assert [group[0].index for group in batch] == [place.index for place in next(shuffled)]
        (size,) = {len(group) for group in batch}
        for group in batch:
            indices = [place.index for place in group]
            own = OF[PROMPTS[indices[0]]]
            first = indices[: len(own)]
            assert set(first) <= own
            assert len(set(first)) == len(first) == min(size, len(own))
            assert indices == [first[number % len(first)] for number in range(size)]


def test_every_number_of_images_is_drawn_about_as_often_and_anew_in_each_batch() -> None:
    sizes = [len(batch[0]) for batch in draw(4000, most=4, batch_size=1, prompts=[0, 0])]
    assert set(sizes) == {1, 2, 3, 4}
    assert all(abs(count - 1000) < 140 for count in Counter(sizes).values())  # five standard deviations
    following = Counter(itertools.pairwise(sizes))
    assert len(following) == 16
    assert all(abs(count - 250) < 80 for count in following.values())
    assert {len(batch[0]) for batch in draw(30, most=1, batch_size=1)} == {1}
    assert {len(batch[0]) for batch in draw(30, most=3, batch_size=1, fewest=2)} == {2, 3}
    assert [len(batch[0]) for batch in draw(40, most=4, seed=2)] != sizes[:40]


def test_every_other_image_of_a_prompt_is_drawn_about_as_often_in_any_order() -> None:
    groups = [batch[0] for batch in draw(4000, batch_size=1, prompts=[0] * 5)]
    pairs = Counter((group[0].index, group[1].index) for group in groups if len(group) == 3)
    assert len(pairs) == 20
    assert all(abs(count - 4000 / 3 / 20) < 42 for count in pairs.values())
    orders = Counter(group[1].index < group[2].index for group in groups if len(group) == 3)
    assert 0.8 < orders[True] / orders[False] < 1.25
    one, other = ([[place.index for place in batch[0]] for batch in draw(300, batch_size=1, seed=seed, prompts=[0] * 5)] for seed in (1, 2))
    alike = [(mine, theirs) for mine, theirs in zip(one, other, strict=True) if mine[0] == theirs[0] and len(mine) == len(theirs) == 3]
    assert any(mine != theirs for mine, theirs in alike)  # the seed decides


def test_a_resumed_order_goes_on_where_it_stopped() -> None:
    assert draw(30)[11:] == draw(19, start_step=11)


def test_two_processes_share_the_groups_of_one_with_twice_the_size() -> None:
    """So they show as many images together at each step."""
    whole = draw(40, batch_size=8)
    halves = [draw(40, rank=rank, world_size=2) for rank in (0, 1)]
    assert [one + other for one, other in zip(*halves, strict=True)] == whole


@pytest.mark.parametrize("fewest", [1, 3])
def test_no_two_images_of_a_run_have_a_position_in_common(fewest: int) -> None:
    """By which their random parts are drawn."""
    drawn = [batch for rank in (0, 1) for batch in draw(200, most=4, fewest=fewest, rank=rank, world_size=2)]
    places = [place for batch in drawn for group in batch for place in group]
    assert len({place.position for place in places}) == len(places) > 3000


def test_the_images_of_a_group_are_one_example_in_their_order() -> None:
    pairs = Listed(["ab", "c", "ab", "ab"])
    example = together(pairs, 3, 0, 2)
    assert example.image.shape == (3, 3, 8, 8)
    assert example.image.dtype == torch.uint8
    assert shown(example) == [3, 0, 2]
    assert (example.tokens, example.skipped, example.pairs) == ([1, 3, 4, 2], {}, 3)
    single = together(pairs, 2)
    assert single.image.shape == (3, 8, 8)
    assert (shown(single), single.tokens, single.pairs) == ([2], [1, 3, 4, 2], 1)


@pytest.mark.parametrize(
    ("group", "expected", "tokens"),
    [
        ((0, 1, 3), [0, 3, 0], "a"),  # 1 cannot be read, and 2 of another prompt stands there
        ((0, 1, 1, 3, 4), [0, 3, 4, 0, 3], "a"),
        ((0, 1), [0, 0], "a"),
        ((1, 0, 3), [2, 2, 2], "b"),  # what stands in for the first brings its prompt
        ((0, 5, 3), [0, 6, 3], "a"),  # of the same prompt
        ((1,), [2], "b"),
    ],
)
def test_what_stands_in_for_an_unreadable_image_is_not_taken_for_one_of_the_prompt(group: tuple[int, ...], expected: list[int], tokens: str) -> None:
    example = together(Listed(["a", "a", "b", "a", "a", "a", "a"], broken=(1, 5)), *group)
    assert shown(example) == expected
    assert example.tokens == [1, {"a": 3, "b": 4}[tokens], 2]
    unread = sum(index in (1, 5) for index in group)
    assert (example.skipped, example.pairs) == (Counter({"damaged image": unread} if unread else {}), len(group))


def batches(pairs: ListedPairs, steps: int, most: int) -> list[tuple[list[tuple[Place, ...]], Batch]]:
    examples = joint_examples(pairs)
    groups = itertools.islice(JointBatches(ShuffledBatches(len(pairs), 6, seed=3), prompt_numbers(pairs), range(1, most + 1)), steps)
    return [(group, Collate(0, IGNORED_LABEL)(examples.__getitems__(group))) for group in groups]


def test_no_batch_shows_an_image_under_another_prompt_and_all_that_is_lost_is_counted() -> None:
    prompts = [*"aabacbcaddda", "?", *"beebba"]
    broken = (1, 4, 8, 14)
    sizes = set()
    for groups, batch in batches(Listed(prompts, broken), steps=60, most=3):
        size = len(groups[0])
        sizes.add(size)
        each = batch.images if batch.pictures is None else batch.images[batch.pictures]  # one that stands beside what it stands in for
        assert each.shape == ((6, size, 3, 8, 8) if size > 1 else (6, 3, 8, 8))
        assert batch.num_pairs == 6 * size
        for images, tokens in zip(each, batch.labels.tolist(), strict=True):
            assert {prompts[int(red)] for red in images[..., 0, 0, 0].flatten()} == {chr(ord("a") + tokens[0] - 3)}
            assert not {int(red) for red in images[..., 0, 0, 0].flatten()} & {*broken, 12}
        places = [place.index for group in groups for place in group]
        damaged, none = sum(index in broken for index in places), places.count(12)
        assert batch.skipped == Counter({kind: count for kind, count in (("damaged image", damaged), ("no prompt", none)) if count})
    assert sizes == {1, 2, 3}


def test_each_image_of_a_group_has_a_random_part_of_its_own() -> None:
    noise = [Image.effect_noise((64, 48), 80).convert("RGB") for _ in range(2)]
    pairs = ListedPairs([Pair(str(number), image, "a", {}) for number, image in enumerate(noise)])
    examples = joint_examples(pairs, RandomCrop(PREPROCESS.size, PREPROCESS.interpolation))
    groups = [group for batch in itertools.islice(JointBatches(ShuffledBatches(2, 1, seed=1), [0, 0], range(1, 5)), 20) for group in batch]
    group = next(group for group in groups if len(group) == 4)
    (example,) = examples.__getitems__([group])
    assert group[0].index == group[2].index
    assert len({image.numpy().tobytes() for image in example.image}) == 4
    (again,) = examples.__getitems__([group])
    assert torch.equal(again.image, example.image)


def test_features_of_images_are_shown_together_as_well() -> None:
    class Features:
        def __getitems__(self, places: Sequence[Place]) -> list[Example]:
            return [Example(torch.full((5, 7), float(place.index)), [1, 9, 2]) for place in places]

    groups = [(Place(4, 0), Place(2, 1)), (Place(3, 2), Place(3, 3))]
    batch = Collate(0, IGNORED_LABEL)(JointExamples(Features()).__getitems__(groups))
    assert batch.images.shape == (2, 2, 5, 7)
    assert batch.images[..., 0, 0].tolist() == [[4, 2], [3, 3]]
    assert (batch.num_pairs, batch.num_tokens) == (4, 4)


def test_captions_of_a_picture_share_it_where_single_images_are_shown() -> None:
    examples = joint_examples(Listed(["a", "b", "a"]))
    examples.examples.pictures = [0, 0, 2]  # type: ignore[attr-defined]
    batch = Collate(0, IGNORED_LABEL)(examples.__getitems__([(Place(0, 0),), (Place(1, 3),), (Place(2, 6),)]))
    assert batch.pictures is not None
    assert (batch.pictures.tolist(), len(batch.images), batch.num_pairs) == ([0, 0, 1], 2, 3)


@pytest.mark.parametrize("start", [0, 2])
def test_accumulated_batches_show_what_one_large_batch_shows(start: int) -> None:
    small = JointBatches(ShuffledBatches(len(PROMPTS), 4, seed=1, start_step=3 * start), PROMPTS, range(1, 5), accumulate=3)
    large = JointBatches(ShuffledBatches(len(PROMPTS), 12, seed=1, start_step=start), PROMPTS, range(1, 5))
    batches = itertools.islice(small, 60)
    for update in itertools.islice(large, 20):
        assert [group for batch in itertools.islice(batches, 3) for group in batch] == update
