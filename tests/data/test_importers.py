import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from archives import encoded, numbered, write_tar
from commands import ROOT
from filelock import FileLock
from PIL import Image, ImageDraw, PngImagePlugin

from data.audit import AuditConfig
from data.audit import main as audit
from data.errors import ShardError
from data.groups.words import jaccard
from data.importers import main, parse
from data.imports.planning import plan_import
from data.splits import SPLITS, split_of, words_of
from data.store.directory import finished_shards
from data.store.pairs import PairDataset

WORDS = ("castle river fox lantern mountain violin garden robot", "ocean bicycle owl forest teapot desert ship cathedral")

CASES = Path(__file__).parent / "metadata" / "cases"


def picture(seed: int, size: int = 48) -> Image.Image:
    draw = random.Random(seed)
    image = Image.new("RGB", (size, size), tuple(draw.choices(range(256), k=3)))
    canvas = ImageDraw.Draw(image)
    for _ in range(8):
        x, y, side = draw.randrange(size), draw.randrange(size), draw.randrange(6, 24)
        canvas.rectangle((x, y, x + side, y + side), fill=tuple(draw.choices(range(256), k=3)))
    return image


def prompt(seed: int) -> str:
    draw = random.Random(seed)
    return f"{draw.choice(WORDS[0].split())} {draw.choice(WORDS[1].split())} {draw.randrange(10**6)} {draw.randrange(10**6)}"


def save(path: Path, seed: int, text: str | None = None) -> None:
    """With a text of AUTOMATIC1111 in it, or without."""
    notes = PngImagePlugin.PngInfo()
    if text is not None:
        notes.add_text("parameters", f"{text}\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: {seed}, Size: 48x48")
    picture(seed).save(path, pnginfo=notes)


def folder(directory: Path, count: int) -> Path:
    directory.mkdir(parents=True)
    for i in range(count):
        save(directory / f"{i:04d}.png", i, prompt(i))
    return directory


def imported(*arguments: object) -> None:
    main(parse([*map(str, arguments), "--workers", "1"]))


def pairs(out: Path) -> dict[str, Any]:
    """Every pair by its original."""
    found = {}
    for split in SPLITS:
        if finished_shards(out / split):
            dataset = PairDataset(out, split)
            found |= {(pair := dataset[i]).metadata["original"]: (split, pair) for i in range(len(dataset))}
    return found


def rows(out: Path) -> list[dict[str, Any]]:
    return [row for split in SPLITS for tar in finished_shards(out / split) for row in pq.read_table(tar.with_suffix(".parquet")).to_pylist()]


def test_a_folder_of_generated_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = folder(tmp_path / "in", 60)
    save(source / "sidecar.png", 100)
    (source / "sidecar.txt").write_text("from the file beside")
    save(source / "nothing.png", 101)
    (source / "broken.png").write_bytes(b"\x89PNG\r\n")
    (source / "empty.jpg").write_bytes(b"")
    Image.new("RGB", (48, 48)).save(source / "other.bmp")
    (source / "other.caption").write_text("(a bitmap:1.2), <lora:x:1>")
    before = {path: path.read_bytes() for path in source.iterdir()}
    imported("folder", source, "--out", tmp_path / "out", "--strip", "weights", "loras", "spaces", "--shard-size", "20")
    assert {path: path.read_bytes() for path in source.iterdir()} == before
    found = pairs(tmp_path / "out")
    assert len(found) == 62
    _, pair = found["0007.png"]
    assert pair.prompt == prompt(7)
    assert list(pair.image.getdata()) == list(picture(7).getdata())
    assert {name: pair.metadata[name] for name in ("seed", "steps", "guidance_scale", "sampler", "negative_prompt", "tool", "width")} == {
        "seed": 7, "steps": 20, "guidance_scale": 7.0, "sampler": "Euler a", "negative_prompt": "blurry", "tool": "AUTOMATIC1111", "width": 48,
    }  # fmt: skip
    assert found["sidecar.png"][1].prompt == "from the file beside"
    assert found["other.bmp"][1].prompt == "a bitmap"
    assert found["other.bmp"][1].metadata["original_prompt"] == "(a bitmap:1.2), <lora:x:1>"
    skipped = Counter(json.loads(line)["kind"] for line in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines())
    assert skipped == {"no prompt": 1, "damaged image": 1, "empty image": 1}
    about = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert about["skipped"] == dict(skipped)
    assert about["settings"]["strip"] == ["weights", "loras", "spaces"]
    assert "left out 3: " in capsys.readouterr().out
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.tar")}
    imported("folder", source, "--out", tmp_path / "out", "--strip", "weights", "loras", "spaces", "--shard-size", "20")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.tar")} == stamps


@pytest.mark.slow
def test_nothing_leaks_and_the_audit_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in"
    source.mkdir()
    draw = random.Random(4)
    for i in range(150):
        words = [*prompt(i).split(), *prompt(1000 + i).split(), *prompt(2000 + i).split()]
        save(source / f"{i:03d}.png", i, " ".join(words))
        save(source / f"{i:03d}b.png", 500 + i, ", ".join(draw.sample(words, len(words) - 1)))  # the same, one word less
    picture(3).resize((40, 40), Image.Resampling.LANCZOS).save(source / "again.png")  # another's picture, smaller, with another prompt
    (source / "again.txt").write_text("nothing like it before")
    imported("folder", source, "--out", tmp_path / "out")
    found = pairs(tmp_path / "out")
    assert {split for split, _ in found.values()} == set(SPLITS)
    assert all(found[f"{i:03d}.png"][0] == found[f"{i:03d}b.png"][0] for i in range(150) if {f"{i:03d}.png", f"{i:03d}b.png"} <= set(found))
    assert found["again.png"][0] == found["003.png"][0]
    assert audit(AuditConfig(directory=tmp_path / "out"))
    out = capsys.readouterr().out
    assert "nothing leaks" in out
    assert "0.8 or above: 0" in out
    assert not audit(AuditConfig(directory=tmp_path / "out", threshold=0.05))
    assert "leaks" in capsys.readouterr().out


def test_data_that_comes_later_keeps_the_splits_of_what_is_there(tmp_path: Path) -> None:
    imported("folder", folder(tmp_path / "in", 120), "--out", tmp_path / "old")
    for i in range(120):
        save(tmp_path / "in" / f"{i:04d}.png", 1000 + i, f"{prompt(i)} more".replace(" ", ", "))  # near, with other pictures
    imported("folder", tmp_path / "in", "--out", tmp_path / "new", "--beside", tmp_path / "old")
    old, new = pairs(tmp_path / "old"), pairs(tmp_path / "new")
    assert {split for split, _ in new.values()} == set(SPLITS)
    near = [name for name in set(new) & set(old) if jaccard(words_of(new[name][1].prompt), words_of(old[name][1].prompt)) >= 0.8]
    assert len(near) > 80
    assert all(new[name][0] == old[name][0] for name in near)


def test_a_table_and_tars(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    lines = ["id,title"]
    for i in range(30):
        picture(i).save(tmp_path / "images" / f"{i}.jpg")
        lines.append(f"{i},{prompt(i)}")
    (tmp_path / "t.csv").write_text("\n".join([*lines, "31,one,too many", "99,no such image"]))
    imported("table", tmp_path / "t.csv", "--image", "images/{id}.jpg", "--text", "{title}", "--out", tmp_path / "out")
    found = pairs(tmp_path / "out")
    assert sorted(pair.prompt for _, pair in found.values()) == sorted(map(prompt, range(30)))
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["skipped"] == {"malformed line": 1, "missing image": 1}
    write_tar(tmp_path / "0.tar", numbered(0, 3))
    imported("webdataset", tmp_path / "0.tar", "--out", tmp_path / "tars", "--picture-distance", "0")
    assert len(rows(tmp_path / "tars")) >= 1


def test_large_pictures_can_be_reduced(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    picture(1, 300).save(tmp_path / "in" / "large.png")
    (tmp_path / "in" / "large.txt").write_text("large")
    imported("folder", tmp_path / "in", "--out", tmp_path / "out", "--max-side", "100")
    ((_, pair),) = pairs(tmp_path / "out").values()
    assert pair.image.size == (100, 100)


def test_refusals(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", 3)
    for arguments, message in (
        (("folder", tmp_path / "none", "--out", tmp_path / "a"), "does not exist"),
        (("folder", source / "0000.png", "--out", tmp_path / "a"), "is not a directory"),
        (("folder", source, "--out", source / "out"), "lies inside the source"),
        (("folder", source, "--out", source / "0000.png"), "is a file"),
        (("folder", source, "--out", tmp_path), "holds other things"),
        (("diffusiondb", source, "--out", tmp_path / "b"), "is not DiffusionDB"),
        (("folder", source, "--out", tmp_path / "c", "--beside", source), "no finished shard"),
    ):
        with pytest.raises(ShardError, match=message):
            imported(*arguments)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ShardError, match="there is no image in"):
        imported("folder", tmp_path / "empty", "--out", tmp_path / "d")
    assert not (tmp_path / "b").exists()
    assert not (tmp_path / "d").exists()
    imported("folder", source, "--out", tmp_path / "out")
    with pytest.raises(ShardError, match=r"other settings \(max_side: None there, 64 now\)"):
        imported("folder", source, "--out", tmp_path / "out", "--max-side", "64")
    save(source / "0000a.png", 50, "a new one in between")
    with pytest.raises(ShardError, match="the source has changed"):
        imported("folder", source, "--out", tmp_path / "out")
    with FileLock(tmp_path / "out" / ".lock"), pytest.raises(ShardError, match="another import is writing"):
        imported("folder", source, "--out", tmp_path / "out")


@pytest.mark.slow
def test_killed_at_any_moment_it_makes_the_same(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", 150)
    arguments = ["folder", str(source), "--shard-size", "10", "--workers", "2", "--sentence-model", "none"]  # which takes seconds to load

    def start(out: Path) -> subprocess.Popen:
        line = [sys.executable, "-m", "data.importers", *arguments, "--out", str(out)]
        return subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

    assert start(tmp_path / "whole").wait(120) == 0
    draw = random.Random(0)
    kills = 0
    for _ in range(4):
        process = start(tmp_path / "killed")
        for _ in range(1000):
            if (tmp_path / "killed" / "survey.jsonl").exists():
                break
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 0.5))
        if process.poll() is None:
            kills += 1
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
    assert kills
    assert start(tmp_path / "killed").wait(120) == 0
    shards = sorted(path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*") if path.suffix in (".tar", ".parquet", ".jsonl"))
    assert len(shards) > 20
    for shard in shards:
        assert (tmp_path / "killed" / shard).read_bytes() == (tmp_path / "whole" / shard).read_bytes()
    assert not list((tmp_path / "killed").rglob("*.tmp"))


def skipped(out: Path) -> Counter[str]:
    return Counter(json.loads((out / "dataset.json").read_text())["skipped"])


def test_one_bad_file_never_stops_an_import(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", 12)
    good = (source / "0000.png").read_bytes()
    content = io.BytesIO()
    picture(1).save(content, "AVIF")
    (source / "damaged.avif").write_bytes(content.getvalue()[:200] + b"\xff" * 50)
    (source / "dds.png").write_bytes(b"DDS " + bytes(120))
    (source / "eps.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\xff\xff\xff\xff"
    picture(60).save(source / "exif.jpg", exif=exif)
    (source / "exif.txt").write_text("with damaged exif")
    save(source / "deep.png", 61, None)
    notes = PngImagePlugin.PngInfo()
    notes.add_text("prompt", '{"a":' * 100_000)
    picture(62).save(source / "deep.png", pnginfo=notes)
    notes = PngImagePlugin.PngInfo()
    notes.add_text("XML:com.adobe.xmp", '<?xml version="1.0" encoding="klingon"?><x/>')
    picture(63).save(source / "xmp.png", pnginfo=notes)
    (source / "xmp.txt").write_bytes("phare à la côte".encode("cp1252"))
    bytes_name = os.fsencode(source) + b"/name\xff.png"
    with open(bytes_name, "wb") as file:
        file.write((source / "0003.png").read_bytes())
    (source / "UPPER.JPG").write_bytes(encoded("JPEG", size=(48, 48)))
    (source / "UPPER.TXT").write_bytes("an upper one".encode("utf-16"))
    imported("folder", source, "--out", tmp_path / "out", "--picture-distance", "0")
    found = {name: pair.prompt for name, (_, pair) in pairs(tmp_path / "out").items()}
    assert found["exif.jpg"] == "with damaged exif"
    assert found["xmp.png"] == "phare à la côte"
    assert found["UPPER.JPG"] == "an upper one"
    assert found["name?.png"] == prompt(3)
    assert len(found) == 16
    assert skipped(tmp_path / "out") == {"damaged image": 3, "metadata of ComfyUI": 1}
    assert (source / "0000.png").read_bytes() == good


def test_what_vanishes_or_is_exchanged_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    source = folder(tmp_path / "in", 8)

    def in_between(*arguments: object, **options: object) -> object:
        (source / "0001.png").unlink()
        save(source / "0002.png", 77, "another picture with another prompt")
        return plan_import(*arguments, **options)

    monkeypatch.setattr("data.importers.plan_import", in_between)
    imported("folder", source, "--out", tmp_path / "out")
    assert set(pairs(tmp_path / "out")) == {f"{i:04d}.png" for i in (0, 3, 4, 5, 6, 7)}
    assert skipped(tmp_path / "out") == {"missing image": 1, "exchanged image": 1}
    failed = {(row["original"], row["error_kind"]) for row in rows(tmp_path / "out") if row["status"] == "failed"}
    assert failed == {("0001.png", "missing image"), ("0002.png", "exchanged image")}
    out = capsys.readouterr().out
    assert "out: 6 pairs" in out  # those that are there, and not those that were planned
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["counts"]["train"] == len(PairDataset(tmp_path / "out", "train"))


def test_zips_and_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.imports.listing.LARGEST", 100_000)
    (tmp_path / "in").mkdir()
    for i in range(3):
        save(tmp_path / f"{i}.png", i, prompt(i))
    picture(9).save(tmp_path / "plain.jpg")
    with zipfile.ZipFile(tmp_path / "in" / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("0.png", "1.png", "sub/2.png", "plain.jpg"):
            archive.write(tmp_path / Path(name).name, name)
        archive.writestr("plain.txt", "beside it in the zip")
        archive.writestr("bomb.png", bytes(10_000_000))
        archive.writestr("__MACOSX/._0.png", b"x")
    (tmp_path / "in" / "broken.zip").write_bytes(b"PK")
    imported("folder", tmp_path / "in", "--out", tmp_path / "out")
    found = {name: pair.prompt for name, (_, pair) in pairs(tmp_path / "out").items()}
    assert found == {"a.zip/0.png": prompt(0), "a.zip/1.png": prompt(1), "a.zip/sub/2.png": prompt(2), "a.zip/plain.jpg": "beside it in the zip"}
    assert skipped(tmp_path / "out") == {"huge file": 1, "damaged archive": 1}


def test_a_metadata_file_reaches_nothing_outside_and_names_what_is_missing(tmp_path: Path) -> None:
    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
    for i in range(4):
        picture(i).save(source / "sub" / f"{i}.png")
    picture(9).save(tmp_path / "outside.png")
    lines = [
        {"image": "sub\\0.png", "captions": ["a red lighthouse", "a tower by the sea"]}, {"file_name": "sub/1.png", "text": "an owl in the snow"},
        {"file_name": "../outside.png", "text": "no"}, {"file_name": str(tmp_path / "outside.png"), "text": "no"},
        {"file_name": "C:\\x.png", "text": "no"}, {"file_name": "none.png", "text": "not there"}, {"text": "no file"},
    ]  # fmt: skip
    (source / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    imported("imagefolder", source, "--out", tmp_path / "out")
    found = {name: pair.prompt for name, (_, pair) in pairs(tmp_path / "out").items()}
    assert found == {"sub/0.png": "a red lighthouse", "sub/0.png#2": "a tower by the sea", "sub/1.png": "an owl in the snow"}
    assert skipped(tmp_path / "out") == {"outside the folder": 3, "missing image": 1, "no file_name": 1}


def test_the_splits_of_a_source_are_kept_unless_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, first in (("train", 0), ("validation", 40), ("test", 50)):
        folder(tmp_path / "in" / split, 0)
        for i in range(first, first + (40 if split == "train" else 10)):
            save(tmp_path / "in" / split / f"{i:04d}.png", i, prompt(i))
    imported("folder", tmp_path / "in", "--out", tmp_path / "own")
    assert Counter((name.split("/")[0], split) for name, (split, _) in pairs(tmp_path / "own").items()) == {
        ("train", "train"): 40, ("validation", "val"): 10, ("test", "test"): 10,
    }  # fmt: skip
    assert "own train, val, test were kept" in capsys.readouterr().out
    assert json.loads((tmp_path / "own" / "dataset.json").read_text())["near_duplicates"] == {}
    imported("folder", tmp_path / "in", "--out", tmp_path / "hash", "--splits", "hash")
    for _, (split, pair) in pairs(tmp_path / "hash").items():
        assert split_of(pair.metadata["prompt_group"]) == split
    shutil.rmtree(tmp_path / "in" / "test")
    imported("folder", tmp_path / "in", "--out", tmp_path / "part")  # what is missing is carved out of train
    found = pairs(tmp_path / "part")
    assert {split for name, (split, _) in found.items() if name.startswith("validation")} == {"val"}
    for name, (split, pair) in found.items():
        if name.startswith("train"):
            assert split == ("test" if split_of(pair.metadata["prompt_group"]) == "test" else "train")


def test_grids_and_pictures_of_graphs_are_named_and_an_option_takes_them(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", 3)
    shutil.copy(CASES / "grid-0001.png", source)
    (source / "grid-0001.txt").write_text("four of them")  # a prompt beside it does not make it one picture
    imported("folder", source, "--out", tmp_path / "out")
    assert skipped(tmp_path / "out") == {"grid of pictures": 1}
    imported("folder", source, "--out", tmp_path / "all", "--also", "grids")
    assert "grid-0001.png" in pairs(tmp_path / "all")
