"""Where a stream comes from: tars at paths or URLs, and data sets of the Hub, each read shard by shard from its beginning. What fails for a moment
is tried again; what fails for good is counted."""

from __future__ import annotations

import hashlib
import lzma
import tarfile
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import fsspec

from data.errors import PairError, ShardError
from data.images import read_image
from data.sources.hub import image_bytes, image_column, load_hub, prompt_columns
from data.sources.tars import expand
from data.store.archive import PairParts, metadata_in, prompt_in, stream_archive
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


def open_stream(source: str, *, image_name: str | None = None, prompt_name: str | None = None) -> Shards:
    """
    Args:
        source: tars as `open_pairs` takes them, or their URLs, "https://host/{00000..00099}.tar" or "s3://bucket/00000.tar" (whatever fsspec opens);
            or the id of a data set on the Hub.

    Raises:
        ShardError: nothing there.
    """
    directory = Path(source).is_dir()
    if files := expand(f"{source}/**/*.tar" if directory else source):
        return TarShards(files, prompt_name)
    if directory or source.count("/") != 1:
        raise ShardError(f"there is no .tar in {source}; --stream reads tars, here or at URLs, and data sets of the Hub")
    return HubShards(source, image_name, prompt_name)


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
    """The files of a data set on the Hub, streamed by `datasets`."""

    def __init__(self, name: str, image_name: str | None, prompt_name: str | None) -> None:
        import datasets

        loaded = load_hub(name, streaming=True)
        rows = loaded["train"] if "train" in loaded else loaded[next(iter(loaded))]
        if rows.features is None:
            rows = rows._resolve_features()
        self.name = name
        self.image_name = image_column(name, rows.features, image_name)
        self.prompt_names = prompt_columns(name, rows.features, prompt_name)
        self.rows = rows.cast_column(self.image_name, datasets.Image(decode=False))

    def __len__(self) -> int:
        return int(self.rows.num_shards)

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.name} {len(self)} {sorted(self.rows.features)}".encode()).hexdigest()[:16]

    def read(self, shard: int) -> Iterator[RawPair | PairError]:
        given = 0
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                for number, row in enumerate(islice(self.rows.shard(len(self), shard), given, None), given):
                    given += 1
                    yield self._pair(f"{self.name} {shard}:{number}", row)
                return
            except Exception as error:  # of the network and of files, of any kind
                if attempt == _ATTEMPTS:
                    raise PairError(f"{self.name}: shard {shard} cannot be read ({error})", "unreachable archive") from error
            time.sleep(_FIRST_WAIT * 2 ** (attempt - 1))

    def _pair(self, label: str, row: dict[str, Any]) -> RawPair | PairError:
        image = row.pop(self.image_name)
        try:
            prompt: str | PairError = prompts_of(row, self.prompt_names, label)[0]
        except PairError as error:
            prompt = error
        try:
            return RawPair(label, image_bytes(image, label), prompt, row)
        except PairError as error:
            return error
