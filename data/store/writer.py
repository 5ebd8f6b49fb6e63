"""Writing shards: `00000.tar`, `00000.parquet` with a row for each sample, failures included, and `00000_stats.json`, which makes them count."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter, deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from core.priority import step_back
from data.errors import ShardBusyError
from data.files import explained, temporary_name
from data.metadata.automatic1111 import parameters_text
from data.store.columns import table_of
from data.store.directory import LOCKS, read_stats, stats_path

Format = Literal["png", "webp", "jpg"]
_ENCODERS = 4  # threads
_WAITING = 64  # images that wait to be encoded or written, at the most
_COMPRESSION = 1  # of PNGs: a fifth of the time that the default takes, for a tenth more bytes
_QUALITY = 95  # of JPEG, without reduced colours, and of WebP


class ShardWriter:
    """Writes one shard. Leaving the `with` block normally completes it; an exception leaves nothing behind that counts as done."""

    def __init__(self, directory: Path, number: int, *, retry: bool = False) -> None:
        """
        Args:
            retry: a shard in which samples have failed does not count as done.
        """
        self.stem = directory / f"{number:05d}"
        self.retry = retry
        self._lock = FileLock(directory / LOCKS / f"{number:05d}.lock")
        self._temporary = temporary_name(Path(f"{self.stem}.tar"))
        self._rows: list[dict[str, Any]] = []
        self._encoding: deque[tuple[str, str, Future[bytes], Mapping[str, Any]]] = deque()

    @property
    def is_done(self) -> bool:
        return stats_path(self.stem).exists() and not (self.retry and read_stats(self.stem).get("failed"))

    def __enter__(self) -> ShardWriter:
        """
        Raises:
            ShardBusyError: another run is writing this shard, or has written it meanwhile.
        """
        (self.stem.parent / LOCKS).mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise ShardBusyError(f"{self.stem} is being written by another run") from None
        try:
            if self.is_done:  # looked at again: it may have been finished between the last look and the lock
                raise ShardBusyError(f"{self.stem} was written by another run")
            self._tar = tarfile.open(self._temporary, "w", format=tarfile.USTAR_FORMAT)
        except BaseException:
            self._lock.release()
            raise
        self._encoders = ThreadPoolExecutor(_ENCODERS, initializer=step_back)
        return self

    def add(self, key: str, image: Image.Image, metadata: Mapping[str, Any], form: Format = "png") -> None:
        """Add a pair; `metadata["prompt"]` is its text. The image is encoded beside what comes next, and written when it is."""
        self._encoding.append((key, f".{form}", self._encoders.submit(encoded_image, image, metadata, form), metadata))
        self._write_encoded(most_waiting=_WAITING)

    def add_encoded(self, key: str, image: bytes, suffix: str, metadata: Mapping[str, Any]) -> None:
        """Add a pair whose image is a file already, of a kind that `suffix` says."""
        self._write_encoded(most_waiting=0)
        self._write(key, image, suffix, metadata)

    def add_failure(self, key: str, metadata: Mapping[str, Any], kind: str, message: str) -> None:
        """Record a sample that could not be made; it is in the table and not in the tar. `kind` is the reason in few words, for counting."""
        self._write_encoded(most_waiting=0)
        self._rows.append({"key": key, **metadata, "status": "failed", "error_kind": kind, "error_message": message})

    def _write_encoded(self, *, most_waiting: int) -> None:
        """Write, in order, the images that are encoded, and wait for others until no more than so many are left."""
        while self._encoding and (len(self._encoding) > most_waiting or self._encoding[0][2].done()):
            key, suffix, image, metadata = self._encoding.popleft()
            self._write(key, image.result(), suffix, metadata)

    def _write(self, key: str, image: bytes, suffix: str, metadata: Mapping[str, Any]) -> None:
        self._add_file(f"{key}{suffix}", image)
        self._add_file(f"{key}.txt", metadata["prompt"].encode("utf-8"))
        self._add_file(f"{key}.json", json.dumps(metadata, ensure_ascii=False).encode("utf-8"))
        self._rows.append({"key": key, **metadata, "status": "success"})

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
            for path in (Path(f"{self.stem}.tar"), Path(f"{self.stem}.parquet"), stats_path(self.stem)):
                temporary_name(path).unlink(missing_ok=True)
            self._lock.release()

    def _complete(self) -> None:
        self._tar.close()
        tar, parquet, stats = Path(f"{self.stem}.tar"), Path(f"{self.stem}.parquet"), stats_path(self.stem)
        pq.write_table(table_of(self._rows), temporary_name(parquet))
        failures = Counter(row["error_kind"] for row in self._rows if row["status"] != "success")
        failed = sum(failures.values())
        counts = {"count": len(self._rows), "successes": len(self._rows) - failed, "failed": failed, "failures": dict(failures)}
        counts["truncated"] = sum(bool(row.get("truncated")) for row in self._rows)
        temporary_name(stats).write_text(json.dumps(counts) + "\n", encoding="utf-8")
        stats.unlink(missing_ok=True)  # of a shard that is made again: what is half replaced does not count
        self._temporary.replace(tar)
        temporary_name(parquet).replace(parquet)
        temporary_name(stats).replace(stats)


def encoded_image(image: Image.Image, metadata: Mapping[str, Any], form: Format) -> bytes:
    """A file that carries AUTOMATIC1111's text where that tool writes it, so that others read it: a PNG's `parameters`, the EXIF comment else."""
    buffer, text = io.BytesIO(), str(parameters_text(metadata))
    if form == "png":
        notes = PngInfo()
        notes.add_text("parameters", text)
        image.save(buffer, "PNG", pnginfo=notes, compress_level=_COMPRESSION)
        return buffer.getvalue()
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"UNICODE\0" + text.encode("utf-16-be")
    if form == "jpg":
        image.save(buffer, "JPEG", quality=_QUALITY, subsampling=0, exif=exif)
    else:
        image.save(buffer, "WEBP", quality=_QUALITY, exif=exif)
    return buffer.getvalue()
