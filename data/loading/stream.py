"""Pairs read as they come, for data that is not on this machine or too large for it: shard by shard, in an order that (seed, epoch) decides, so
that a run goes on exactly where it stopped."""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import count, islice
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from data.errors import ImageError, PairError, ShardError
from data.loading.augmentation import RandomCrop
from data.loading.examples import Batch, Collate, Example, PictureFormat, TextFormat
from data.loading.workers import batches_of
from data.sources.streams import RawPair, Shards, StoredPairs
from data.splits import Split

BLOCK = 2000  # pairs that are shuffled together, held as they are on disk
BLOCK_BYTES = 256 << 20  # and no more bytes of them than that
_SPREAD = 16  # shards that a few pairs are taken from


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
        preprocess: PictureFormat,
        text: TextFormat,
        state: StreamState,
        *,
        augment: RandomCrop | None = None,
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
        for number, block in enumerate(_blocks(self.shards.read(index))):
            random.Random(f"{self.seed}:{epoch}:{index}:{number}").shuffle(block)
            yield from block


def _blocks(pairs: Iterator[RawPair | PairError]) -> Iterator[list[RawPair | PairError]]:
    """Few enough pairs to be held; what came before a failure counts."""
    block: list[RawPair | PairError] = []
    size = 0
    while True:
        try:
            found = next(pairs, None)
        except PairError as error:
            found = error  # after which the iterator is at its end
        if found is not None:
            block.append(found)
            size += found.size if isinstance(found, RawPair) else 0
        if block and (found is None or len(block) >= BLOCK or size >= BLOCK_BYTES):
            yield block
            block, size = [], 0
        if found is None:
            return


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
        for batch in batches_of(DataLoader(self.examples, **self.options)):
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


def spread(shards: Shards, number: int) -> Iterator[RawPair]:
    """The pairs that have a prompt, so that the first `number` of them come from all over the shards: in the order of a hash of the shards' numbers
    so many of each, then what else there is of those that have more."""
    order = sorted(range(len(shards)), key=lambda shard: hashlib.blake2b(str(shard).encode(), digest_size=8).digest())
    share = math.ceil(number / max(1, min(len(shards), _SPREAD)))
    rest: list[int] = []
    for shard in order:
        for place, raw in enumerate(_with_prompt(shards, shard)):
            if place == share:
                rest.append(shard)
                break
            yield raw
    for shard in rest:
        yield from islice(_with_prompt(shards, shard), share, None)


def _with_prompt(shards: Shards, shard: int) -> Iterator[RawPair]:
    with suppress(PairError):  # what could be read before it counts
        for raw in shards.read(shard):
            if isinstance(raw, RawPair) and raw.text:
                yield raw


def held_out(shards: Shards, number: int, split: Split) -> StoredPairs:
    """Some readable pairs of a split, from all over it.

    Raises:
        ShardError: there is none.
    """
    found: list[RawPair] = []
    for raw in spread(shards, number):
        if len(found) == number:
            break
        with suppress(ImageError, PairError):
            raw.read()
            found.append(raw)
    if not found:
        raise ShardError(
            f"no pair of the stream falls into the {split} split. Use more pairs, or leave out --stream: then small data is divided so that every "
            "split gets some"
        )
    return StoredPairs(found)
