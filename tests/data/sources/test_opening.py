import io
import itertools
import json
import struct
import tarfile
import zlib
from collections import Counter
from itertools import islice, permutations
from pathlib import Path

import numpy as np
import pytest
from archives import encoded, numbered, write_tar
from PIL import Image

from data.errors import ImageError, PairError, ShardError
from data.files import write_json
from data.loading.stream import spread as stream_spread
from data.sources.chosen import ChosenPairs, PairSource, prompts, spread
from data.sources.folders import FolderPairs
from data.sources.held_out import HeldOutPictures, spread_pairs
from data.sources.hub import HubPairs, image_column, named_splits
from data.sources.opening import open_pairs, open_splits
from data.sources.pictures import picture_numbers
from data.sources.streams import open_stream
from data.sources.tars import TarPairs, expand
from data.splits import SPLITS, prompt_group, split_of
from data.store.directory import DATASET_FILE
from data.store.pairs import Pair
from data.store.writer import ShardWriter


def all_splits(source: str) -> dict[str, list[str]]:
    return {split: list(prompts(open_pairs(source, split))) for split in SPLITS}


def check_split_by_hash(source: str, count: int) -> None:
    found = all_splits(source)
    assert sorted(prompt for split in SPLITS for prompt in found[split]) == sorted(f"prompt number {i}" for i in range(count))
    for split in SPLITS:
        assert all(split_of(prompt_group(prompt)) == split for prompt in found[split])


def test_tars_in_a_directory_are_split_by_the_prompts(tmp_path: Path) -> None:
    write_tar(tmp_path / "a" / "0.tar", numbered(0, 60))
    write_tar(tmp_path / "a" / "1.tar", numbered(60, 120))
    check_split_by_hash(str(tmp_path / "a"), 120)
    check_split_by_hash(str(tmp_path / "a" / "{0..1}.tar"), 120)
    check_split_by_hash(str(tmp_path / "a" / "*.tar"), 120)
    pair = open_pairs(str(tmp_path / "a"), "train")[0]
    assert pair.image.size == (12, 10)
    assert pair.prompt.startswith("prompt number ")


def test_tars_with_splits_of_their_own_keep_them(tmp_path: Path) -> None:
    for name, first in (("train", 0), ("validation", 5), ("test", 10)):
        write_tar(tmp_path / name / "0.tar", numbered(first, first + 5))
    found = all_splits(str(tmp_path))
    assert {split: len(texts) for split, texts in found.items()} == {"train": 5, "val": 5, "test": 5}
    assert found["val"][0] == "prompt number 5"


def test_prompts_come_from_text_caption_or_json(tmp_path: Path) -> None:
    files = {"1.jpg": encoded("JPEG"), "1.caption": b"one", "2.webp": encoded("WEBP"), "2.json": b'{"text": "two"}'}
    files |= {"3.png": encoded(), "3.json": b'{"seed": 3}', "4.png": encoded(), "5.txt": b"no image", "6.png": encoded(), "6.json": b"{"}
    write_tar(tmp_path / "0.tar", files)
    pairs = TarPairs([tmp_path / "0.tar"])
    assert [pairs.prompt(i) for i in (0, 1)] == ["one", "two"]
    assert len(pairs) == 4
    for index, kind in ((2, "no prompt"), (3, "damaged metadata")):
        with pytest.raises(PairError) as error:
            pairs[index]
        assert error.value.kind == kind


def test_of_a_tar_that_is_cut_short_the_rest_is_used_and_the_cut_counted(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", numbered(0, 50))
    path.write_bytes(path.read_bytes()[: 20 * 2048 + 700])
    pairs = TarPairs([path])
    assert pairs.skipped == {"cut archive": 1, "no prompt": 1}  # the image before the cut
    assert [pairs[i].prompt for i in range(len(pairs))] == [f"prompt number {i}" for i in range(20)]
    path.write_bytes(b"")
    with pytest.raises(ShardError, match=r"0\.tar: no image with a \.txt"):
        TarPairs([path])


def huge() -> bytes:
    """A PNG of a few bytes whose header promises 65,536 x 65,536 pixels."""
    header = struct.pack(">IIBBBBB", 1 << 16, 1 << 16, 8, 2, 0, 0, 0)
    whole = encoded(size=(1, 1))
    return whole[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + whole[33:]


IMAGES = {
    "whole": (encoded(), None),
    "cmyk": (encoded("JPEG", "CMYK"), None),
    "palette": (encoded("PNG", "P"), None),
    "transparent": (encoded("PNG", "RGBA"), None),
    "animated": (encoded("GIF", "P", save_all=True, append_images=[Image.new("P", (12, 10), 3)]), None),
    "empty": (b"", "empty image"),
    "cut short": (encoded(size=(200, 200))[:-60], "damaged image"),
    "no image": (b"hello", "damaged image"),
    "huge": (huge(), "huge image"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_every_kind_of_image_is_read_or_named(tmp_path: Path, name: str) -> None:
    content, kind = IMAGES[name]
    write_tar(tmp_path / "0.tar", {"1.png": content, "1.txt": b"x"})
    pairs = TarPairs([tmp_path / "0.tar"])
    if kind is None:
        assert pairs[0].image.mode == "RGB"
        assert pairs[0].image.size == (12, 10)
    else:
        with pytest.raises(ImageError) as error:
            pairs[0]
        assert error.value.kind == kind


def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4), 65535, np.uint16)).save(file, "PNG")
    write_tar(tmp_path / "0.tar", {"1.png": file.getvalue(), "1.txt": b"x"})
    assert TarPairs([tmp_path / "0.tar"])[0].image.getpixel((0, 0)) == (255, 255, 255)


def write_folder(directory: Path, first: int, last: int, column: str = "text") -> None:
    directory.mkdir(parents=True)
    lines = []
    for i in range(first, last):
        (directory / f"{i}.png").write_bytes(encoded())
        lines.append(json.dumps({"file_name": f"{i}.png", column: f"prompt number {i}"}))
    (directory / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def test_an_image_folder(tmp_path: Path) -> None:
    write_folder(tmp_path / "flat", 0, 100)
    check_split_by_hash(str(tmp_path / "flat"), 100)
    for name, first in (("train", 0), ("val", 6), ("test", 9)):
        write_folder(tmp_path / "own" / name, first, first + 3, "caption")
    assert all_splits(str(tmp_path / "own"))["test"] == ["prompt number 9", "prompt number 10", "prompt number 11"]
    (tmp_path / "own" / "train" / "0.png").unlink()
    with open(tmp_path / "own" / "train" / "metadata.jsonl", "a") as file:
        file.write('{"file_name": \n\n"text"\n')
    pairs = open_pairs(str(tmp_path / "own"), "train")
    assert pairs.skipped == {"damaged metadata": 2}
    with pytest.raises(ImageError, match="no such file"):
        pairs[0]


def test_a_data_set_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    columns = {"picture": [Image.new("RGB", (12, 10))] * 100, "words": [f"prompt number {i}" for i in range(100)]}
    features = datasets.Features({"picture": datasets.Image(), "words": datasets.Value("string")})
    rows = datasets.Dataset.from_dict(columns, features=features)
    monkeypatch.setattr("data.sources.opening.load_hub", lambda name, streaming: {"train": rows})
    with pytest.raises(ShardError, match="give --prompt-column, one of: picture, words"):
        open_pairs("someone/something", "train")
    found = {split: open_pairs("someone/something", split, prompt_name="words") for split in SPLITS}
    assert sum(map(len, found.values())) == 100
    pair: Pair = found["val"][0]
    assert split_of(prompt_group(pair.prompt)) == "val"
    assert pair.image.size == (12, 10)
    assert isinstance(open_pairs("someone/something", "val", prompt_name="words"), ChosenPairs)
    monkeypatch.setattr("data.sources.opening.load_hub", lambda name, streaming: {"train": rows, "validation": rows, "test": rows})
    divided: PairSource = open_pairs("someone/something", "val", prompt_name="words")
    assert isinstance(divided, HubPairs)
    assert len(divided) == 100
    with pytest.raises(ShardError, match="no image column 'image'; images are in: picture"):
        image_column("x", features, "image")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("none", "does not exist. Make one with"),
        ("https://host/{0..3}.tar", "add --stream"),
        ("empty", r"has no dataset.json \(what generate_data.py was given as --out\), no metadata.jsonl, no .tar, and no pictures with a .txt"),
        ("someone/nothing", "neither a path here nor a data set that can be had from the Hub"),
    ],
)
def test_what_is_no_source_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ShardError, match=message):
        open_pairs(source, "train")


def test_small_data_gives_every_split_something(tmp_path: Path) -> None:
    for count in (1, 2):
        write_tar(tmp_path / "0.tar", numbered(0, count))
        with pytest.raises(ShardError, match=f"{count} different prompts are too few for train and val and test: .* Add pairs"):
            open_pairs(str(tmp_path), "train")
    write_tar(tmp_path / "0.tar", numbered(0, 8))
    found = all_splits(str(tmp_path))
    assert sorted(len(texts) for texts in found.values()) == [1, 1, 6]
    assert len({*found["train"], *found["val"], *found["test"]}) == 8
    splits = open_splits(str(tmp_path))
    assert "val and test taken out of train, by what pairs say or the hash of their prompts" in str(splits)
    assert len({splits[split].fingerprint() for split in SPLITS}) == 3


def test_a_data_set_directory_with_empty_splits_takes_them_out_of_train(tmp_path: Path) -> None:
    """As generate_data.py and the importers leave it where there are few prompts: all of them hashed into train."""
    groups = [name for name in map(str, range(200)) if split_of(name) == "train"][:12]
    with ShardWriter(tmp_path / "train", 0) as writer:
        for number in range(24):
            metadata = {"prompt": f"prompt number {number}", "prompt_group": groups[number // 2]}
            writer.add(f"{number:05d}", Image.new("RGB", (12, 10)), metadata)
    write_json(tmp_path / DATASET_FILE, {"shards": {"train": 1, "val": 0, "test": 0}})
    found = all_splits(str(tmp_path))
    assert [len(found[split]) for split in SPLITS] == [20, 2, 2]
    of = {f"prompt number {number}": groups[number // 2] for number in range(24)}
    assert not {of[prompt] for prompt in found["train"]} & {of[prompt] for prompt in [*found["val"], *found["test"]]}  # the groups stay whole


def test_of_a_data_set_directory_all_must_be_there_and_splits_in_which_nothing_came_out_well_are_none(tmp_path: Path) -> None:
    for split in SPLITS:
        with ShardWriter(tmp_path / split, 0) as writer:
            for number in range(20):
                if split == "val":
                    writer.add_failure(f"{number:05d}", {"prompt": f"prompt {number} of {split}"}, "broken", "it broke")
                else:
                    writer.add(f"{number:05d}", Image.new("RGB", (12, 10)), {"prompt": f"prompt {number} of {split}"})
    write_json(tmp_path / DATASET_FILE, {"shards": {"train": 1, "val": 1, "test": 1}})
    found = all_splits(str(tmp_path))
    assert len(found["train"]) + len(found["val"]) == len(found["test"]) == 20
    assert found["val"]
    write_json(tmp_path / DATASET_FILE, {"shards": {"train": 2, "val": 1, "test": 1}})
    with pytest.raises(ShardError, match=r"has 3 of 4 shards\. Go on with"):
        open_splits(str(tmp_path))
    assert len(open_splits(str(tmp_path), partial=True)["test"]) == 20


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


def test_the_first_pairs_come_from_everywhere(tmp_path: Path) -> None:
    """Not from the folders that are first in the alphabet; and the same ones when others are added, or the data lies elsewhere."""
    for folder in "abcdefgh":
        write_captioned(tmp_path / "one" / "train" / folder, 0, 50)
    pairs = open_splits(str(tmp_path / "one")).parts["train"]()
    first = [pairs.key(number) for number in spread(pairs)[:64]]
    counts = Counter(key.split("/")[0] for key in first)
    assert len(counts) == 8
    assert max(counts.values()) <= 16
    assert HeldOutPictures.of(pairs, 64).keys == first == [pair.key for _, pair in islice(spread_pairs(pairs), 64) if pair is not None]
    (tmp_path / "one").rename(tmp_path / "two")
    write_captioned(tmp_path / "two" / "train" / "z", 0, 50)
    again = open_splits(str(tmp_path / "two")).parts["train"]()
    assert [key for key in (again.key(number) for number in spread(again)) if not key.startswith("z/")][:64] == first


def test_patterns() -> None:
    assert expand("https://host/{008..010}.tar") == ["https://host/008.tar", "https://host/009.tar", "https://host/010.tar"]
    assert expand("s3://bucket/{0..1}/{0..1}.tar") == [f"s3://bucket/{i}/{j}.tar" for i in (0, 1) for j in (0, 1)]
    assert expand("nothing*.tar") == []


def write_captioned(directory: Path, first: int, last: int) -> None:
    directory.mkdir(parents=True)
    for i in range(first, last):
        (directory / f"{i}.JPG").write_bytes(encoded("JPEG"))
        (directory / f"{i}{'.TXT' if i % 2 else '.txt'}").write_bytes(f"\ufeffprompt number {i}\r\n".encode("utf-16" if i % 3 else "utf-8"))


def test_a_folder_of_pictures_with_texts_beside_them(tmp_path: Path) -> None:
    write_captioned(tmp_path / "flat" / "sub", 0, 100)
    (tmp_path / "flat" / "alone.png").write_bytes(encoded())
    check_split_by_hash(str(tmp_path / "flat"), 100)
    assert open_pairs(str(tmp_path / "flat"), "train").skipped == {"no prompt": 1}
    assert open_pairs(str(tmp_path / "flat"), "train")[0].image.size == (12, 10)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "to").symlink_to(tmp_path / "flat")
    (tmp_path / "flat" / "circle").symlink_to(tmp_path / "flat")
    assert len(open_pairs(str(tmp_path / "linked"), "train")) == len(open_pairs(str(tmp_path / "flat"), "train"))


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


def test_columns_of_an_image_folder_by_their_usual_names(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for i in range(3):
        (tmp_path / "images" / f"{i}.png").write_bytes(encoded())
    (tmp_path / "metadata.csv").write_text("image;caption\nimages\\0.png;a cat, grey\nimages/1.png;a dog\n../x.png;no\n")
    pairs = FolderPairs.listed(tmp_path)
    assert [pairs[i].prompt for i in range(len(pairs))] == ["a cat, grey", "a dog"]
    assert pairs.skipped == {"outside the folder": 1}
    (tmp_path / "metadata.jsonl").write_text(
        '{"file_name": "images/2.png", "captions": ["one", "two"]}\n{"file_name": "images/1.png", "words": "x"}\n'
    )
    pairs = FolderPairs.listed(tmp_path)
    assert [pairs.prompt(i) for i in range(2)] == ["one", "two"]
    with pytest.raises(PairError, match=r"no text under .*\(there is: file_name, words\)"):
        pairs.prompt(2)
    before = pairs.fingerprint()
    (tmp_path / "images" / "2.png").write_bytes(encoded(size=(40, 40)) + b"more")
    assert FolderPairs.listed(tmp_path).fingerprint() != before


def test_a_text_of_automatic1111_beside_a_picture_is_read_as_the_importer_reads_it(tmp_path: Path) -> None:
    for i in range(100):
        (tmp_path / f"{i}.png").write_bytes(encoded())
        text = f"prompt number {i}\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: {i}, Size: 12x10"
        (tmp_path / f"{i}.txt").write_text(text)
    check_split_by_hash(str(tmp_path), 100)


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
