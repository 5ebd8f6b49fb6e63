"""Features on disk: those of every picture once, and the pairs as `Examples` would have read them."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from examples import tiny_config
from listed import ListedPairs
from PIL import Image
from torch import Tensor

from core.device import compute_precision
from data.errors import DiskFullError, ImageError, PairError
from data.loading.examples import Examples, TextFormat
from data.loading.order import Place
from data.sources.pictures import picture_numbers
from data.store.pairs import Pair
from model.encoder import EncoderError, ImageEncoder
from training.features import FeatureExamples, compute_features

CPU = torch.device("cpu")


class Broken(ListedPairs):
    """Of which some pictures and captions cannot be read."""

    def image(self, index: int) -> Image.Image:
        if self.pairs[index].image.width == 5:
            raise ImageError(f"{index}: broken")
        return self.pairs[index].image

    def prompt(self, index: int) -> str:
        if self.pairs[index].prompt == "?":
            raise PairError(f"{index}: none", "no prompt")
        return self.pairs[index].prompt


def pictures(*captions: list[str], broken: tuple[int, ...] = ()) -> Broken:
    noise = [Image.fromarray(np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)) for number in range(len(captions))]
    noise = [image.resize((5, 5)) if number in broken else image for number, image in enumerate(noise)]
    return Broken([Pair(f"{number}-{i}", noise[number], text, {}) for number, some in enumerate(captions) for i, text in enumerate(some)])


@pytest.fixture(scope="module")
def encoder() -> ImageEncoder:
    torch.manual_seed(0)
    config = tiny_config()
    return ImageEncoder(config.encoder, config.preprocessing, config.width).eval()


def examples_of(pairs: ListedPairs) -> Examples:
    form = TextFormat(lambda text: [3 + ord(letter) % 16 for letter in text], bos_id=1, eos_id=2, pad_id=0, max_tokens=8)
    return Examples(pairs, tiny_config().preprocessing, form, pictures=picture_numbers(pairs))


def write(stem: Path, encoder: ImageEncoder, examples: Examples) -> FeatureExamples:
    compute_features(stem, encoder, examples, CPU, precision=compute_precision(CPU, "fp32"), workers=0)
    return FeatureExamples(stem)


def test_every_picture_is_computed_once_and_every_pair_is_as_it_was(tmp_path: Path, encoder: ImageEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among them captions and pictures that cannot be read: the next pair stands in their place, and they are counted."""
    pairs = pictures(["a", "b", "c"], ["d"], ["e", "?"], ["f", "g"], [" ", "h"], ["i"] * 40, broken=(1, 3))
    examples, seen = examples_of(pairs), list[int]()
    features = encoder.features
    with monkeypatch.context() as patch:
        patch.setattr("training.features._BATCH", 2)
        patch.setattr(encoder, "features", lambda pixels: seen.append(len(pixels)) or features(pixels))
        found = write(tmp_path / "features", encoder, examples)
    assert sum(seen) == 4  # of six pictures two cannot be read
    assert np.load(tmp_path / "features.npy").shape[0] == 6
    assert len(found) == len(pairs) == 50
    for index in range(len(pairs)):
        (was,), (now,) = examples.__getitems__([Place(index, index)]), found.__getitems__([Place(index, index)])
        assert now.tokens == was.tokens
        assert now.skipped == was.skipped
        with torch.no_grad():
            expected = encoder.features(examples.preprocess.normalise(was.image[None]))[0]
        torch.testing.assert_close(now.image, expected, atol=5e-3, rtol=5e-3)
    shared = found.__getitems__([Place(0, 0), Place(2, 1), Place(1, 2), Place(20, 3)])
    assert shared[0].image is shared[1].image is shared[2].image
    assert shared[3].image is not shared[2].image


def test_features_of_an_older_run_are_computed_anew(tmp_path: Path, encoder: ImageEncoder) -> None:
    """They were one for each pair, and their texts said nothing of rows."""
    examples = examples_of(pictures(["a", "b"], ["c"]))
    (tmp_path / "features.json").write_text('{"tokens": [[1]], "skipped": [{}]}')
    (tmp_path / "features.npy").write_bytes(b"older")
    found = write(tmp_path / "features", encoder, examples)
    assert found.rows == [0, 0, 1]
    assert len(np.load(tmp_path / "features.npy")) == 2


@pytest.mark.parametrize("harm", ["no features", "cut features", "fewer features", "cut texts"])
def test_features_that_are_not_whole_are_computed_anew(tmp_path: Path, encoder: ImageEncoder, harm: str) -> None:
    examples = examples_of(pictures(["a", "b"], ["c"]))
    write(tmp_path / "features", encoder, examples)
    features, texts = tmp_path / "features.npy", tmp_path / "features.json"
    right = np.load(features)
    if harm == "no features":
        features.unlink()
    elif harm == "cut features":
        features.write_bytes(features.read_bytes()[:-10])
    elif harm == "fewer features":
        np.save(features, right[:1])
    else:
        texts.write_text(texts.read_text()[:-5])
    found = write(tmp_path / "features", encoder, examples)
    assert found.rows == [0, 0, 1]
    assert np.array_equal(np.load(features), right)


def test_whole_features_are_computed_once(tmp_path: Path, encoder: ImageEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = examples_of(pictures(["a", "b"], ["c"], broken=(1,)))  # the last picture, whose row stays empty
    write(tmp_path / "features", encoder, examples)
    monkeypatch.setattr(encoder, "features", lambda _: pytest.fail("computed again"))
    assert write(tmp_path / "features", encoder, examples).rows == [0, 0, 0]
    assert len(np.load(tmp_path / "features.npy")) == 2


class IgnoringSignals(ListedPairs):
    """Pictures that cannot be read by a worker that Ctrl-C would end."""

    def image(self, index: int) -> Image.Image:
        if {signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)} != {signal.SIG_IGN}:
            raise ImageError("a worker that listens to signals")
        return super().image(index)


def test_the_main_process_decides_when_workers_end(tmp_path: Path, encoder: ImageEncoder) -> None:
    examples = examples_of(IgnoringSignals(pictures(["a"], ["b"]).pairs))
    compute_features(tmp_path / "features", encoder, examples, CPU, precision=compute_precision(CPU, "fp32"), workers=1)
    assert FeatureExamples(tmp_path / "features").rows == [0, 1]


def test_features_that_are_too_large_for_16_bits_are_named(tmp_path: Path, encoder: ImageEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    features = encoder.features
    monkeypatch.setattr(encoder, "features", lambda pixels: features(pixels) * 1e6)
    with pytest.raises(EncoderError, match="too large for 16 bits, or no number: leave --reuse-features out"):
        write(tmp_path / "features", encoder, examples_of(pictures(["a"])))
    assert not list(tmp_path.iterdir())


def test_pictures_none_of_which_can_be_read_are_an_error(tmp_path: Path, encoder: ImageEncoder) -> None:
    with pytest.raises(PairError, match="100 pairs in a row could not be read; the last: 1: broken"):
        write(tmp_path / "features", encoder, examples_of(pictures(["a"], ["b"], broken=(0, 1))))


def full_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_disk_without_room_is_named_before_and_when_it_fills(tmp_path: Path, encoder: ImageEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = examples_of(pictures(*(["a"] for _ in range(3))))
    one_picture = encoder.num_image_tokens * encoder.projection[0].in_features * 2
    monkeypatch.setattr("training.features._BATCH", 1)
    with monkeypatch.context() as patch:
        for free in (100, one_picture, 3 * one_picture - 1):  # all are counted before the first batch is written
            patch.setattr(shutil, "disk_usage", lambda _, free=free: shutil._ntuple_diskusage(10**9, 10**9, free))
            with pytest.raises(DiskFullError, match=r"take 0\.00 GB, and 0\.00 GB are free where .*: name another --out"):
                write(tmp_path / "features", encoder, examples)
            assert not list(tmp_path.iterdir())
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 3 * one_picture))
        write(tmp_path / "features", encoder, examples)
        for file in tmp_path.iterdir():
            file.unlink()
    with monkeypatch.context() as patch:
        patch.setattr("training.features.write_text", full_disk)
        with pytest.raises(DiskFullError, match="the disk is full"):
            write(tmp_path / "features", encoder, examples)
    assert not list(tmp_path.iterdir())  # features without texts would be of no use

    class Full:
        """A file on a disk that fills."""

        def __init__(self, file: object) -> None:
            self.file = file

        def __getattr__(self, name: str) -> Callable[..., object]:
            return getattr(self.file, name)  # type: ignore[no-any-return]

        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()  # type: ignore[attr-defined]

        def write(self, content: bytes) -> int:
            if self.file.tell() > 200:  # type: ignore[attr-defined]
                raise OSError(28, "No space left on device")
            return self.file.write(content)  # type: ignore[attr-defined, no-any-return]

    def opened(path: Path, mode: str = "r", *rest: Any, real: Any = open, **more: Any) -> Any:
        return Full(real(path, mode)) if mode == "wb" else real(path, mode, *rest, **more)

    monkeypatch.setattr("builtins.open", opened)
    with pytest.raises(DiskFullError, match="the disk is full"):
        write(tmp_path / "features", encoder, examples)
    monkeypatch.undo()
    assert not list(tmp_path.iterdir())
    write(tmp_path / "features", encoder, examples)


def test_they_are_computed_in_halves_as_in_training(tmp_path: Path, encoder: ImageEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds: list[bool] = []
    features = ImageEncoder.features

    def watched(self: ImageEncoder, pixels: Tensor) -> Tensor:
        kinds.append(torch.is_autocast_enabled("cpu"))
        return features(self, pixels)

    monkeypatch.setattr(ImageEncoder, "features", watched)
    examples = examples_of(pictures(["a"]))
    for name in ("fp32", "bf16"):
        compute_features(tmp_path / name, encoder, examples, CPU, precision=compute_precision(CPU, name), workers=0)
    assert kinds == [False, True]
