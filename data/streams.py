"""Pairs read as they come, for data that is not on this machine or too large for it: shard by shard, in an order that (seed, epoch) decides, so
that a run goes on exactly where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import random
import tarfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any, Protocol

import fsspec
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from data.examples import Batch, Collate, Example, TextFormat
from data.images import AugmentedPreprocess, ImageError, Preprocess, read_image
from data.pairs import PROMPT_NAMES, Pair, PairError, prompt_of
from data.shards import IMAGE_SUFFIXES, TEXT_SUFFIXES, ShardError
from data.sources import expand, image_bytes, image_column, load_hub, prompt_columns
from data.splits import Split, prompt_group, split_of

BLOCK = 2000  # pairs that are shuffled together, held as they are on disk
_ATTEMPTS = 4  # to read a shard over a network


@dataclass(frozen=True)
class RawPair:
    """A pair as it is stored; `image` is encoded, `prompt` None where there is none."""

    key: str
    image: Any
    prompt: str | None
    metadata: dict[str, Any]

    def read(self) -> Pair:
        """
        Raises:
            ImageError, PairError: it cannot be used.
        """
        if self.prompt is None or not self.prompt.strip():
            raise PairError(f"{self.key}: no prompt", "no prompt" if self.prompt is None else "empty prompt")
        return Pair(self.key, read_image(self.image, name=self.key), self.prompt, self.metadata)


class Shards(Protocol):
    """Where a stream comes from: numbered parts, each read from its beginning."""

    def __len__(self) -> int: ...

    def read(self, shard: int) -> Iterator[RawPair]:
        """
        Raises:
            PairError: after what could be read, where a part cannot be read to its end.
        """
        ...

    def fingerprint(self) -> str: ...


def open_stream(source: str, *, image_name: str | None = None, prompt_name: str | None = None) -> Shards:
    """
    Args:
        source: tars as `open_pairs` takes them, or their URLs, "https://host/{00000..00099}.tar" or "s3://bucket/00000.tar" (whatever fsspec opens);
            or the id of a data set on the Hub.

    Raises:
        ShardError: nothing there.
    """
    prompt_names = (prompt_name,) if prompt_name else PROMPT_NAMES
    directory = Path(source).is_dir()
    if files := expand(f"{source}/**/*.tar" if directory else source):
        return TarShards(files, prompt_names)
    if directory or source.count("/") != 1:
        raise ShardError(f"there is no .tar in {source}; --stream reads tars, here or at URLs, and data sets of the Hub")
    return HubShards(source, image_name, prompt_names)


class TarShards:
    """WebDataset tars at paths or URLs."""

    def __init__(self, urls: Sequence[str], prompt_names: Sequence[str] = PROMPT_NAMES) -> None:
        self.urls = list(urls)
        self.prompt_names = prompt_names

    def __len__(self) -> int:
        return len(self.urls)

    def fingerprint(self) -> str:
        return hashlib.sha256("\n".join(self.urls).encode()).hexdigest()[:16]

    def read(self, shard: int) -> Iterator[RawPair]:
        url, given = self.urls[shard], 0
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                for pair in islice(self._pairs(url), given, None):
                    given += 1
                    yield pair
                return
            except tarfile.TarError as error:
                raise PairError(f"{url} is cut short or damaged ({error})", "cut archive") from error
            except (OSError, EOFError) as error:  # fsspec's and aiohttp's errors of the network are OSErrors
                if attempt == _ATTEMPTS or "://" not in url or isinstance(error, FileNotFoundError):
                    raise PairError(f"{url} cannot be read ({error})", "unreachable archive") from error
                time.sleep(2**attempt)
            except ImportError as error:
                raise ShardError(f"{url} needs a library that is not installed: {error}") from error

    def _pairs(self, url: str) -> Iterator[RawPair]:
        with fsspec.open(url, "rb", compression="infer") as file, tarfile.open(fileobj=file, mode="r|") as tar:
            key, files = None, dict[str, bytes]()
            for member in tar:
                if not member.isfile():
                    continue
                name, suffix = os.path.splitext(member.name)
                if name != key:
                    yield from self._pair(key, files)
                    key, files = name, {}
                content = tar.extractfile(member)
                files[suffix.lower()] = content.read() if content is not None else b""
            yield from self._pair(key, files)

    def _pair(self, key: str | None, files: dict[str, bytes]) -> Iterator[RawPair]:
        image = next((files[suffix] for suffix in IMAGE_SUFFIXES if suffix in files), None)
        if key is None or image is None:
            return
        metadata: dict[str, Any] = {}
        with suppress(ValueError):
            content = json.loads(files.get(".json", b"{}"))
            metadata = content if isinstance(content, dict) else {}
        text = next((files[suffix] for suffix in TEXT_SUFFIXES if suffix in files), None)
        if text is not None:
            prompt: str | None = text.decode("utf-8", "replace")
        else:
            prompt = next((metadata[name] for name in self.prompt_names if isinstance(metadata.get(name), str)), None)
        yield RawPair(key, image, prompt, metadata)


class HubShards:
    """The files of a data set on the Hub, streamed by `datasets`."""

    def __init__(self, name: str, image_name: str | None, prompt_names: Sequence[str]) -> None:
        import datasets

        loaded = load_hub(name, streaming=True)
        rows = loaded["train"] if "train" in loaded else loaded[next(iter(loaded))]
        if rows.features is None:
            rows = rows._resolve_features()
        self.name = name
        self.image_name = image_column(name, rows.features, image_name)
        self.prompt_names = prompt_columns(name, rows.features, prompt_names)
        self.rows = rows.cast_column(self.image_name, datasets.Image(decode=False))

    def __len__(self) -> int:
        return int(self.rows.num_shards)

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.name} {len(self)} {sorted(self.rows.features)}".encode()).hexdigest()[:16]

    def read(self, shard: int) -> Iterator[RawPair]:
        try:
            for number, row in enumerate(self.rows.shard(len(self), shard)):
                label = f"{self.name} {shard}:{number}"
                image, prompt = row.pop(self.image_name), None
                with suppress(PairError):
                    prompt = prompt_of(row, self.prompt_names, label)
                try:
                    yield RawPair(label, image_bytes(image, label), prompt, row)
                except PairError:
                    yield RawPair(label, b"", prompt, row)
        except OSError as error:
            raise PairError(f"{self.name}: shard {shard} cannot be read ({error})", "unreachable archive") from error


@dataclass(frozen=True)
class Position:
    """How far a part of a stream has come: `pairs` of the `shard`-th of its shards in this epoch have been read."""

    epoch: int = 0
    shard: int = 0
    pairs: int = 0


@dataclass(frozen=True)
class StreamState:
    """Where all parts of one process' stream are (a part for each of its workers), and whose turn it is."""

    positions: tuple[Position, ...]
    batches: int = 0

    @property
    def turn(self) -> int:
        return self.batches % len(self.positions)


class StreamedExamples(IterableDataset[Example]):
    """The training pairs of a stream, without end. Each worker of each process reads shards of its own; where there are fewer shards than
    workers, each reads all and takes every n-th pair."""

    def __init__(
        self,
        shards: Shards,
        preprocess: Preprocess,
        text: TextFormat,
        state: StreamState,
        *,
        augment: AugmentedPreprocess | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.shards = shards
        self.preprocess = preprocess
        self.text = text
        self.state = state
        self.augment = augment
        self.seed = seed
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[Example]:
        worker = get_worker_info()
        parts = len(self.state.positions)
        part = ((worker.id if worker is not None else 0) + self.state.turn) % parts  # the first worker gives the next batch
        number, total = self.rank * parts + part, self.world_size * parts
        start = self.state.positions[part]
        skipped: Counter[str] = Counter()
        for epoch in count(start.epoch):
            order = list(range(len(self.shards)))
            random.Random(f"{self.seed}:{epoch}").shuffle(order)
            divide = len(order) < total
            own = order if divide else order[number::total]
            fruitful = start != Position(epoch)
            for shard, index in enumerate(own[start.shard :], start.shard):
                for place, raw in enumerate(self._shuffled(index, epoch)):
                    if place < start.pairs or (divide and place % total != number):
                        continue
                    try:
                        if isinstance(raw, PairError):
                            raise raw
                        if raw.prompt is not None and split_of(prompt_group(raw.prompt)) != "train":
                            continue
                        pair = raw.read()
                    except (ImageError, PairError) as error:
                        skipped[error.kind] += 1
                        continue
                    draw = random.Random(f"{self.seed}:{epoch}:{index}:{place}")
                    image = self.preprocess.pixels(pair.image) if self.augment is None else self.augment(pair.image, draw)
                    yield Example(image, self.text(pair.prompt), skipped, (part, Position(epoch, shard, place + 1)))
                    skipped, fruitful = Counter(), True
                start = Position(epoch)
            if not fruitful:
                return  # a whole epoch without one pair of ours
            start = Position(epoch + 1)

    def _shuffled(self, index: int, epoch: int) -> Iterator[RawPair | PairError]:
        """A shard's pairs, block by block in another order; the failure to read on, if there is one, at the end."""
        pairs = self.shards.read(index)
        for number in count():
            block: list[RawPair | PairError] = []
            try:
                for pair in islice(pairs, BLOCK):
                    block.append(pair)  # not extend: what came before a failure counts
            except PairError as error:
                block.append(error)
            if not block:
                return
            random.Random(f"{self.seed}:{epoch}:{index}:{number}").shuffle(block)
            yield from block


class StreamLoader:
    """Batches of a stream without end; `state_dict` says where it stands after the last one given, wherever the workers are ahead."""

    def __init__(self, examples: StreamedExamples, batch_size: int, collate: Collate, **options: Any) -> None:
        self.examples = examples
        self.options: dict[str, Any] = {"batch_size": batch_size, "collate_fn": collate, "drop_last": True} | options

    def __iter__(self) -> Iterator[Batch]:
        """
        Raises:
            ShardError: the stream has too few readable pairs for a batch.
        """
        for batch in DataLoader(self.examples, **self.options):
            part, position = batch.after
            state = self.examples.state
            positions = (*state.positions[:part], position, *state.positions[part + 1 :])
            self.examples.state = StreamState(positions, state.batches + 1)
            yield batch
        raise ShardError("the stream has not one readable training pair for each of its readers; use fewer --workers, or more data")

    def state_dict(self) -> dict[str, Any]:
        return asdict(self.examples.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.examples.state = StreamState(tuple(Position(**position) for position in state["positions"]), state["batches"])


def training_prompts(shards: Shards, number: int) -> Iterator[str]:
    """The first prompts of the training split."""
    found = 0
    for shard in range(len(shards)):
        with suppress(PairError):
            for raw in shards.read(shard):
                if raw.prompt is not None and split_of(prompt_group(raw.prompt)) == "train":
                    yield raw.prompt
                    found += 1
                if found == number:
                    return


def held_out(shards: Shards, split: Split, number: int) -> list[Pair]:
    """The first readable pairs of a split, in the order they are stored in.

    Raises:
        ShardError: there is none.
    """
    found: list[Pair] = []
    for shard in range(len(shards)):
        with suppress(PairError):
            for raw in shards.read(shard):
                if raw.prompt is not None and split_of(prompt_group(raw.prompt)) == split:
                    with suppress(ImageError, PairError):
                        found.append(raw.read())
                if len(found) == number:
                    return found
    if not found:
        raise ShardError(f"no pair of the stream falls into the {split} split (5 % of the prompts do into each of val and test); use more")
    return found
