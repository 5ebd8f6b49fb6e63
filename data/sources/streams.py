"""Where a stream comes from: tars at paths or URLs, and data sets of the Hub, each read shard by shard from its beginning. What fails for a moment
is tried again; what fails for good is counted."""

from __future__ import annotations

import hashlib
import lzma
import tarfile
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import fsspec
from PIL import Image
from torch.utils.data import Dataset

from data.errors import PairError, ShardError
from data.images import read_image
from data.sources.declared import check_train, missing_splits, splits_with_pairs, tars_by_split
from data.sources.hub import image_bytes, image_column, load_hub, named_splits, of_one_group, prompt_columns
from data.splits import Split, declared_split, group_of, part_of
from data.store.archive import PairParts, metadata_in, prompt_in, stream_archive
from data.store.directory import DATASET_FILE, check_finished, finished_shards
from data.store.pairs import Pair
from data.text import PROMPT_NAMES, prompts_of

_ATTEMPTS = 5  # to read on in a shard over a network
_FIRST_WAIT = 1.0  # seconds, doubled each time


@dataclass(frozen=True)
class RawPair:
    """A pair as it is stored; `image` is encoded. In the place of a prompt that cannot be had stands why."""

    key: str
    image: Any
    prompt: str | PairError
    metadata: dict[str, Any]

    @property
    def text(self) -> str | None:
        return self.prompt if isinstance(self.prompt, str) else None

    @property
    def size(self) -> int:
        """Bytes that it takes in memory, about."""
        return len(self.image) if isinstance(self.image, bytes) else 0

    def read(self) -> Pair:
        """
        Raises:
            ImageError, PairError: it cannot be used.
        """
        if isinstance(self.prompt, PairError):
            raise self.prompt
        if not self.prompt:
            raise PairError(f"{self.key}: the prompt is empty", "empty prompt")
        return Pair(self.key, read_image(self.image, name=self.key), self.prompt, self.metadata)


class StoredPairs(Dataset[Pair]):
    """Pairs in memory as they are stored; pictures are decoded when they are asked for."""

    def __init__(self, pairs: Sequence[RawPair]) -> None:
        self.pairs = pairs
        self.skipped: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Pair:
        return self.pairs[index].read()

    def image(self, index: int) -> Image.Image:
        return self[index].image

    def prompt(self, index: int) -> str:
        return self.pairs[index].text or ""

    def key(self, index: int) -> str:
        return self.pairs[index].key

    def metadata(self, index: int) -> dict[str, Any]:
        return self.pairs[index].metadata

    def picture(self, index: int) -> str:
        return str(index)

    def fingerprint(self) -> str:
        lines = (f"{pair.key} {pair.text} {pair.size}" for pair in self.pairs)
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]


class Shards(Protocol):
    """Where a stream comes from: numbered parts, each read from its beginning."""

    def __len__(self) -> int: ...

    def read(self, shard: int) -> Iterator[RawPair | PairError]:
        """Pairs, and in the place of one that is not whole why.

        Raises:
            PairError: after what could be read, where a part cannot be read to its end.
        """
        ...

    def fingerprint(self) -> str: ...


def open_stream(source: str, split: Split, *, image_name: str | None = None, prompt_name: str | None = None, partial: bool = False) -> Shards:
    """The shards of one split. Declared splits are kept, as by `open_splits`; of what is missing each pair of train says by its value `split`, or the
    hash of its prompt's group, where it belongs.

    Args:
        source: a data set directory of ours, tars as `open_splits` takes them, or their URLs, "https://host/{00000..00099}.tar" or
            "s3://bucket/00000.tar" (whatever fsspec opens); or the id of a data set on the Hub.

    Raises:
        ShardError: nothing there.
    """
    path = Path(source)
    if (path / DATASET_FILE).is_file():
        if not partial:
            check_finished(path)
        tars = {part: [str(tar) for tar in finished_shards(path / part)] for part in splits_with_pairs(path)}
    else:
        tars = tars_by_split(source)
    parts: dict[Split, Shards] = {part: TarShards(files, prompt_name) for part, files in tars.items()}
    if not parts:
        if path.is_dir() or source.count("/") != 1:
            raise ShardError(f"there is no .tar in {source}; --stream reads tars, here or at URLs, and data sets of the Hub")
        loaded = load_hub(source, streaming=True)
        rows = named_splits(loaded, source)
        parts = {part: HubShards(source, some, image_name, prompt_name) for part, some in rows.items()}
    check_train(parts, split, source)
    missing = missing_splits(parts)
    if split in parts and (split != "train" or not missing):
        return parts[split]
    return CarvedShards(parts["train"], split, missing)


class CarvedShards:
    """The pairs of training shards that belong to one split, of which some (`missing`) are carved out."""

    def __init__(self, shards: Shards, split: Split, missing: Sequence[Split]) -> None:
        self.shards = shards
        self.split = split
        self.missing = missing

    def __len__(self) -> int:
        return len(self.shards)

    def read(self, shard: int) -> Iterator[RawPair | PairError]:
        return (raw for raw in self.shards.read(shard) if self._split_of(raw) == self.split)

    def _split_of(self, raw: RawPair | PairError) -> Split:
        """What cannot be used is left to training, which counts it."""
        if isinstance(raw, PairError) or raw.text is None:
            return "train"
        return part_of(group_of(raw.text, raw.metadata), declared_split(raw.metadata.get("split")), self.missing)

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.shards.fingerprint()} {self.split} {self.missing}".encode()).hexdigest()[:16]


class TarShards:
    """WebDataset tars at paths or URLs."""

    def __init__(self, urls: Sequence[str], prompt_name: str | None = None) -> None:
        self.urls = list(urls)
        self.prompt_name = prompt_name

    def __len__(self) -> int:
        return len(self.urls)

    def fingerprint(self) -> str:
        return hashlib.sha256("\n".join(self.urls).encode()).hexdigest()[:16]

    def read(self, shard: int) -> Iterator[RawPair | PairError]:
        url = self.urls[shard]
        remote, given = "://" in url, 0
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                for found in islice(self._pairs(url), given, None):
                    given += 1
                    yield found
                return
            except ImportError as error:
                raise ShardError(f"{url} needs a library that is not installed: {error}") from error
            except FileNotFoundError as error:
                # fsspec says so of whatever a server answers; its own word is in the cause
                cause = error.__cause__
                gone = cause is None or isinstance(cause, FileNotFoundError) or getattr(cause, "status", None) in (404, 410)
                if not remote or attempt == _ATTEMPTS or gone:
                    raise PairError(f"{url} is not there ({error})", "unreachable archive") from error
            except _CUT as error:
                # over a network a body that was cut short looks like an archive that is
                if not remote or attempt == _ATTEMPTS:
                    raise PairError(f"{url} is cut short or damaged ({error})", "cut archive") from error
            except Exception as error:  # of the network: fsspec's and aiohttp's errors share no base
                if not remote or attempt == _ATTEMPTS:
                    raise PairError(f"{url} cannot be read ({type(error).__name__}: {error})", "unreachable archive") from error
            time.sleep(_FIRST_WAIT * 2 ** (attempt - 1))

    def _pairs(self, url: str) -> Iterator[RawPair | PairError]:
        with fsspec.open(url, "rb") as file:
            for parts in stream_archive(file):
                yield parts if isinstance(parts, PairError) else self._pair(parts)

    def _pair(self, parts: PairParts[bytes]) -> RawPair:
        asked = self.prompt_name is not None
        names = (self.prompt_name,) if self.prompt_name is not None else PROMPT_NAMES
        metadata: dict[str, Any] = {}
        with suppress(PairError):
            metadata = metadata_in(parts.metadata, parts.key)
        try:
            prompt: str | PairError = prompt_in(parts.text, parts.metadata, names, asked=asked, label=parts.key)
        except PairError as error:
            prompt = error
        return RawPair(parts.key, parts.image, prompt, metadata)


_CUT = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError)


class HubShards:
    """The files of one split of a data set on the Hub, streamed by `datasets`."""

    def __init__(self, name: str, rows: Any, image_name: str | None, prompt_name: str | None) -> None:
        import datasets

        if rows.features is None:
            rows = rows._resolve_features()
        self.name = name
        self.part = str(rows.split)
        self.image_name = image_column(name, rows.features, image_name)
        self.prompt_names = prompt_columns(name, rows.features, prompt_name)
        self.rows = rows.cast_column(self.image_name, datasets.Image(decode=False))

    def __len__(self) -> int:
        return int(self.rows.num_shards)

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.name} {self.part} {len(self)} {sorted(self.rows.features)}".encode()).hexdigest()[:16]

    def read(self, shard: int) -> Iterator[RawPair | PairError]:
        given = 0
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                for number, row in enumerate(islice(self.rows.shard(len(self), shard), given, None), given):
                    given += 1
                    yield from self._pairs(f"{self.name} {shard}:{number}", row)
                return
            except Exception as error:  # of the network and of files, of any kind
                if attempt == _ATTEMPTS:
                    raise PairError(f"{self.name}: shard {shard} cannot be read ({error})", "unreachable archive") from error
            time.sleep(_FIRST_WAIT * 2 ** (attempt - 1))

    def _pairs(self, label: str, row: dict[str, Any]) -> list[RawPair | PairError]:
        """As many as the row has prompts."""
        image = row.pop(self.image_name)
        try:
            prompts: Sequence[str | PairError] = prompts_of(row, self.prompt_names, label)
        except PairError as error:
            prompts = [error]
        try:
            return [RawPair(label, image_bytes(image, label), prompt, of_one_group(row, self.prompt_names)) for prompt in prompts]
        except PairError as error:
            return [error]
