import io
import itertools
import json
import tarfile
from itertools import permutations
from pathlib import Path

import pytest
from archives import encoded, numbered, write_tar
from PIL import Image
from sources import all_splits, check_split_by_hash, write_captioned, write_folder

from data.errors import ShardError
from data.loading.stream import spread as stream_spread
from data.sources.chosen import prompts, spread
from data.sources.hub import named_splits
from data.sources.opening import open_pairs, open_splits
from data.sources.pictures import picture_numbers
from data.sources.streams import open_stream
from data.sources.tars import TarPairs
from data.splits import SPLITS, prompt_group, split_of


def test_tars_declare_their_splits_by_directory_or_name(tmp_path: Path) -> None:
    for place, name in enumerate(("mine-train-0000", "mine-val-0000", "deep/Test/0000", "more", "valley-0", "test-train-0")):
        write_tar(tmp_path / "a" / f"{name}.tar", numbered(10 * place, 10 * place + 10))
    found = all_splits(str(tmp_path / "a"))
    numbers = {split: sorted(int(prompt.split()[-1]) // 10 for prompt in found[split][::10]) for split in SPLITS}
    assert numbers == {"train": [0, 3, 4, 5], "val": [1], "test": [2]}
    assert all_splits(str(tmp_path / "a" / "**" / "*.tar")) == found
    assert str(open_splits(str(tmp_path / "a"))) == ""
    for number in range(3):  # what leads to the tars of a pattern declares nothing: all of them have it
        write_tar(tmp_path / "test" / f"{number}.tar", numbered(30 * number, 30 * number + 30))
    check_split_by_hash(str(tmp_path / "test" / "{0..2}.tar"), 90)


def test_values_of_pairs_declare_their_split(tmp_path: Path) -> None:
    """In the JSON beside an image, or in a column of a metadata file; here val and train, so that test alone is carved out."""
    files: dict[str, bytes] = {}
    for i in range(40):
        files |= {
            f"{i:02d}.png": encoded(),
            f"{i:02d}.json": json.dumps({"prompt": f"prompt number {i}", "split": "dev" if i < 10 else "train"}).encode(),
        }
    write_tar(tmp_path / "tars" / "0.tar", files)
    rows = [{"file_name": f"{i}.png", "text": f"prompt number {i}", "split": ("dev", "train")[i >= 10]} for i in range(40)]
    (tmp_path / "listed").mkdir()
    for i in range(40):
        (tmp_path / "listed" / f"{i}.png").write_bytes(encoded())
    (tmp_path / "listed" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for source in ("tars", "listed"):
        found = all_splits(str(tmp_path / source))
        assert found["val"] == [f"prompt number {i}" for i in range(10)]
        assert len(found["train"]) + len(found["test"]) == 30
        assert found["test"]
        splits = open_splits(str(tmp_path / source))
        assert len(splits["test"]) == len(found["test"])
        assert str(splits).startswith("val and test taken out of train")


def test_one_metadata_file_may_list_the_pictures_of_all_splits(tmp_path: Path) -> None:
    rows = []
    for name, first in (("train", 0), ("validation", 5), ("test", 10)):
        (tmp_path / name).mkdir()
        for i in range(first, first + 5):
            (tmp_path / name / f"{i}.png").write_bytes(encoded())
            rows.append(json.dumps({"file_name": f"{name}/{i}.png", "text": f"prompt number {i}"}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows))
    assert {split: [int(text.split()[-1]) for text in texts] for split, texts in all_splits(str(tmp_path)).items()} == {
        "train": [0, 1, 2, 3, 4],
        "val": [5, 6, 7, 8, 9],
        "test": [10, 11, 12, 13, 14],
    }


def test_what_lies_beside_declared_splits_is_named_and_two_names_for_one_refused(tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        write_captioned(tmp_path / name, 0, 3)
    write_captioned(tmp_path / "more", 0, 3)
    (tmp_path / "loose.png").write_bytes(encoded())
    with pytest.warns(UserWarning, match="lies outside of") as said:
        open_splits(str(tmp_path))
    assert sorted(Path(str(one.message).split(" lies ")[0]).name for one in said) == ["loose.png", "more"]
    write_captioned(tmp_path / "validation", 0, 3)
    with pytest.raises(ShardError, match="has two splits for val, val and validation; make one of them"):
        open_splits(str(tmp_path))


@pytest.mark.parametrize("kind", ["tars", "listed", "captioned"])
def test_declared_splits_are_kept_and_only_what_is_missing_is_carved_out_of_train(tmp_path: Path, kind: str) -> None:
    for name, first, last in (("train", 0, 90), ("val", 90, 106)):
        if kind == "tars":
            write_tar(tmp_path / name / "0.tar", numbered(first, last))
        else:
            (write_folder if kind == "listed" else write_captioned)(tmp_path / name, first, last)
    found = all_splits(str(tmp_path))
    assert sorted(found["val"]) == sorted(f"prompt number {i}" for i in range(90, 106))
    training = [f"prompt number {i}" for i in range(90)]
    assert sorted(found["test"]) == sorted(prompt for prompt in training if split_of(prompt_group(prompt)) == "test")
    assert sorted(found["train"]) == sorted(prompt for prompt in training if split_of(prompt_group(prompt)) != "test")
    assert found["test"]
    with pytest.raises(ShardError, match="has no train split, only val"):
        (tmp_path / "train").rename(tmp_path.with_name(f"{tmp_path.name}-elsewhere"))
        open_pairs(str(tmp_path), "train")
    assert len(open_pairs(str(tmp_path), "val")) == 16


LAYOUTS = ("values of some", "values of all", "directories and values", "train alone", "one table", "tars in two directories")


def write_layout(directory: Path, layout: str) -> None:
    def pairs(first: int, last: int, split: str | None) -> dict[str, bytes]:
        said = {} if split is None else {"split": split}
        images = {f"{i:04d}.png": encoded() for i in range(first, last)}
        return images | {f"{i:04d}.json": json.dumps({"prompt": f"prompt number {i}"} | said).encode() for i in range(first, last)}

    if layout == "values of some":
        write_tar(directory / "0.tar", in_order(pairs(0, 20, "val") | pairs(20, 200, None)))
    elif layout == "values of all":
        write_tar(directory / "0.tar", in_order(pairs(0, 20, "val") | pairs(20, 40, "test") | pairs(40, 200, "train")))
    elif layout == "directories and values":
        write_tar(directory / "train" / "0.tar", in_order(pairs(0, 20, "val") | pairs(20, 150, None)))
        write_tar(directory / "val" / "0.tar", in_order(pairs(150, 200, None)))
    elif layout == "train alone":
        write_tar(directory / "train" / "0.tar", in_order(pairs(0, 200, None)))
    else:
        write_tar(directory / "train" / "0.tar", in_order(pairs(0, 150, None)))
        write_tar(directory / "extra" / "0.tar", in_order(pairs(150, 180, None)))
        write_tar(directory / "test" / "0.tar", in_order(pairs(180, 200, None)))


def in_order(files: dict[str, bytes]) -> dict[str, bytes]:
    return dict(sorted(files.items()))


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "one table"])
@pytest.mark.filterwarnings("ignore:1 of 3 tars")
def test_by_number_and_as_a_stream_the_splits_are_the_same(tmp_path: Path, layout: str) -> None:
    write_layout(tmp_path, layout)
    streamed = {split: sorted(str(raw.text) for raw in stream_spread(open_stream(str(tmp_path), split), 1000)) for split in SPLITS}
    assert {split: sorted(texts) for split, texts in all_splits(str(tmp_path)).items()} == streamed
    assert sorted(text for split in SPLITS for text in streamed[split]) == sorted(f"prompt number {i}" for i in range(200))  # each in one


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.filterwarnings("ignore:1 of 3 tars")
def test_in_whatever_order_splits_are_asked_for_they_are_the_same_and_share_nothing(tmp_path: Path, layout: str) -> None:
    if layout == "one table":
        rows = [json.dumps({"file_name": f"{SPLITS[i % 3]}/{i}.png", "text": f"prompt number {i}"}) for i in range(60)]
        (tmp_path / "metadata.jsonl").write_text("\n".join(rows))
    else:
        write_layout(tmp_path, layout)
    expected = {split: list(prompts(open_pairs(str(tmp_path), split))) for split in SPLITS}
    assert sum(map(len, expected.values())) == len({text for texts in expected.values() for text in texts})
    for order in permutations(SPLITS):
        splits = open_splits(str(tmp_path))
        for split in (*order, *order):
            assert list(prompts(splits[split])) == expected[split], order


def test_pairs_that_are_all_for_testing_are_not_trained_on(tmp_path: Path) -> None:
    rows = [json.dumps({"file_name": f"test/{i}.png", "text": f"prompt number {i}"}) for i in range(60)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows))
    assert len(open_pairs(str(tmp_path), "test")) == 60
    with pytest.raises(ShardError, match="has no train split: its pairs say that they are test"):
        open_pairs(str(tmp_path), "train")


def test_tars_and_splits_of_the_hub_that_declare_nothing_are_named(tmp_path: Path) -> None:
    write_layout(tmp_path, "tars in two directories")
    with pytest.warns(UserWarning, match=r"1 of 3 tars of .* declare no split, where others do; they are for training"):
        open_splits(str(tmp_path))
    with pytest.warns(UserWarning, match="the splits unsupervised are neither train, val nor test, and left out"):
        assert named_splits({"train": 1, "unsupervised": 2}, "someone/something") == {"train": 1}
    with pytest.warns(UserWarning, match="the splits extra are neither"):
        assert named_splits({"full": [1], "extra": [2]}, "someone/something") == {"train": [1]}
    odd = tmp_path / "a[1] {b}"
    write_tar(odd / "0.tar", numbered(0, 40))
    assert len(open_pairs(str(odd), "train")) > 30


def test_captions_of_one_picture_stay_in_one_split(tmp_path: Path) -> None:
    """Known apart by the files, of archives by their bytes; a caption that all of them have joins none."""
    lines = []
    for number in range(60):
        Image.new("RGB", (8, 8), (number, 2 * number, 99)).save(tmp_path / f"{number}.png")
        captions = [*(f"picture {number} in words {word}" for word in ("red", "green", "blue", "grey")), "A photo."]
        lines.append(json.dumps({"file_name": f"{number}.png", "caption": captions}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    splits = open_splits(str(tmp_path))
    files: dict[str, set[str]] = {split: {splits[split].key(index) for index in range(len(splits[split]))} for split in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not files[one] & files[other]
    assert sum(map(len, files.values())) == 60
    assert all(len(splits[split]) == 5 * len(files[split]) for split in SPLITS)
    assert len(files["train"]) > 45  # nine of ten, about
    assert len({splits["train"].key(index) for index in spread(splits["train"])[: len(files["train"])]}) == len(files["train"])  # of each one first

    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "00000.tar", "w") as tar:
        for number, word in itertools.product(range(40), ("red", "green", "blue")):
            for suffix, content in ((".png", (tmp_path / f"{number}.png").read_bytes()), (".txt", f"picture {number} in words {word}".encode())):
                info = tarfile.TarInfo(f"{number:03d}-{word}{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    assert picture_numbers(TarPairs([tmp_path / "tars" / "00000.tar"])) == [number // 3 * 3 for number in range(120)]
    with pytest.warns(UserWarning, match=r"\d+ pictures have captions in several splits.*prompt_group"):
        open_splits(str(tmp_path / "tars"))["test"]
