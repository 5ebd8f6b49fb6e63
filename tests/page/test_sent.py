"""Pictures sent as files and in ZIP archives, whatever is in those, and the ZIP that goes back."""

from __future__ import annotations

import csv
import io
import re
import struct
import warnings
import zipfile
from pathlib import Path

import pytest
from archives import encoded
from inverters import row

import page.sent
from inference.line_files import COLUMNS
from page.sent import MOST_PICTURES, SentError, results_archive, sent_pictures

PNG = encoded()


def zipped(path: Path, members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", compression) as archive:
        warnings.simplefilter("ignore")  # of two members of one name
        for name, content in members:
            member = zipfile.ZipInfo("plain")
            member.filename = name  # as it is, without what ZipInfo makes of it
            member.compress_type = compression
            archive.writestr(member, content)
    return path


def read(*files: Path) -> list[tuple[str, bytes | str]]:
    """Name and content, or why there is none."""
    found: list[tuple[str, bytes | str]] = []
    with sent_pictures([(str(file), file.name) for file in files]) as pictures:
        for name, content in pictures:
            try:
                found.append((name, content()))
            except SentError as error:
                found.append((name, str(error)))
    return found


def names(*files: Path) -> list[str]:
    with sent_pictures([(str(file), file.name) for file in files]) as pictures:
        return [name for name, _ in pictures]


def test_files_and_archives_give_their_pictures_in_order(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "notes.txt").write_bytes(b"no picture")
    members = [("x.png", PNG), ("deep/er/y.JPG", b"jpeg"), ("notes.txt", b"no"), ("deep.png/", b""), ("x.png\\", b""), ("win\\z.png", b"win")]
    archive = zipped(tmp_path / "b.zip", members)
    found = read(tmp_path / "a.png", archive, tmp_path / "notes.txt")
    # a file by itself was sent to be read; what it is, its reader says
    assert found == [("a.png", PNG), ("x.png", PNG), ("deep/er/y.JPG", b"jpeg"), ("win/z.png", b"win"), ("notes.txt", b"no picture")]


def test_hidden_files_and_folders_of_an_archive_are_passed_over(tmp_path: Path) -> None:
    members = [".x.png", "__MACOSX/._x.png", ".cache/x.png", "a/.b/x.png", "x.png", "../x.png", "./y.png"]
    assert names(zipped(tmp_path / "a.zip", [(name, PNG) for name in members])) == ["x.png", "../x.png", "y.png"]


def test_an_archive_is_known_by_what_it_is_and_a_picture_by_its_name(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", [("x.png", PNG)])
    other, picture = tmp_path / "pictures.cbz", tmp_path / "p.png"
    other.write_bytes(archive.read_bytes())
    picture.write_bytes(PNG + archive.read_bytes())  # both at once
    assert names(other, picture) == ["x.png", "p.png"]


def test_two_members_of_one_name_are_two_pictures(tmp_path: Path) -> None:
    assert read(zipped(tmp_path / "a.zip", [("x.png", b"one"), ("x.png", b"two")])) == [("x.png", b"one"), ("x.png", b"two")]


def test_what_is_damaged_costs_itself_alone(tmp_path: Path) -> None:
    (tmp_path / "whole.png").write_bytes(PNG)
    content = zipped(tmp_path / "a.zip", [("x.png", PNG * 50), ("y.png", PNG)]).read_bytes()
    for kind, broken in {
        "cut": content[:-30],
        "empty": b"",
        "text": b"not a ZIP file at all",
        "no-end": content[: len(content) // 2],
    }.items():
        path = tmp_path / f"{kind}.zip"
        path.write_bytes(broken)
        (name, why), *rest = read(path, tmp_path / "whole.png")
        assert name == path.name
        assert re.fullmatch(rf"{kind}\.zip cannot be unpacked \(.+\)", str(why)), kind
        assert rest == [("whole.png", PNG)]
    place = content.index(b"PNG") if b"PNG" in content else 60
    flipped = bytearray(content)
    flipped[place : place + 8] = bytes(byte ^ 0xFF for byte in flipped[place : place + 8])
    (tmp_path / "flipped.zip").write_bytes(flipped)
    first, second = read(tmp_path / "flipped.zip")
    assert first[0] == "x.png"
    assert re.fullmatch(r"x\.png cannot be unpacked \(.+\)", str(first[1]))
    assert second == ("y.png", PNG)


def test_any_damage_is_told_in_words(tmp_path: Path) -> None:
    """Each byte of an archive wrong once: a picture, or a sentence."""
    content = zipped(tmp_path / "a.zip", [("é.png", PNG), ("y.png", PNG)]).read_bytes()
    path = tmp_path / "b.zip"
    for place in range(len(content)):
        for value in (0x00, 0xFF, content[place] ^ 0x01):
            path.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
            for _, found in read(path):
                assert isinstance(found, bytes) or re.search(r"cannot be unpacked|is larger than|is packed in a way", found)


def test_members_that_need_a_password_are_named(tmp_path: Path) -> None:
    content = bytearray(zipped(tmp_path / "a.zip", [("x.png", PNG), ("y.png", PNG)]).read_bytes())
    content[6] |= 1  # the first member's flag, before it and in the table at the end
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    (name, why), other = read(tmp_path / "a.zip")
    assert (name, other) == ("x.png", ("y.png", PNG))
    assert "x.png cannot be unpacked" in str(why)
    assert "password" in str(why)


def bomb(path: Path, compression: int, says: int) -> Path:
    """A member of 64 MB of zeros, in an archive that says it were less."""
    real = 64 << 20
    zipped(path, [("x.png", bytes(real))], compression)
    content = path.read_bytes().replace(struct.pack("<I", real), struct.pack("<I", says))
    assert len(content) < 1 << 20
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_bomb_that_says_it_were_small_is_not_unpacked(tmp_path: Path, compression: int, monkeypatch: pytest.MonkeyPatch) -> None:
    most = [0]
    begin = zipfile._get_decompressor  # type: ignore[attr-defined]

    class Watched:
        def __init__(self, kind: int) -> None:
            self.inner = begin(kind)

        def decompress(self, *arguments: object) -> bytes:
            data = self.inner.decompress(*arguments)
            most[0] = max(most[0], len(data))
            return data

        def __getattr__(self, name: str) -> object:
            return getattr(self.inner, name)

    path = bomb(tmp_path / "a.zip", compression, says=1000)
    monkeypatch.setattr(zipfile, "_get_decompressor", Watched)
    ((_, why),) = read(path)
    assert isinstance(why, str)
    assert most[0] <= 1 << 20
    expected = "Bad CRC-32" if compression == zipfile.ZIP_DEFLATED else "is packed in a way that is not read here; pack it as ZIP files usually are"
    assert expected in why


def test_what_is_too_large_is_named_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page.sent, "MOST_BYTES", 2 << 20)
    zipped(tmp_path / "a.zip", [("x/large.png", bytes((2 << 20) + 1)), ("just.png", bytes(2 << 20))])
    (tmp_path / "large.png").write_bytes(bytes((2 << 20) + 1))
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("it was read"))
    first, second, third = read(tmp_path / "a.zip", tmp_path / "large.png")
    assert first == ("x/large.png", "x/large.png is larger than 2 MB")
    assert second == ("just.png", bytes(2 << 20))
    assert third == ("large.png", "large.png is larger than 2 MB")


def test_more_pictures_than_are_taken_are_refused_before_one_is_read(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", [*((f"{i}.png", b"") for i in range(MOST_PICTURES)), ("notes.txt", b"")])
    (tmp_path / "one.png").write_bytes(PNG)
    assert len(names(archive)) == MOST_PICTURES
    with pytest.raises(SentError, match=r"more than 500 pictures at once; send fewer, or use: python caption\.py FOLDER"):
        names(archive, tmp_path / "one.png")


def test_names_of_strangers_are_printed_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(b"PK")
    with sent_pictures([(str(path), "a\n\x1b[31m.zip")]) as ((_, content),), pytest.raises(SentError) as error:
        content()
    assert str(error.value).startswith("a\\n\\x1b[31m.zip cannot be unpacked")


def unpacked(path: Path) -> tuple[dict[str, str], list[dict[str, str]]]:
    with zipfile.ZipFile(path) as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist() if name != "prompts.csv"}
        assert len(texts) == len(archive.namelist()) - 1
        return texts, list(csv.DictReader(io.StringIO(archive.read("prompts.csv").decode(), newline="")))


def test_results_are_a_text_for_each_picture_and_a_table(tmp_path: Path) -> None:
    rows = [
        ("a.png", row(Path("a.png"), 'a "cat",\n  on a beach', note="a guess")),
        ("deep/er/b.final.jpg", row(Path("b.jpg"), "two dogs")),
        ("none.gif", row(Path("none.gif"), "")),
    ]
    results_archive(rows, tmp_path / "out.zip")
    texts, table = unpacked(tmp_path / "out.zip")
    assert texts == {"a.txt": 'a "cat", on a beach\n', "deep/er/b.final.txt": "two dogs\n", "none.txt": "\n"}
    assert [line["file"] for line in table] == ["a.png", "deep/er/b.final.jpg", "none.gif"]
    told = {
        "file": "a.png",
        "by": "me",
        "prompt": 'a "cat", on a beach',
        "source": "model",
        "confidence": "0.9",
        "familiarity": "0.5",
        "note": "a guess",
    }
    assert list(table[0]) == list(COLUMNS)  # those of caption.py --csv
    assert {name: value for name, value in table[0].items() if value} == told


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../etc/x.png", "etc/x.txt"),
        ("/etc/x.png", "etc/x.txt"),
        ("a/./b/../x.png", "a/b/x.txt"),
        ("C:\\Users\\me\\x.png", "Users/me/x.txt"),
        ("C:x.png", "x.txt"),
        ("c:..\\x.png", "x.txt"),
        ("\\\\server\\share\\x.png", "server/share/x.txt"),
        ("photo 12:30.png", "photo 12:30.txt"),
        ("a\nb\x00.png", "a_nb_x00.txt"),
        ("\ud800.png", "_ud800.txt"),
        ("\N{FOX FACE}.png", "\N{FOX FACE}.txt"),
        ("..", "picture.txt"),
        ("", "picture.txt"),
    ],
)
def test_texts_lie_inside_the_folder_into_which_they_are_unpacked(tmp_path: Path, name: str, expected: str) -> None:
    results_archive([(name, row(Path("x.png")))], tmp_path / "out.zip")
    texts, table = unpacked(tmp_path / "out.zip")
    assert list(texts) == [expected]
    assert len(table) == 1


def test_texts_of_pictures_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """Also where a system knows no capitals."""
    sent = ["a/x.png", "a/x.jpg", "a/X.png", "x.png", "../a/x.png"]
    results_archive([(name, row(Path("x.png"), name)) for name in sent], tmp_path / "out.zip")
    texts, table = unpacked(tmp_path / "out.zip")
    assert list(texts) == ["a/x.txt", "a/x 2.txt", "a/X 3.txt", "x.txt", "a/x 4.txt"]
    assert [text.strip() for text in texts.values()] == sent == [line["file"] for line in table]
