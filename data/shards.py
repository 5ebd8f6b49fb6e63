"""Shards of pairs on disk, in the img2dataset / WebDataset convention.

A shard is `00000.tar` with `KEY.png`, `KEY.txt` and `KEY.json` for each pair, `00000.parquet` with one row a sample (failures included) and
`00000_stats.json`. A shard is done iff its stats file exists: it is written last, and each file under a temporary name first.
"""

from __future__ import annotations

import errno
import io
import json
import os
import socket
import tarfile
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from data.parameters_text import parameters_text

_TYPES: dict[str, pa.DataType] = dict.fromkeys(
    ("key", "prompt", "negative_prompt", "sampler", "model", "revision", "prompt_group", "status", "error_kind", "error_message", "slots"),
    pa.string(),
)
_TYPES |= {"seed": pa.uint64(), "steps": pa.int64(), "guidance_scale": pa.float64(), "width": pa.int64(), "height": pa.int64()}
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
TEXT_SUFFIXES = (".txt", ".caption")
DATASET_FILE = "dataset.json"
_ENCODERS = 4  # threads
_WAITING = 64  # images that wait to be encoded or written, at the most
_COMPRESSION = 1  # of PNGs: a fifth of the time that the default takes, for a tenth more bytes


class ShardError(ValueError):
    """A data set or shard that cannot be read; names the file and the remedy."""


class DiskFullError(OSError):
    """No space left; what was done before is kept."""

    def __str__(self) -> str:
        return self.strerror or super().__str__()


class ShardBusyError(RuntimeError):
    """A shard that another run is writing."""


class ShardWriter:
    """Writes one shard. Leaving the `with` block normally completes it; an exception leaves nothing behind that counts as done."""

    def __init__(self, directory: Path, number: int) -> None:
        self.stem = directory / f"{number:05d}"
        self._temporary = self._beside("tar")
        self._lock = FileLock(f"{self.stem}.lock")
        self._rows: list[dict[str, Any]] = []
        self._encoding: deque[tuple[str, Future[bytes], Mapping[str, Any]]] = deque()

    @property
    def is_done(self) -> bool:
        return stats_path(self.stem).exists()

    def __enter__(self) -> ShardWriter:
        """
        Raises:
            ShardBusyError: another run is writing this shard.
        """
        self.stem.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise ShardBusyError(f"{self.stem} is being written by another run") from None
        self._tar = tarfile.open(self._temporary, "w", format=tarfile.USTAR_FORMAT)
        self._encoders = ThreadPoolExecutor(_ENCODERS)
        return self

    def add(self, key: str, image: Image.Image, metadata: Mapping[str, Any]) -> None:
        """Add a pair; `metadata["prompt"]` is its text. The image is encoded beside what comes next, and written when it is."""
        self._encoding.append((key, self._encoders.submit(encoded_png, image, metadata), metadata))
        self._write_encoded(most_waiting=_WAITING)

    def add_encoded(self, key: str, image: bytes, suffix: str, metadata: Mapping[str, Any]) -> None:
        """Add a pair whose image is a file already; `suffix` is one of `IMAGE_SUFFIXES`."""
        self._write_encoded(most_waiting=0)
        self._write(key, image, suffix, metadata)

    def add_failure(self, key: str, metadata: Mapping[str, Any], kind: str, message: str) -> None:
        """Record a sample that could not be made; it is in the parquet and not in the tar. `kind` is the reason in few words, for counting."""
        self._write_encoded(most_waiting=0)
        self._rows.append(_row(key, metadata) | {"status": "failed", "error_kind": kind, "error_message": message})

    def _write_encoded(self, *, most_waiting: int) -> None:
        """Write, in order, the images that are encoded, and wait for others until no more than so many are left."""
        while self._encoding and (len(self._encoding) > most_waiting or self._encoding[0][1].done()):
            key, image, metadata = self._encoding.popleft()
            self._write(key, image.result(), ".png", metadata)

    def _write(self, key: str, image: bytes, suffix: str, metadata: Mapping[str, Any]) -> None:
        self._add_file(f"{key}{suffix}", image)
        self._add_file(f"{key}.txt", metadata["prompt"].encode("utf-8"))
        self._add_file(f"{key}.json", json.dumps(metadata, ensure_ascii=False).encode("utf-8"))
        self._rows.append(_row(key, metadata) | {"status": "success", "error_kind": None, "error_message": None})

    def _add_file(self, name: str, content: bytes) -> None:
        member = tarfile.TarInfo(name)  # no times and no owner: the same pairs make the same bytes
        member.size = len(content)
        try:
            self._tar.addfile(member, io.BytesIO(content))
        except OSError as error:
            raise explained(error, self.stem) from error

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            if kind is None:
                self._write_encoded(most_waiting=0)
                self._complete()
            else:
                self._tar.fileobj.close()  # the end of the archive is not worth writing
        except OSError as failure:
            if kind is None:
                raise explained(failure, self.stem) from failure
        finally:
            self._encoders.shutdown(cancel_futures=True)
            for suffix in ("tar", "parquet", "json"):
                self._beside(suffix).unlink(missing_ok=True)
            Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()

    def _beside(self, suffix: str) -> Path:
        return Path(f"{self.stem}.{suffix}.{_owner()}.tmp")

    def _complete(self) -> None:
        self._tar.close()
        parquet = self._beside("parquet")
        pq.write_table(_table(self._rows), parquet)
        done = sum(row["status"] == "success" for row in self._rows)
        stats = self._beside("json")
        counts: dict[str, Any] = {"count": len(self._rows), "successes": done, "failed": len(self._rows) - done}
        counts["failures"] = dict(Counter(row["error_kind"] for row in self._rows if row["status"] != "success"))
        stats.write_text(json.dumps(counts) + "\n", encoding="utf-8")
        os.replace(self._temporary, Path(f"{self.stem}.tar"))
        os.replace(parquet, Path(f"{self.stem}.parquet"))
        os.replace(stats, stats_path(self.stem))


def encoded_png(image: Image.Image, metadata: Mapping[str, Any]) -> bytes:
    """A PNG that carries AUTOMATIC1111's text, so that other tools read it."""
    buffer, notes = io.BytesIO(), PngInfo()
    notes.add_text("parameters", str(parameters_text(metadata)))
    image.save(buffer, format="PNG", pnginfo=notes, compress_level=_COMPRESSION)
    return buffer.getvalue()


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    """Known columns have the same type in every shard, whatever values this one happens to hold."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: pa.array([row.get(name) for row in rows], _TYPES.get(name)) for name in names})


def _row(key: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A parquet row: the metadata, structures as JSON text so that every shard has the same columns."""
    flat = {name: json.dumps(value) if isinstance(value, dict | list) else value for name, value in metadata.items()}
    return {"key": key} | flat


def explained(error: OSError, stem: Path) -> OSError:
    """The same error, or one that says what a full disk has cost."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(
            error.errno,
            f"the disk is full; {stem} was not finished and does not count as done, what was done before is whole. "
            "Free some space and run the same command again",
        )
    return error


def read_column(tar: Path, column: str) -> dict[str, Any] | None:
    """A column of a shard's parquet by key; None where it has no such column."""
    parquet = tar.with_suffix(".parquet")
    if column not in pq.read_schema(parquet).names:
        return None
    found = pq.read_table(parquet, columns=["key", column])
    return dict(zip(found["key"].to_pylist(), found[column].to_pylist(), strict=True))


def write_column(tar: Path, column: str, values: Mapping[str, float]) -> None:
    """Add a column of numbers to a shard's parquet, or replace it; keys without a value get none. The tar stays as it is."""
    parquet = tar.with_suffix(".parquet")
    rows = pq.read_table(parquet)
    new = pa.array([values.get(key) for key in rows["key"].to_pylist()], pa.float64())
    names = rows.column_names
    rows = rows.set_column(names.index(column), column, new) if column in names else rows.append_column(column, new)
    temporary = Path(f"{tar.with_suffix('')}.parquet.{_owner()}.tmp")
    try:
        pq.write_table(rows, temporary)
        os.replace(temporary, parquet)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise explained(error, parquet) from error


def _owner() -> str:
    """Whose temporary files these are."""
    return f"{socket.gethostname().replace('.', '_')}-{os.getpid()}"


def remove_leftovers(directory: Path) -> None:
    """Temporary files of runs on this machine that were killed."""
    for path in directory.rglob("*.tmp"):
        host, _, process = path.name.removesuffix(".tmp").rpartition(".")[2].rpartition("-")
        if host == _owner().rpartition("-")[0] and process.isdecimal() and not psutil.pid_exists(int(process)):
            path.unlink(missing_ok=True)


def stats_path(stem: Path) -> Path:
    return Path(f"{stem}_stats.json")


def read_stats(stem: Path) -> dict[str, Any]:
    """What a shard's stats file says; empty where there is none yet."""
    path = stats_path(stem)
    return read_json(path) if path.exists() else {}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON under a temporary name and rename it."""
    _write_text(path, [json.dumps(content, indent=2, ensure_ascii=False)])


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a line of JSON for each row, under a temporary name, and rename the file."""
    _write_text(path, (json.dumps(row, ensure_ascii=False) for row in rows))


def _write_text(path: Path, lines: Iterable[str]) -> None:
    temporary = Path(f"{path}.{_owner()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
        os.replace(temporary, path)
    except OSError as error:
        raise explained(error, path) from error
    finally:  # lines may take long to come, and be interrupted
        temporary.unlink(missing_ok=True)


@dataclass(frozen=True)
class PairLocation:
    """Where the files of a pair lie inside their tar: (offset, size) in bytes."""

    tar: Path
    key: str
    image: tuple[int, int]
    metadata: tuple[int, int] | None
    text: tuple[int, int] | None


def finished_shards(split_directory: Path) -> list[Path]:
    """The tars of all shards that are done, in order."""
    return sorted(tar for tar in split_directory.glob("*.tar") if stats_path(tar.with_suffix("")).exists())


def index_shard(tar_path: Path) -> list[PairLocation]:
    """Find every pair of one of our shards without reading the images.

    Raises:
        ShardError: the tar is cut short or damaged, or holds other than its stats file says.
    """
    pairs, error = index_archive(tar_path)
    if error is not None:
        raise ShardError(f"{tar_path} is cut short or damaged ({error}). {_remedy(tar_path)}")
    expected = read_json(stats_path(tar_path.with_suffix(""))).get("successes")
    if expected is not None and len(pairs) != expected:
        raise ShardError(f"{tar_path} holds {len(pairs)} pairs, but its stats file says {expected}. {_remedy(tar_path)}")
    return pairs


def index_archive(tar_path: Path) -> tuple[list[PairLocation], str | None]:
    """Find every whole pair of any WebDataset tar, an image with a text or metadata of the same name, without reading them; and what is wrong
    with the rest of the file, if something is."""
    files: dict[str, dict[str, tuple[int, int]]] = {}
    size, error = tar_path.stat().st_size, None
    try:
        with tarfile.open(tar_path, "r:") as tar:
            for member in tar:
                key, suffix = os.path.splitext(member.name)
                if member.offset_data + member.size > size:
                    raise tarfile.ReadError("unexpected end of data")
                if member.isfile():
                    files.setdefault(key, {})[suffix.lower()] = (member.offset_data, member.size)
    except (tarfile.TarError, OSError) as failure:
        error = str(failure)
    pairs = []
    for key, parts in files.items():
        image = next((parts[suffix] for suffix in IMAGE_SUFFIXES if suffix in parts), None)
        text = next((parts[suffix] for suffix in TEXT_SUFFIXES if suffix in parts), None)
        if image is not None and (".json" in parts or text is not None):
            pairs.append(PairLocation(tar_path, key, image, parts.get(".json"), text))
    return pairs, error


def _remedy(tar_path: Path) -> str:
    return f"Delete {stats_path(tar_path.with_suffix(''))} and run the command that made the data set again: it makes the shard anew"


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ShardError: missing, or not JSON.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ShardError(f"{path} does not exist") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ShardError(f"{path} is not JSON ({error}); delete it and run generate_data.py again") from error
    if not isinstance(content, dict):
        raise ShardError(f"{path} holds a JSON {type(content).__name__} where an object was expected")
    return content


def read_member(tar: Path, part: tuple[int, int]) -> bytes:
    """The bytes at (offset, size) of a tar."""
    offset, size = part
    with open(tar, "rb") as file:
        file.seek(offset)
        return file.read(size)
