"""Rows as lines of a file, which is gone on with where it ends: JSON, and a table."""

from __future__ import annotations

import csv
import io
import json
import sys
from abc import abstractmethod
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from data.files import explained
from inference.outputs import Existing, Output, OutputError
from inference.rows import Row, one_line, printable

COLUMNS = ("file", "prompt", "source", "confidence", "familiarity", "note", "metadata", "model_prompt", "similarity", "alternatives", "by")


class LineFile(Output):
    """A file of one line for each row, gone on with where it ends."""

    def __init__(self, path: Path, existing: Existing, by: str, first: bytes, head: bytes = b"") -> None:
        """
        Args:
            first: what such a file begins with.
            head: what is written before the first row.
        """
        self.path, self.by, self._head = path, by, head
        self._known: set[str] = set()
        try:
            if path.exists() and not path.is_file():
                raise OutputError(f"{path} is no file; name one, or leave it out for standard output")
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(f"{path}.lock", timeout=0)
            self._lock.acquire()
        except Timeout as error:
            raise OutputError(f"another run is writing {path}; wait for it, or name another file") from error
        try:
            before = b"" if existing == "overwrite" or not path.exists() else path.read_bytes()
            self._end = before.rfind(b"\n") + 1  # a line that was cut is written again
            if not self._end and not before.startswith(first[: len(before)]):
                raise self._not_ours()
            self._read(before[: self._end].decode("utf-8", "replace").split("\n")[:-1])  # of all that ends a line, JSON holds some
            self._file = open(path, "r+b" if path.exists() else "wb", buffering=0)  # noqa: SIM115  # closed by `close`
            if existing != "overwrite":  # where all stays until there is a row
                self._file.truncate(self._end)
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def _read(self, lines: list[str]) -> None:
        """Learn from whole lines which files have a row.

        Raises:
            OutputError: they are not of our making, or another model's.
        """

    def _not_ours(self, where: str = "") -> OutputError:
        return OutputError(f"{self.path}{where} is not of our making; name another file, or add --existing overwrite")

    def _check(self, by: str) -> None:
        if by != self.by:
            raise OutputError(f"{self.path} was written by another model or with other options; name another file, or add --existing overwrite")

    def has(self, file: Path) -> bool:
        return printable(file) in self._known

    def _add(self, line: str) -> None:
        content = left = (b"" if self._end else self._head) + f"{line}\n".encode("utf-8", "replace")
        try:
            self._file.seek(self._end)
            self._file.truncate()
            while left:  # a disk that is nearly full takes a part
                left = left[self._file.write(left) :]
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(self._end)
            raise explained(error, self.path) from error
        self._end += len(content)

    def close(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()
        Path(f"{self.path}.lock").unlink(missing_ok=True)  # while it is ours: afterwards it may be another run's
        self._lock.release()


class JsonLines(LineFile):
    """A JSON object for each row."""

    def __init__(self, path: Path, existing: Existing, by: str) -> None:
        super().__init__(path, existing, by, b'{"file": "')

    def _read(self, lines: list[str]) -> None:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                self._known.add(row["file"])
                by = row["by"]
            except (ValueError, KeyError, TypeError) as error:
                raise self._not_ours(f", line {number}") from error
            self._check(by)

    def write(self, row: Row) -> None:
        self._add(json.dumps(row.as_json(), ensure_ascii=False))


class Table(LineFile):
    """CSV, a line for each row: whatever there is of spaces and line breaks in a cell becomes one space."""

    def __init__(self, path: Path, existing: Existing, by: str) -> None:
        head = f"{','.join(COLUMNS)}\n".encode()
        super().__init__(path, existing, by, head, head)

    def _read(self, lines: list[str]) -> None:
        if lines and lines[0].rstrip("\r") != ",".join(COLUMNS):
            raise self._not_ours()
        csv.field_size_limit(sys.maxsize)  # prompts have no longest
        try:
            for row in csv.DictReader(lines):
                self._known.add(row["file"])
                self._check(row["by"])
        except csv.Error as error:
            raise self._not_ours() from error

    def write(self, row: Row) -> None:
        self._add(table_line(row))


def table_line(row: Row) -> str:
    """The values of `COLUMNS`, each on one line."""
    about = row.as_json()
    about["alternatives"] = " | ".join(one["prompt"] for one in about.get("alternatives", ()))
    texts = {name: "" if about.get(name) is None else str(about[name]) for name in COLUMNS}
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow(text if name == "file" else one_line(text) for name, text in texts.items())
    return buffer.getvalue()
