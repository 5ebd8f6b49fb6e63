"""The one reader of tables: CSV in its dialects, TSV, Parquet, JSON and lines of JSON, a row at a time, strictly. What is malformed is handed on
in the place of a row and says why; nothing is merged, cut or replaced in silence."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import TableError
from data.text import encoding_of

TABLE_SUFFIXES = (".csv", ".tsv", ".tab", ".parquet", ".jsonl", ".ndjson", ".json")
_DELIMITERS = (",", "\t", ";", "|")
_LOOKED_AT = 1 << 20  # bytes that tell how a file is written; what comes later and does not fit is an error
_AT_ONCE = 1000  # rows of a Parquet file
_LONGEST_VALUE = 1_000_000  # characters of a value of a CSV; a quote that is never closed is noticed after so many


@dataclass(frozen=True)
class Malformed:
    """Stands where a row cannot be told."""

    reason: str


Row = dict[str, Any] | Malformed


@dataclass(frozen=True)
class Table:
    """`columns` are empty where each row says its own (lines of JSON). `notice` says how the file was read where that was not plain."""

    path: Path
    columns: tuple[str, ...]
    encoding: str = "utf-8"
    delimiter: str = ""
    notice: str = ""

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Every row, with the number of the line it begins in (of the row, for Parquet and JSON), counted from 1.

        Raises:
            TableError: the file turns out to be damaged, or written otherwise than it began.
        """
        kind = self.path.suffix.lower()
        try:
            if kind == ".parquet":
                yield from enumerate(_parquet_rows(self.path, self.columns), 1)
            elif kind == ".json":
                yield from enumerate(_json_rows(self.path, self.encoding), 1)
            elif kind in (".jsonl", ".ndjson"):
                with _opened(self.path, self.encoding) as lines:
                    yield from _json_lines(lines)
            else:
                with _opened(self.path, self.encoding) as lines:
                    yield from itertools.islice(_records(lines, self.delimiter, self.columns), 1, None)
        except UnicodeError as error:
            raise TableError(_not_text(self.path, error)) from error
        except (OSError, pa.ArrowException) as error:
            raise TableError(f"{self.path} cannot be read ({error})") from error

    def pieces(self, columns: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
        """Some columns of a Parquet file, some rows at a time, so that of millions few are in memory."""
        for batch in pq.ParquetFile(self.path).iter_batches(_AT_ONCE, columns=list(columns)):
            yield batch.to_pylist()


def open_table(path: Path, *, delimiter: str | None = None, encoding: str | None = None) -> Table:
    """
    Args:
        delimiter: between the values of a CSV; found in its first line where it is not given.
        encoding: of the text; found where it is not given: a byte order mark, UTF-16, UTF-8, Windows' Western code page.

    Raises:
        TableError: no such file, not of a kind that is known, not readable, without columns; or it cannot be told how it is written.
    """
    kind = path.suffix.lower()
    if kind not in TABLE_SUFFIXES:
        raise TableError(f"{path} is not a table that can be read: {', '.join(TABLE_SUFFIXES)}")
    if not path.is_file():
        raise TableError(f"the file {path} does not exist")
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise TableError(f"a delimiter is one character, not {delimiter!r}")
    try:
        if kind == ".parquet":
            return Table(path, tuple(pq.read_schema(path).names))
        found = encoding or _found_encoding(path)
        notice = f"{path} is not UTF-8; it was read as {found}. --encoding says otherwise" if encoding is None and found == "cp1252" else ""
        if kind in (".jsonl", ".ndjson", ".json"):
            return Table(path, (), found, notice=notice)
        with _opened(path, found) as lines:
            first = next((line for line in lines if line.strip()), "")
        if delimiter is None:
            delimiter = "\t" if kind in (".tsv", ".tab") else _found_delimiter(first)
        names = next(csv.reader([first], delimiter=delimiter, strict=True), [])
    except UnicodeError as error:
        raise TableError(_not_text(path, error)) from error
    except LookupError as error:
        raise TableError(f"there is no encoding {encoding!r}; utf-8, utf-16, cp1252 and latin-1 are the usual ones") from error
    except csv.Error as error:
        raise TableError(f"{path}: the first line, which names the columns, is malformed ({error})") from error
    except (OSError, pa.ArrowException) as error:
        raise TableError(f"{path} cannot be read ({error})") from error
    columns = tuple(name.strip() for name in names)
    if not any(columns):
        raise TableError(f"{path} has no column: its first line must name them")
    if doubled := [name for number, name in enumerate(columns) if name in columns[:number]]:
        raise TableError(f"{path} has several columns {doubled[0]!r}; give each a name of its own")
    return Table(path, columns, found, delimiter, notice)


def _opened(path: Path, encoding: str) -> IO[str]:
    """Lines end at \\n, \\r or \\r\\n and nowhere else."""
    return open(path, encoding=encoding, newline="")


def _found_encoding(path: Path) -> str:
    """From the beginning, at a line's end, and where that is not UTF-8 from all of it."""
    with open(path, "rb") as file:
        head = file.read(_LOOKED_AT)
        if len(head) == _LOOKED_AT:
            head += file.readline(_LOOKED_AT)
        found = encoding_of(head)
        if found != "utf-8":
            return found
        for part in iter(lambda: file.read(_LOOKED_AT) + file.readline(_LOOKED_AT), b""):
            if (found := encoding_of(part)) != "utf-8":
                return encoding_of(path.read_bytes())
    return "utf-8"


def _not_text(path: Path, error: UnicodeError) -> str:
    place = ""
    if isinstance(error, UnicodeDecodeError):
        content = path.read_bytes()
        start = error.start if error.object == content else content.find(bytes(error.object[error.start : error.end]))
        place = f" (line {content.count(bytes([10]), 0, max(0, start)) + 1}: {error.reason})"
    return f"{path} is neither UTF-8 nor another encoding that can be told{place}; name it with --encoding, or save the file as UTF-8"


def _found_delimiter(first: str) -> str:
    """The one that divides the first line into most columns."""
    parts = {sign: len(next(csv.reader([first], delimiter=sign), [])) for sign in _DELIMITERS}
    return max(_DELIMITERS, key=lambda sign: (parts[sign], -_DELIMITERS.index(sign)))


def _records(lines: Iterable[str], delimiter: str, columns: Sequence[str]) -> Iterator[tuple[int, Row]]:
    """Records of a CSV by the rules of RFC 4180, the header among them. One that cannot be told costs one line: the next begins after it."""
    csv.field_size_limit(_LONGEST_VALUE)
    waiting: deque[str] = deque()
    source, number = iter(lines), 1
    while True:
        taken: list[str] = []

        def feed(taken: list[str] = taken) -> Iterator[str]:
            while (line := waiting.popleft() if waiting else next(source, None)) is not None:
                taken.append(line)
                yield line

        try:
            values = next(csv.reader(feed(), delimiter=delimiter, strict=True), None)
            reason = "" if values is None else _amiss(values, taken, delimiter, columns)
        except csv.Error as error:
            values, reason = [], f"malformed: {error}"
        if values is None:
            return
        if reason and taken[1:]:  # a quote that was not closed took in lines that may be rows
            waiting.extendleft(reversed(taken[1:]))
            del taken[1:]
        if reason:
            yield number, Malformed(reason)
        elif values:
            yield number, dict(zip(columns, values, strict=True))
        number += len(taken)


def _amiss(values: Sequence[str], taken: Sequence[str], delimiter: str, columns: Sequence[str]) -> str:
    """Why a record is not to be trusted; empty where it is."""
    if not values:
        return ""  # an empty line
    if any("\0" in line for line in taken):
        return "holds a zero byte"
    if len(values) != len(columns):
        hint = f"; a value with {delimiter!r} in it must stand in quotes" if len(values) > len(columns) else ""
        return f"{len(values)} values for {len(columns)} columns{hint}"
    if len(columns) > 1 and any(_is_whole(line, delimiter, len(columns)) for line in taken[1:-1]):
        return "a quote is opened that is closed only after lines that are rows by themselves"
    return ""


def _is_whole(line: str, delimiter: str, columns: int) -> bool:
    try:
        return len(next(csv.reader([line], delimiter=delimiter, strict=True), [])) == columns
    except csv.Error:
        return False


def _parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    for batch in pq.ParquetFile(path).iter_batches(_AT_ONCE):
        yield from batch.to_pylist()


def _json_lines(lines: Iterable[str]) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, Malformed(f"not JSON ({str(error)[:80]})")
            continue
        yield number, row if isinstance(row, dict) else Malformed(f"a JSON {type(row).__name__} where an object was expected")


def _json_rows(path: Path, encoding: str) -> Iterator[Row]:
    """A JSON file: a list of objects or of prompts, an object of columns, or, whatever its name says, lines of objects."""
    text = path.read_text(encoding=encoding)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        rows = [row for _, row in _json_lines(io.StringIO(text))]
        if not any(isinstance(row, dict) for row in rows):
            raise TableError(f"{path} is not JSON ({error})") from error
        yield from rows
        return
    if isinstance(content, dict):
        lists = {name: value for name, value in content.items() if isinstance(value, list)}
        if lists and len({len(value) for value in lists.values()}) == 1 and len(lists) == len(content):
            content = [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]
        else:
            content = [content]
    if not isinstance(content, list):
        raise TableError(f'{path} holds a JSON {type(content).__name__}; expected is a list such as [{{"prompt": "a cat"}}] or ["a cat"]')
    for value in content:
        if isinstance(value, str):
            yield {"prompt": value}
        else:
            yield value if isinstance(value, dict) else Malformed(f"a JSON {type(value).__name__} where an object or a text was expected")
