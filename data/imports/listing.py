"""What people have, listed: folders of images, Hugging Face's imagefolder, tables with a column of images, DiffusionDB, WebDataset tars.

A listing is quick and always in the same order; nothing is opened but tables and archives' directories. Originals are only ever read.
"""

from __future__ import annotations

import io
import json
import re
import string
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pa_dataset

from data.errors import PairError, ShardError
from data.images import SUFFIXES, pictures_below
from data.metadata.tools import MetadataError, diffusiondb_metadata, read_sidecar
from data.rows import Malformed, open_table
from data.sources.folders import METADATA_FILES, SIDECARS, listed_files, read_sidecar_text, sidecar_of
from data.sources.tars import expand
from data.splits import Split, declared_split
from data.store.archive import LARGEST, index_archive, metadata_in, prompt_in, read_member
from data.text import PROMPT_NAMES, cleaned, decoded


class OriginalError(ValueError):
    """An original without what is needed; `kind` is the reason in few words, for counting."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Original:
    """One image where it lies. `prompt` is what stands beside it, None where it may be in the file itself. `name` is unique in a listing; `split` is
    the one that the source puts it into, where it does."""

    name: str
    file: Path
    part: tuple[int, int] | str | None = None  # a place in a tar, or a name in a zip
    prompt: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None  # why it cannot be used, where the listing shows it
    split: Split | None = None

    def read(self) -> bytes:
        """
        Raises:
            OriginalError: there is no such file, it cannot be read, or it is larger than any picture.
        """
        try:
            if isinstance(self.part, tuple):
                return read_member(self.file, self.part)
            if self.part is not None:
                return read_zipped(self.file, self.part)
            if (size := self.file.stat().st_size) > LARGEST:
                raise OriginalError(f"{self.name}: a file of {size:,} bytes", "huge file")
            return self.file.read_bytes()
        except PairError as error:
            raise OriginalError(f"{self.name}: {error}", error.kind) from error
        except (FileNotFoundError, KeyError) as error:
            raise OriginalError(f"{self.name}: no such file", "missing image") from error
        except (OSError, zipfile.BadZipFile, RuntimeError, ValueError, EOFError) as error:
            if isinstance(error, OriginalError):
                raise
            raise OriginalError(f"{self.name}: cannot be read ({error})", "unreadable file") from error

    def sidecar(self) -> str | None:
        """The text file beside the image, if there is one.

        Raises:
            OriginalError: it is no text, or no prompt by its size.
        """
        if self.part is not None:
            return None
        path = sidecar_of(self.file)
        try:
            return read_sidecar_text(path) if path is not None else None
        except PairError as error:
            raise OriginalError(str(error), error.kind) from error


def read_zipped(archive: Path, name: str) -> bytes:
    """A file of a zip, whatever its directory says of its size.

    Raises:
        OriginalError: more than `LARGEST` bytes.
        KeyError, OSError, zipfile.BadZipFile: it is not there, or damaged.
    """
    with zipfile.ZipFile(archive) as files, files.open(name) as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise OriginalError(f"{archive}/{name}: a file of more than {LARGEST >> 20} MB", "huge file")
    return content


def folder(directory: Path) -> Iterator[Original]:
    """Every image below a directory, and in the zips there, in order of their paths. The prompt is in the file, or in a text file beside it."""
    closed: list[tuple[Path, OSError]] = []
    for picture in pictures_below(directory, lambda *folder: closed.append(folder)):
        yield _with_split(Original(picture.relative_to(directory).as_posix(), picture), directory)
    for place, why in closed:
        yield Original(place.relative_to(directory).as_posix(), place, problem=f"folder that cannot be entered ({why.strerror})")
    for archive in sorted(directory.rglob("*.zip")):
        label = archive.relative_to(directory).as_posix()
        try:
            with zipfile.ZipFile(archive) as files:
                names = {one.filename for one in files.infolist() if not one.is_dir()}
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            yield Original(label, archive, problem=f"damaged archive ({error})")
            continue
        for name in sorted(names):
            if Path(name).suffix.lower() in SUFFIXES and not any(part.startswith((".", "__MACOSX")) for part in name.split("/")):
                yield _with_split(_zipped(f"{label}/{name}", archive, name, names), directory)


def _zipped(label: str, archive: Path, name: str, names: set[str]) -> Original:
    base = name.removesuffix(Path(name).suffix)
    beside = next((base + suffix for suffix in SIDECARS if base + suffix in names), None)
    if beside is None:
        return Original(label, archive, name)
    try:
        found = read_sidecar(cleaned(decoded(read_zipped(archive, beside))))
    except (OSError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        return Original(label, archive, name, problem=f"damaged sidecar ({error})")
    if found is None:
        return Original(label, archive, name)
    said = dict(found.parameters) | {"negative_prompt": found.negative_prompt, "tool": found.tool}
    return Original(label, archive, name, found.prompt, said)


def imagefolder(directory: Path, *, prompt_column: str | None = None) -> Iterator[Original]:
    """Images beside a metadata.jsonl, .csv or .parquet with a column file_name (or image); one with several captions once for each."""
    for listing in sorted(path for name in METADATA_FILES for path in directory.rglob(name)):
        where = listing.parent.relative_to(directory)
        archives = [archive for archive in sorted(listing.parent.glob("*.zip")) if zipfile.is_zipfile(archive)]
        inside: dict[str, Path] = {}
        for archive in archives:
            with zipfile.ZipFile(archive) as zipped:
                inside |= dict.fromkeys(zipped.namelist(), archive)
        seen: dict[str, int] = {}
        for one in listed_files(listing, prompt_column):
            name = (where / one.name).as_posix()
            seen[name] = seen.get(name, 0) + 1
            unique = name if seen[name] == 1 else f"{name}#{seen[name]}"
            if one.problem is not None and one.problem.kind != "no prompt":
                yield Original(unique, listing, problem=f"{one.problem.kind} ({one.problem})")
                continue
            part = one.name if not one.file.exists() and one.name in inside else None
            file = inside[one.name] if part is not None else one.file
            found = Original(unique, file, part, one.prompt, one.row, split=one.split)
            yield found if found.split is not None else _with_split(found, directory)


def table(
    file: Path, *, image: str, text: str, root: Path | None = None, delimiter: str | None = None, encoding: str | None = None
) -> Iterator[Original]:
    """A CSV, TSV, Parquet or JSON file with a row for each image.

    Args:
        image: where the image lies, with column names in braces: "images/{id}.jpg"; relative to `root`, or to the file.
        text: the prompt, likewise: "{productDisplayName}", "a photo of {title}, {colour}".
        delimiter, encoding: as `data.rows.open_table`.

    Raises:
        ShardError: a column that is not there.
        TableError: the file cannot be read.
    """
    rows = open_table(file, delimiter=delimiter, encoding=encoding)
    if rows.notice:
        warnings.warn(rows.notice, stacklevel=2)
    wanted = [*_fields(image), *_fields(text)]
    for template in (image, text):
        missing = [name for name in _fields(template) if rows.columns and name not in rows.columns]
        if missing or not _fields(template):
            amiss = f"no column {', '.join(missing)}" if missing else f"no column in braces in {template!r}"
            raise ShardError(f"{file}: {amiss}; there are: {', '.join(rows.columns)}")
    base = root if root is not None else file.parent
    for number, row in rows.rows():
        label = f"{file.name}:{number}"
        if isinstance(row, Malformed):
            yield Original(label, file, problem=f"malformed line ({row.reason})")
        elif lacking := [name for name in wanted if name not in row]:
            yield Original(label, file, problem=f"malformed line (no {', '.join(lacking)}; there are: {', '.join(row)})")
        elif not all(str(row[name] or "").strip() for name in _fields(text)):
            yield Original(label, file, problem="no prompt")
        else:
            name = _filled(image, row).replace("\\", "/")
            yield Original(f"{label} {name}", base / name, None, _filled(text, row), row | {"tool": file.name})


def diffusiondb(directory: Path) -> Iterator[Original]:
    """DiffusionDB (arXiv 2210.14896): parts as folders or zips, each with a part-000001.json; prompts and settings are there, or else in
    metadata.parquet."""
    parts = sorted([*directory.rglob("part-*.zip"), *(path.parent for path in directory.rglob("part-*.json"))])
    if not parts:
        raise ShardError(f"{directory} is not DiffusionDB: it has no part-000001.zip and no folder with a part-000001.json")
    for part in dict.fromkeys(parts):
        try:
            archive = zipfile.ZipFile(part) if part.suffix == ".zip" else None
        except (zipfile.BadZipFile, OSError) as error:
            yield Original(part.name, part, problem=f"damaged archive ({error})")
            continue
        names = sorted(archive.namelist() if archive else (path.name for path in part.iterdir()))
        index = next((name for name in names if re.search(r"part-\d+\.json$", name)), None)
        try:
            content = (read_zipped(part, index) if archive else (part / index).read_bytes()) if index is not None else b"{}"
            entries = json.loads(content)
        except (ValueError, OSError, RuntimeError, KeyError, zipfile.BadZipFile, RecursionError) as error:
            yield Original(f"{part.name}/{index}", part, problem=f"damaged metadata ({error})")
            entries = {}
        pictures = {name: name.rpartition("/")[2] for name in names if Path(name).suffix.lower() in SUFFIXES}
        own = {base: entry for base, entry in (entries if isinstance(entries, dict) else {}).items() if isinstance(entry, dict)}
        lacking = [base for base in pictures.values() if not isinstance(own.get(base, {}).get("p"), str)]
        try:
            listed = _listed_elsewhere(directory, lacking) if lacking else {}
        except (OSError, pa.ArrowException) as error:
            raise ShardError(f"the table beside the parts in {directory} cannot be read ({error})") from error
        for name, base in pictures.items():
            entry = listed.get(base) or own.get(base)
            label = f"{part.relative_to(directory).as_posix()}/{base}"
            try:
                found = diffusiondb_metadata(entry or {})
            except MetadataError:
                yield Original(label, part, problem="no metadata")
                continue
            file, inner = (part, name) if archive else (part / name, None)
            yield Original(label, file, inner, found.prompt, dict(found.parameters) | {"tool": found.tool})


def _listed_elsewhere(directory: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """What metadata.parquet or metadata-large.parquet say of some images, in the form of the parts' own files. The tables, of up to 14 million rows,
    are gone through piece by piece; a name is in one of them only."""
    theirs = {"prompt": "p", "seed": "se", "step": "st", "cfg": "c", "sampler": "sa"}
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(directory.glob("metadata*.parquet")):
        rows = pa_dataset.dataset(path)
        columns = [name for name in ("image_name", *theirs) if name in rows.schema.names]
        for batch in rows.scanner(columns=columns, filter=pa_dataset.field("image_name").isin(names), batch_size=10_000).to_batches():
            found |= {row["image_name"]: {theirs[name]: row[name] for name in columns[1:]} for row in batch.to_pylist()}
        if len(found) == len(names):
            break
    return found


def webdataset(source: str, *, prompt_column: str | None = None) -> Iterator[Original]:
    """Tars: an image with a text or JSON of the same name is a pair; of one that is cut short those before the cut."""
    tars = expand(f"{source}/**/*.tar" if Path(source).is_dir() else source)
    if not tars:
        raise ShardError(f"there is no .tar in {source}")
    asked, names = prompt_column is not None, (prompt_column,) if prompt_column is not None else PROMPT_NAMES
    for number, tar in enumerate(map(Path, tars)):
        label = f"{number:05d} {tar.name}"
        index = index_archive(tar)
        for location in index.pairs:
            prompt, metadata, problem = None, dict[str, Any](), None
            place = f"{label}/{location.key}"
            try:
                content = read_member(tar, location.metadata) if location.metadata is not None else None
                text = read_member(tar, location.text) if location.text is not None else None
                if text is None or asked:
                    metadata = metadata_in(content, place)
                else:
                    try:
                        metadata = metadata_in(content, place)
                    except PairError:  # the prompt is in the text
                        metadata = {}
                prompt = prompt_in(text, content, names, asked=asked, label=place)
            except PairError as error:
                # without a prompt beside it there may be one in the image
                problem = f"{error.kind} ({str(error)[:120]})" if error.kind != "no prompt" else None
            found = Original(place, tar, location.image, prompt, metadata, problem)
            yield _with_split(found, Path(source), tar) if Path(source).is_dir() else found
        if index.error is not None:
            yield Original(label, tar, problem=f"cut archive ({index.error})")
        for kind, count in sorted(index.alone.items()):
            for one in range(count):
                yield Original(f"{label} {kind} {one + 1}", tar, problem=kind)


def _with_split(original: Original, directory: Path, file: Path | None = None) -> Original:
    """In the split that the first directory below `directory` names, where these are a training split and others."""
    first = (file or original.file).relative_to(directory).parts[0] if (file or original.file).is_relative_to(directory) else ""
    split = declared_split(first)
    return replace(original, split=split) if split is not None and (file or original.file) != directory / first else original


def problem_kind(problem: str) -> str:
    """ "damaged metadata (...)" -> "damaged metadata": what problems are counted by."""
    return problem.partition(" (")[0]


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
