"""What a frozen encoder makes of every picture, computed once, whatever the number of its captions, and kept on disk."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from core.device import Precision, autocast
from data.errors import DiskFullError, ImageError, PairError
from data.files import explained, replacing, write_text
from data.loading.examples import TRIES, Example, Examples
from data.loading.order import Place
from data.loading.workers import begin_worker
from model.encoder import EncoderError, ImageEncoder

_BATCH = 64


class FeatureExamples(Dataset[Example]):
    """The `Examples` that `compute_features` has seen, with features in the place of images."""

    def __init__(self, stem: Path) -> None:
        self.path = stem.with_suffix(".npy")
        texts = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
        self.tokens: list[list[int]] = texts["tokens"]
        self.rows: list[int] = texts["rows"]
        self.skipped: list[dict[str, int]] = texts["skipped"]
        self._open: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitems__(self, places: Sequence[Place]) -> list[Example]:
        """A batch, asked for by DataLoader. Neighbours of one picture share its features."""
        if self._open is None:  # by each worker for itself
            self._open = np.load(self.path, mmap_mode="r")
        found: list[Example] = []
        for number, place in enumerate(places):
            row = self.rows[place.index]
            if number > 0 and row == self.rows[places[number - 1].index]:
                features = found[-1].image
            else:
                features = torch.from_numpy(self._open[row].astype(np.float32))
            found.append(Example(features, self.tokens[place.index], Counter(self.skipped[place.index])))
        return found


class _Pictures(Dataset[Any]):
    """The pictures of some pairs as the network takes them, or why one cannot be read."""

    def __init__(self, examples: Examples, numbers: Sequence[int]) -> None:
        self.examples, self.numbers = examples, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, row: int) -> torch.Tensor | ImageError | PairError:
        try:
            return self.examples.preprocess.pixels(self.examples.pairs.image(self.numbers[row]))
        except (ImageError, PairError) as error:
            return error


@torch.no_grad()
def compute_features(stem: Path, encoder: ImageEncoder, examples: Examples, device: torch.device, *, precision: Precision, workers: int) -> None:
    """Write `stem`.npy, (pictures, P, width) float16, and `stem`.json, the texts of all pairs and the rows that belong to them; nothing if both are
    there, and whole.

    The encoder computes as in training, in `precision`; float16 holds what comes out.

    Raises:
        DiskFullError: they do not fit onto the disk; nothing is left of them.
        EncoderError: they are no numbers, or too large for float16.
        PairError: a hundred pairs in a row cannot be read; names the last.
    """
    numbers = sorted(set(examples.pictures))
    if _are_whole(stem, len(numbers)):
        return
    loader = DataLoader(_Pictures(examples, numbers), batch_size=_BATCH, collate_fn=list, num_workers=workers, worker_init_fn=begin_worker)
    encoder = encoder.to(device).eval()
    unread: dict[int, ImageError | PairError] = {}  # by the picture's number
    path, done = stem.with_suffix(".npy"), 0
    with replacing(path) as temporary, open(temporary, "wb") as file:
        for batch in tqdm(loader, "computing image features", unit="batch"):
            readable = [place for place, pixels in enumerate(batch) if isinstance(pixels, torch.Tensor)]
            unread |= {numbers[done + place]: pixels for place, pixels in enumerate(batch) if not isinstance(pixels, torch.Tensor)}
            if readable:
                with autocast(device, precision):
                    images = examples.preprocess.normalise(torch.stack([batch[place] for place in readable]).to(device))
                    features = encoder.features(images).to(torch.float16).cpu().numpy()
                if not np.isfinite(features).all():
                    raise EncoderError("what the encoder makes of a picture is too large for 16 bits, or no number: leave --reuse-features out")
                if file.tell() == 0:
                    shape = (len(numbers), *features.shape[1:])
                    _check_room(path, math.prod(shape) * features.itemsize)
                    header = {"descr": np.lib.format.dtype_to_descr(features.dtype), "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(file, header)
                    beginning = file.tell()
                # an unreadable picture keeps its row; written as a file, since a full disk kills a process that writes into mapped memory
                for place, row in zip(readable, features, strict=True):
                    file.seek(beginning + (done + place) * row.nbytes)
                    file.write(row.tobytes())
            done += len(batch)
        if file.tell() > 0:
            file.truncate(beginning + len(numbers) * row.nbytes)
    texts = [_text(examples, number, unread) for number in range(len(examples.pairs))]
    rows = {number: row for row, number in enumerate(numbers)}
    content = {
        "tokens": [tokens for tokens, _, _ in texts],
        "rows": [rows[examples.pictures[number]] for _, number, _ in texts],
        "skipped": [skipped for _, _, skipped in texts],
    }
    try:
        write_text(stem.with_suffix(".json"), json.dumps(content))
    except OSError as error:
        path.unlink(missing_ok=True)
        raise explained(error, stem.with_suffix(".json")) from error


def _are_whole(stem: Path, pictures: int) -> bool:
    """The texts are written last. In older runs, where each pair had features of its own, they said nothing of rows."""
    try:
        texts = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
        return "rows" in texts and len(np.load(stem.with_suffix(".npy"), mmap_mode="r")) == pictures
    except (OSError, ValueError):  # one of them is gone, or cut
        return False


def _check_room(path: Path, wanted: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if wanted > free:
        raise DiskFullError(
            f"the image features take {wanted / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free where {path.parent} lies: name another --out, or leave "
            "--reuse-features out"
        )


def _text(examples: Examples, index: int, unread: dict[int, ImageError | PairError]) -> tuple[list[int], int, dict[str, int]]:
    """The tokens of a pair, or of the next that can be read, as `Examples` reads them; that pair's number, and what was skipped."""
    skipped: dict[str, int] = {}
    for offset in range(TRIES):
        number = (index + offset) % len(examples.pairs)
        try:
            prompt = examples.readable_prompt(number)
            if (error := unread.get(examples.pictures[number])) is not None:
                raise error
            return examples.text(prompt), number, skipped
        except (ImageError, PairError) as found:
            last = found
            if not skipped:
                skipped[found.kind] = 1
    raise PairError(f"{TRIES} pairs in a row could not be read; the last: {last}", last.kind)
