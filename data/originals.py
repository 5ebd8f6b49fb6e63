"""What people have, listed: folders of images, Hugging Face's imagefolder, tables with a column of images, DiffusionDB, WebDataset tars.

A listing is quick and always in the same order; nothing is opened but tables and archives' directories. Originals are only ever read.
"""

from __future__ import annotations

import csv
import io
import json
import re
import string
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from data.image_metadata import MetadataError, diffusiondb_metadata
from data.shards import IMAGE_SUFFIXES, ShardError, index_archive, read_member
from data.sources import FOLDER_FILE, expand

SUFFIXES = (*IMAGE_SUFFIXES, ".bmp", ".tif", ".tiff", ".gif", ".avif")
SIDECARS = (".txt", ".caption")
LONGEST_SIDECAR = 1_000_000  # bytes


class OriginalError(ValueError):
    """An original without what is needed; `kind` is the reason in few words, for counting."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Original:
    """One image where it lies. `prompt` is what stands beside it, None where it may be in the file itself. `name` is unique in a listing."""

    name: str
    file: Path
    part: tuple[int, int] | str | None = None  # a place in a tar, or a name in a zip
    prompt: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None  # why it cannot be used, where the listing shows it

    def read(self) -> bytes:
        """
        Raises:
            OriginalError: there is no such file, or it cannot be read.
        """
        try:
            if isinstance(self.part, tuple):
                return read_member(self.file, self.part)
            if self.part is not None:
                with zipfile.ZipFile(self.file) as archive:
                    return archive.read(self.part)
            return self.file.read_bytes()
        except (FileNotFoundError, KeyError) as error:
            raise OriginalError(f"{self.name}: no such file", "missing image") from error
        except (OSError, zipfile.BadZipFile, RuntimeError) as error:
            raise OriginalError(f"{self.name}: cannot be read ({error})", "unreadable file") from error

    def sidecar(self) -> str | None:
        """The text file beside the image, if there is one.

        Raises:
            OriginalError: it is not UTF-8, or no prompt by its size.
        """
        if self.part is not None:
            return None
        for suffix in SIDECARS:
            for path in (self.file.with_suffix(suffix), Path(f"{self.file}{suffix}")):
                if not path.is_file():
                    continue
                if path.stat().st_size > LONGEST_SIDECAR:
                    raise OriginalError(f"{path}: {path.stat().st_size:,} bytes are no prompt", "damaged sidecar")
                try:
                    return path.read_text(encoding="utf-8-sig").strip()
                except UnicodeDecodeError as error:
                    raise OriginalError(f"{path}: not UTF-8 ({error.reason} at byte {error.start})", "damaged sidecar") from error
        return None


def folder(directory: Path) -> Iterator[Original]:
    """Every image below a directory, in order of their paths. The prompt is in the file, or in a text file beside it."""
    for path in _images(directory):
        yield Original(path.relative_to(directory).as_posix(), path)


def imagefolder(directory: Path, *, prompt_column: str | None = None) -> Iterator[Original]:
    """Images beside a metadata.jsonl or metadata.csv with a column file_name."""
    names = (prompt_column,) if prompt_column else ("prompt", "text", "caption")
    for table in sorted([*directory.rglob(FOLDER_FILE), *directory.rglob("metadata.csv")]):
        rows = _json_lines(table) if table.suffix == ".jsonl" else _table_rows(table)
        for number, row in rows:
            label = f"{table.relative_to(directory).as_posix()}:{number}"
            if isinstance(row, str):
                yield Original(label, table, problem=row)
                continue
            file = row.get("file_name")
            prompt = next((row[name] for name in names if isinstance(row.get(name), str)), None)
            if not isinstance(file, str) or not file:
                yield Original(label, table, problem="no file_name")
                continue
            path = table.parent / file
            yield Original(path.relative_to(directory).as_posix() if path.is_relative_to(directory) else file, path, None, prompt, row)


def table(file: Path, *, image: str, text: str, root: Path | None = None) -> Iterator[Original]:
    """A CSV, TSV or Parquet file with a row for each image.

    Args:
        image: where the image lies, with column names in braces: "images/{id}.jpg"; relative to `root`, or to the file.
        text: the prompt, likewise: "{productDisplayName}", "a photo of {title}, {colour}".

    Raises:
        ShardError: a column that is not there.
    """
    columns = _columns(file)
    for template in (image, text):
        missing = [name for name in _fields(template) if name not in columns]
        if missing or not _fields(template):
            wanted = f"no column {', '.join(missing)}" if missing else f"no column in braces in {template!r}"
            raise ShardError(f"{file}: {wanted}; there are: {', '.join(columns)}")
    base = root if root is not None else file.parent
    for number, row in _table_rows(file):
        label = f"{file.name}:{number}"
        if isinstance(row, str):
            yield Original(label, file, problem=row)
        elif not all(str(row[name] or "").strip() for name in _fields(text)):
            yield Original(label, file, problem="no prompt")
        else:
            path = base / _filled(image, row)
            yield Original(f"{label} {_filled(image, row)}", path, None, _filled(text, row), row | {"tool": file.name})


def diffusiondb(directory: Path) -> Iterator[Original]:
    """DiffusionDB (arXiv 2210.14896): parts as folders or zips, each with a part-000001.json; prompts and settings are there, or else in
    metadata.parquet."""
    parts = sorted([*directory.rglob("part-*.zip"), *(path.parent for path in directory.rglob("part-*.json"))])
    if not parts:
        raise ShardError(f"{directory} is not DiffusionDB: it has no part-000001.zip and no folder with a part-000001.json")
    listed = _diffusiondb_table(directory)
    for part in dict.fromkeys(parts):
        try:
            archive = zipfile.ZipFile(part) if part.suffix == ".zip" else None
        except (zipfile.BadZipFile, OSError) as error:
            yield Original(part.name, part, problem=f"damaged archive ({error})")
            continue
        names = sorted(archive.namelist() if archive else (path.name for path in part.iterdir()))
        index = next((name for name in names if re.search(r"part-\d+\.json$", name)), None)
        try:
            content = (archive.read(index) if archive else (part / index).read_bytes()) if index is not None else b"{}"
            entries = json.loads(content)
        except (ValueError, OSError, zipfile.BadZipFile, RecursionError) as error:
            yield Original(f"{part.name}/{index}", part, problem=f"damaged metadata ({error})")
            entries = {}
        for name in names:
            base = name.rpartition("/")[2]
            if Path(base).suffix.lower() not in SUFFIXES:
                continue
            entry = entries.get(base) if isinstance(entries, dict) else None
            entry = entry if isinstance(entry, dict) else listed.get(base)
            label = f"{part.relative_to(directory).as_posix()}/{base}"
            try:
                found = diffusiondb_metadata(entry or {})
            except MetadataError:
                yield Original(label, part, problem="no metadata")
                continue
            file, inner = (part, name) if archive else (part / name, None)
            yield Original(label, file, inner, found.prompt, dict(found.parameters) | {"tool": found.tool})


def _diffusiondb_table(directory: Path) -> dict[str, dict[str, Any]]:
    """metadata.parquet, in the form of the parts' own files."""
    path = next(iter(sorted(directory.glob("metadata*.parquet"))), None)
    if path is None:
        return {}
    names = {"image_name": "name", "prompt": "p", "seed": "se", "step": "st", "cfg": "c", "sampler": "sa"}
    columns = [name for name in names if name in pq.read_schema(path).names]
    return {row["image_name"]: {names[name]: row[name] for name in columns} for row in pq.read_table(path, columns=columns).to_pylist()}


def webdataset(source: str, *, prompt_column: str | None = None) -> Iterator[Original]:
    """Tars: an image with a text or JSON of the same name is a pair; of one that is cut short those before the cut."""
    tars = expand(f"{source}/**/*.tar" if Path(source).is_dir() else source)
    if not tars:
        raise ShardError(f"there is no .tar in {source}")
    names = (prompt_column,) if prompt_column else ("prompt", "text", "caption")
    for number, tar in enumerate(map(Path, tars)):
        label = f"{number:05d} {tar.name}"
        locations, error = index_archive(tar)
        for location in locations:
            prompt, metadata = None, dict[str, Any]()
            try:
                if location.metadata is not None:
                    content = json.loads(read_member(tar, location.metadata))
                    metadata = content if isinstance(content, dict) else {}
                    prompt = next((metadata[name] for name in names if isinstance(metadata.get(name), str)), None)
                if location.text is not None and prompt_column is None:
                    prompt = read_member(tar, location.text).decode("utf-8").strip()
                problem = None
            except (ValueError, RecursionError) as failure:
                problem = f"damaged metadata ({str(failure)[:80]})"
            yield Original(f"{label}/{location.key}", tar, location.image, prompt, metadata, problem)
        if error is not None:
            yield Original(label, tar, problem=f"cut archive ({error})")


def problem_kind(problem: str) -> str:
    """ "damaged metadata (...)" -> "damaged metadata": what problems are counted by."""
    return problem.partition(" (")[0]


def _images(directory: Path) -> Iterator[Path]:
    """Without hidden ones; sorted, so that a listing is the same each time."""
    for path in sorted(directory.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file() and not any(part.startswith(".") for part in path.relative_to(directory).parts):
            yield path


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    with open(path, encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            yield number, row if isinstance(row, dict) else "damaged line"


def _columns(file: Path) -> list[str]:
    if file.suffix == ".parquet":
        return list(pq.read_schema(file).names)
    with open(file, newline="", encoding="utf-8-sig", errors="replace") as lines:
        return next(csv.reader(lines, delimiter=_delimiter(file)), [])


def _table_rows(file: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Rows by their line; a line with too few or too many values, as stray commas make, is reported in the place of a row."""
    if file.suffix == ".parquet":
        rows = (row for batch in pq.ParquetFile(file).iter_batches(1000) for row in batch.to_pylist())
        yield from enumerate(rows, 1)
        return
    with open(file, newline="", encoding="utf-8-sig", errors="replace") as lines:
        reader = csv.reader(_without_nul(lines), delimiter=_delimiter(file))
        columns = next(reader, [])
        while True:
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield reader.line_num, f"malformed line ({error})"
                continue
            if not values:
                continue
            if len(values) != len(columns):
                yield reader.line_num, f"malformed line ({len(values)} values for {len(columns)} columns)"
                continue
            yield reader.line_num, dict(zip(columns, values, strict=True))


def _without_nul(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield line.replace("\0", "")


def _delimiter(file: Path) -> str:
    return "\t" if file.suffix in (".tsv", ".tab") else ","


def _fields(template: str) -> list[str]:
    try:
        return [name for _, name, _, _ in string.Formatter().parse(template) if name]
    except ValueError as error:
        raise ShardError(f"the template {template!r} cannot be read ({error}); write column names in braces: 'images/{{id}}.jpg'") from error


def _filled(template: str, row: Mapping[str, Any]) -> str:
    out = io.StringIO()
    for literal, name, _, _ in string.Formatter().parse(template):
        out.write(literal)
        if name:
            out.write(str(row[name] if row[name] is not None else "").strip())
    return out.getvalue()
