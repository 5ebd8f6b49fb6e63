"""Pairs read as they come, for data that is not on this machine or too large for it: shard by shard, in an order that (seed, epoch) decides, so
that a run goes on exactly where it stopped."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from data.errors import ImageError, PairError, ShardError
from data.loading.augmentation import RandomCrop
from data.loading.examples import Batch, Collate, Example, PictureFormat, TextFormat
from data.sources.streams import RawPair, Shards
from data.splits import Split, prompt_group, split_of
from data.store.pairs import Pair

BLOCK = 2000  # pairs that are shuffled together, held as they are on disk
BLOCK_BYTES = 256 << 20  # and no more bytes of them than that


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
                        if raw.text is not None and split_of(prompt_group(raw.text)) != "train":
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
                if isinstance(raw, RawPair) and raw.text is not None and split_of(prompt_group(raw.text)) == "train":
                    yield raw.text
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
                if isinstance(raw, RawPair) and raw.text is not None and split_of(prompt_group(raw.text)) == split:
                    with suppress(ImageError, PairError):
                        found.append(raw.read())
                if len(found) == number:
                    return found
    if not found:
        raise ShardError(f"no pair of the stream falls into the {split} split (5 % of the prompts do into each of val and test); use more")
    return found
