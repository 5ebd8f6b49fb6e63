import io
import struct
import zlib
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from archives import encoded, numbered, write_tar
from PIL import Image
from sources import all_splits, check_split_by_hash, write_captioned, write_folder

from data.errors import ImageError, PairError, ShardError
from data.files import write_json
from data.sources.chosen import ChosenPairs, PairSource, spread
from data.sources.folders import FolderPairs
from data.sources.held_out import HeldOutPictures, spread_pairs
from data.sources.hub import HubPairs, image_column
from data.sources.opening import open_pairs, open_splits
from data.sources.tars import TarPairs, expand
from data.splits import SPLITS, prompt_group, split_of
from data.store.directory import DATASET_FILE
from data.store.pairs import Pair
from data.store.writer import ShardWriter


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
