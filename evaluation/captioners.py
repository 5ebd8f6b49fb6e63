"""What writes texts for pictures, and having all pictures captioned: timed, kept as it goes, shared among processes."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil
import torch
from PIL import Image

from data.files import explained
from data.sources.held_out import HeldOutPictures
from evaluation.processes import Processes

_LOOK_EVERY = 0.02  # seconds between two looks at the memory


@dataclass(frozen=True)
class Caption:
    """A text and, from a captioner that says so, how likely it is right, 0 to 1."""

    text: str
    confidence: float | None = None


@dataclass(frozen=True, kw_only=True)
class About:
    """What a captioner is, for the report, and so that what it wrote before is known again.

    Attributes:
        source: the directory or id it was loaded from.
        fingerprint: changes when it would write other texts.
        precision: of its network's numbers.
        parameters: of its network.
        settings: how it searches.
        blind: it writes without looking, and no picture is read for it.
        batch_size: how many pictures it takes at a time where that is not the comparison's choice.
        cost: dollars that the captions so far have cost.
    """

    source: str = ""
    fingerprint: str = ""
    precision: str = ""
    parameters: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    blind: bool = False
    batch_size: int | None = None
    cost: float = 0.0


class Captioner(Protocol):
    """Anything that writes a text for each image."""

    @property
    def about(self) -> About: ...

    def caption(self, images: Sequence[Image.Image]) -> list[Caption]: ...


class CaptionerError(RuntimeError):
    """A captioner that cannot be built, or whose answers are of no use; says what to do."""


@dataclass(frozen=True)
class Captioned:
    """All captions, in the pictures' order, and what they took.

    Attributes:
        seconds: of each batch, reading the pictures not counted; with its size.
        memory: bytes that the process grew by at most while captioning; on a GPU what was allocated there at most. None where
            an earlier comparison had written all.
        kept: how many had been written by an earlier, interrupted comparison.
    """

    captions: Sequence[Caption]
    seconds: Sequence[tuple[int, float]]
    memory: int | None
    kept: int = 0

    @property
    def texts(self) -> list[str]:
        return [caption.text for caption in self.captions]

    @property
    def images_per_second(self) -> float:
        """The first batch, in which caches are filled and code is loaded, counts where there is no other."""
        timed = self.seconds[1:] or self.seconds
        return sum(size for size, _ in timed) / max(sum(seconds for _, seconds in timed), 1e-9)

    def latency(self, share: float) -> float:
        """Seconds that a picture takes in its batch: at most so many in this share of the pictures."""
        each = sorted((seconds / size, size) for size, seconds in self.seconds)
        wanted, passed = share * sum(size for _, size in each), 0
        for seconds, size in each:
            passed += size
            if passed >= wanted:
                return seconds
        return each[-1][0]


def caption_all(
    captioner: Captioner,
    pictures: HeldOutPictures,
    *,
    batch_size: int,
    progress: Callable[[int], Any],
    keep: Path | None = None,
    processes: Processes | None = None,
) -> Captioned:
    """Caption the pictures in batches, the same ones whatever the number of processes, each of which takes every n-th.

    Args:
        keep: a directory in which every batch is kept as soon as it is written; what is there of the same captioner on the same pictures is not
            captioned again.

    Raises:
        CaptionerError: another number of texts than of pictures, no text, or a confidence that is no probability.
        DiskFullError: a batch cannot be kept.
    """
    processes = processes or Processes()
    size = captioner.about.batch_size or batch_size
    starts = list(range(0, len(pictures), size))
    identity = _identity(captioner, pictures, size)
    # as the first process finds it, before any of them writes
    done = processes.gather(_read_kept(keep, identity) if keep is not None and processes.index == 0 else {})[0]
    before = sum(len(captions) for captions, _ in done.values())
    progress(before if processes.index == 0 else 0)
    mine: dict[int, tuple[list[Caption], float]] = {}
    own_share = [first for first in starts if first not in done][processes.index :: processes.count]
    failure: Exception | None = None
    peak = [0]
    try:
        with _peak_memory() as peak, _keeping(keep, identity, processes.index) as kept:
            for first in own_share:
                number = min(size, len(pictures) - first)
                images = [Image.new("RGB", (1, 1))] * number if captioner.about.blind else pictures.images(first, number)
                start = time.perf_counter()
                captions = _checked(captioner.caption(images), number)
                seconds = time.perf_counter() - start
                mine[first] = captions, seconds
                kept(first, captions, seconds)
                progress(number)
    except Exception as error:  # the other processes wait to be told
        failure = error
    said = processes.gather("" if failure is None else f"{type(failure).__name__}: {failure}")
    if failure is not None:
        raise failure
    if any(said):
        raise CaptionerError(next(text for text in said if text))
    every = done | {first: found for share in processes.gather(mine) for first, found in share.items()}
    captions = [caption for first in starts for caption in every[first][0]]
    timed = [(len(every[first][0]), every[first][1]) for first in starts]
    grown = max(processes.gather(peak[0]))
    return Captioned(captions, timed, grown if before < len(captions) else None, before)


def _checked(captions: Any, number: int) -> list[Caption]:
    if not isinstance(captions, list) or len(captions) != number or not all(isinstance(caption, Caption) for caption in captions):
        count = len(captions) if isinstance(captions, list) else type(captions).__name__
        raise CaptionerError(f"it gave {count} captions for {number} pictures")
    for caption in captions:
        if not isinstance(caption.text, str):
            raise CaptionerError(f"it gave {caption.text!r} for a text")
        if caption.confidence is not None and not 0 <= caption.confidence <= 1:  # nan is neither
            raise CaptionerError(f"it gave a confidence of {caption.confidence}, which is no probability")
    return captions


def _identity(captioner: Captioner, pictures: HeldOutPictures, size: int) -> str:
    about = captioner.about
    known = {
        "captioner": about.fingerprint,
        "settings": dict(about.settings),
        "precision": about.precision,
        "pictures": pictures.fingerprint(),
        "batch": size,
    }
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]


@contextmanager
def _keeping(keep: Path | None, identity: str, process: int) -> Iterator[Callable[[int, Sequence[Caption], float], None]]:
    if keep is None:
        yield lambda first, captions, seconds: None
        return
    keep.mkdir(parents=True, exist_ok=True)
    path = keep / f"{process}.jsonl"
    with open(path, "ab", buffering=0) as file:  # whose closing has nothing left to write, and so cannot fail in another way

        def add(line: str) -> None:
            left = line.encode()
            try:
                while left:  # a disk that is nearly full takes a part
                    left = left[file.write(left) :]
            except OSError as error:
                raise explained(error, path) from error

        def write(first: int, captions: Sequence[Caption], seconds: float) -> None:
            texts = [[caption.text, caption.confidence] for caption in captions]
            add(json.dumps({"of": identity, "first": first, "captions": texts, "seconds": seconds}) + "\n")

        add("\n")  # a line that was cut before ends here
        yield write


def _read_kept(keep: Path, identity: str) -> dict[int, tuple[list[Caption], float]]:
    """Batches by their first picture; lines of others, cut ones, and files that cannot be read are passed over."""
    found: dict[int, tuple[list[Caption], float]] = {}
    for path in sorted(keep.glob("*.jsonl")):
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        for line in lines:
            try:
                row = json.loads(line)
                if row["of"] == identity:
                    found[int(row["first"])] = [Caption(str(text), confidence) for text, confidence in row["captions"]], float(row["seconds"])
            except (ValueError, KeyError, TypeError):
                continue
    return found


@contextmanager
def _peak_memory() -> Iterator[list[int]]:
    """Fills a list's one number with the most bytes that this process grew by inside the block."""
    peak = [0]
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        yield peak
        peak[0] = int(torch.cuda.max_memory_allocated())
        return
    process, over = psutil.Process(), threading.Event()
    begun = process.memory_info().rss

    def look() -> None:
        while not over.wait(_LOOK_EVERY):
            peak[0] = max(peak[0], process.memory_info().rss - begun)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def file_name(name: str) -> str:
    """A captioner's name where files are named."""
    return "".join(sign if sign.isalnum() or sign in "-_." else "_" for sign in name)
