import dataclasses
import weakref
from collections import Counter
from pathlib import Path
from typing import ClassVar

import pytest
from listed import ListedPairs
from PIL import Image

from data.errors import PairError
from data.sources.chosen import spread
from data.sources.folders import FolderPairs
from data.sources.held_out import HeldOutPictures
from data.sources.opening import open_splits
from data.store.pairs import Pair


class Counting(ListedPairs):
    """Eight large pictures; the third cannot be read, the fifth has an empty prompt."""

    held: ClassVar[list[weakref.ref[Image.Image]]] = []

    def image(self, index: int) -> Image.Image:
        image = Image.new("RGB", (3000, 2100), (index, 0, 0))
        self.held.append(weakref.ref(image))
        return image

    def __getitem__(self, index: int) -> Pair:
        return Pair(str(index), self.image(index), self.prompt(index), {})

    def __len__(self) -> int:
        return 8

    def key(self, index: int) -> str:
        return str(index)

    def picture(self, index: int) -> str:
        return str(index)

    def prompt(self, index: int) -> str:
        if index == 2:
            raise PairError("no", "no prompt")
        return "" if index == 4 else f"prompt {index}"

    def fingerprint(self) -> str:
        return "counting"


def test_pictures_are_read_when_they_are_asked_for() -> None:
    found = HeldOutPictures.of(Counting([]), 5)
    order = [str(number) for number in spread(Counting([]))]
    assert found.keys == [key for key in order if key not in "24"][:5]
    whole = HeldOutPictures.of(Counting([]), 100)
    assert whole.unread == Counter({"no prompt": 1, "empty prompt": 1})
    assert len(whole) == 6
    assert not any(image() for image in Counting.held)
    shown = found.images(2, 2)
    assert [(image.size, image.getpixel((9, 9))) for image in shown] == [((1500, 1050), (int(key), 0, 0)) for key in found.keys[2:4]]
    assert found.fingerprint() != whole.fingerprint() == HeldOutPictures.of(Counting([]), 100).fingerprint()


def test_the_fingerprint_changes_with_the_source_the_pictures_and_their_prompts() -> None:
    """By it, what was captioned before is known again."""
    found = HeldOutPictures.of(Counting([]), 5)

    class Another(Counting):
        def fingerprint(self) -> str:
            return "another"

    others = [
        HeldOutPictures.of(Another([]), 5),
        dataclasses.replace(found, references=[*found.references[:-1], ["x"]]),
        dataclasses.replace(found, numbers=found.numbers[::-1]),
    ]
    assert len({one.fingerprint() for one in (found, *others)}) == 4


def test_rows_of_one_file_are_the_references_of_one_picture(tmp_path: Path) -> None:
    lines = []
    for number in range(6):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
        lines += [f'{{"file_name": "{number}.png", "text": "prompt {number} {place}"}}' for place in range(3)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    source = FolderPairs.listed(tmp_path, None)
    found = HeldOutPictures.of(source, 4)
    assert len(found) == 4
    for image, prompts in zip(found.images(0, 4), found.references, strict=True):
        number = image.getpixel((0, 0))[0]
        assert sorted(prompts) == [f"prompt {number} {place}" for place in range(3)]
    assert len(HeldOutPictures.of(source, 100)) == 6
    assert HeldOutPictures.of(source, 100).unread.total() == 0


def test_groups_are_those_of_the_data_or_else_one_for_each_prompt() -> None:
    image = Image.new("RGB", (8, 8))
    pairs = [Pair("a", image.copy(), "A  cat", {}), Pair("b", image.copy(), "a cat", {}), Pair("c", image.copy(), "x", {"prompt_group": "g"})]
    pairs.append(Pair("d", image.copy(), "y", {"prompt_group": "g"}))
    found = HeldOutPictures.of(ListedPairs(pairs), 9)
    group = dict(zip(found.keys, found.groups, strict=True))
    assert group["a"] == group["b"] != group["c"] == group["d"]


def test_a_prompt_column_of_another_name(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text("\n".join(f'{{"file_name": "a.png", "words": "p {i}", "split": "test"}}' for i in range(2)))
    found = HeldOutPictures.of(open_splits(str(tmp_path), prompt_name="words")["test"], 9)
    assert sorted(found.references[0]) == ["p 0", "p 1"]
    with pytest.raises(Exception, match="words"):
        HeldOutPictures.of(open_splits(str(tmp_path))["test"], 9)
