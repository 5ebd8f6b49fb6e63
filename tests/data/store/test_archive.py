import gzip
import io
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from archives import encoded, write_tar

from data.errors import PairError
from data.sources.streams import RawPair, TarShards
from data.sources.tars import TarPairs
from data.store import archive
from data.store.archive import PairParts, index_archive, stream_archive


def both(path: Path, prompt_name: str | None = None) -> list[tuple[str, str]]:
    """(key, prompt or kind of failure) by place, which must be what a stream gives."""
    numbered, streamed = TarPairs([path], prompt_name), list(TarShards([str(path)], prompt_name).read(0))

    def by_place(index: int) -> str:
        try:
            return numbered.prompt(index)
        except PairError as error:
            return error.kind

    def of_stream(one: RawPair) -> str:
        return one.prompt if isinstance(one.prompt, str) else one.prompt.kind

    found = [(numbered.locations[index].key, by_place(index)) for index in range(len(numbered))]
    assert found == [(one.key, of_stream(one)) for one in streamed if isinstance(one, RawPair)]
    assert sum(numbered.skipped.values()) == sum(isinstance(one, PairError) for one in streamed)
    return found


def test_a_pair_is_the_same_by_place_and_in_a_stream(tmp_path: Path) -> None:
    image, files = encoded(), dict[str, bytes]()
    texts = {"bom": "\ufeffa cat\r\n".encode(), "latin": "à la côte".encode("cp1252"), "utf16": "a fox".encode("utf-16"), "bad": b"\xe9\xe8\xe9 \x81"}
    for key, text in texts.items():
        files |= {f"{key}.png": image, f"{key}.txt": text, f"{key}.json": b'{"words": ["from json", "second"]}'}
    files |= {"upper.PNG": image, "upper.TXT": b"upper case", "caption.jpg": image, "caption.caption": b"a caption"}
    files |= {
        "json.png": image,
        "json.json": b'{"text": "of the json"}',
        "none.png": image,
        "none.json": b"{}",
        "broken.png": image,
        "broken.json": b"{",
    }
    files |= {"._bom.png": b"macOS", "._bom.txt": b"macOS", "__MACOSX/x.png": image, "__MACOSX/x.txt": b"x", ".hidden/x.png": image}
    files |= {"alone.png": image, "text.txt": b"without an image", "noise.bin": b"x" * 1000}
    path = write_tar(tmp_path / "0.tar", files)
    assert both(path) == [
        ("bom", "a cat"), ("latin", "à la côte"), ("utf16", "a fox"), ("bad", "damaged prompt"), ("upper", "upper case"), ("caption", "a caption"),
        ("json", "of the json"), ("none", "no prompt"), ("broken", "damaged metadata"),
    ]  # fmt: skip
    assert both(path, "words")[:4] == [(key, "from json") for key in texts]  # what is asked for, and not the text file
    assert index_archive(path).alone == {"no prompt": 1, "missing image": 1}


def test_what_nobody_needs_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "LARGEST", 10_000)
    path = write_tar(tmp_path / "0.tar", {"a.bin": bytes(200_000), "1.png": encoded(), "1.txt": b"one", "2.png": bytes(20_000), "2.txt": b"two"})
    packed = tmp_path / "0.tar.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with open(packed, "rb") as file:
        found = list(stream_archive(file))
    assert [one.key for one in found if isinstance(one, PairParts)] == ["1"]
    assert [one.kind for one in found if isinstance(one, PairError)] == ["huge file"]
    with pytest.raises(PairError) as error:
        TarPairs([path]).image(1)
    assert error.value.kind == "huge file"


@pytest.mark.slow
def test_a_bomb_in_a_stream_takes_no_memory(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.tar.gz"
    with tarfile.open(bomb, "w:gz") as tar:
        for name, size in (("bomb.png", 200 << 20), ("bomb.txt", 5)):
            member = tarfile.TarInfo(name)
            member.size = size
            tar.addfile(member, _Zeros(size))
    assert bomb.stat().st_size < 2_000_000
    tracemalloc.start()
    try:
        with open(bomb, "rb") as file:
            assert [type(one) for one in stream_archive(file)] == [PairError]
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


class _Zeros(io.RawIOBase):
    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, size: int = -1) -> bytes:
        size = min(self.left, size) if size >= 0 else self.left
        self.left -= size
        return bytes(size)
