"""Where rows are written: to a terminal, lines of JSON, a table, texts beside the pictures, copies that carry them."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, Protocol

from filelock import FileLock, Timeout

from data.files import explained, replacing, write_text
from data.images import opened_image
from data.metadata.embedding import guessed_text, with_text
from data.text import decoded
from inference.rows import Row, printable

Existing = Literal["skip", "overwrite", "append", "prepend"]
_KEEP_THEIR_NAME = (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif")  # copies of pictures of such names


class OutputError(ValueError):
    """An output that cannot be written as asked; names it and says what to do."""


class Output(Protocol):
    """Where rows go."""

    def has(self, file: Path) -> bool:
        """Whether it holds the file's row already, and keeps it."""
        ...

    def write(self, row: Row) -> None: ...


class _LineFile:
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

    def _read(self, lines: list[str]) -> None:
        raise NotImplementedError

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


class JsonLines(_LineFile):
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


class Table(_LineFile):
    """CSV, a line for each row: line breaks in a prompt become spaces."""

    COLUMNS = ("file", "prompt", "source", "confidence", "familiarity", "note", "metadata", "model_prompt", "similarity", "alternatives", "by")

    def __init__(self, path: Path, existing: Existing, by: str) -> None:
        head = f"{','.join(self.COLUMNS)}\n".encode()
        super().__init__(path, existing, by, head, head)

    def _read(self, lines: list[str]) -> None:
        if lines and lines[0].rstrip("\r") != ",".join(self.COLUMNS):
            raise self._not_ours()
        csv.field_size_limit(sys.maxsize)  # prompts have no longest
        try:
            for row in csv.DictReader(lines):
                self._known.add(row["file"])
                self._check(row["by"])
        except csv.Error as error:
            raise self._not_ours() from error

    def write(self, row: Row) -> None:
        about = row.as_json()
        about["alternatives"] = " | ".join(one["prompt"] for one in about.get("alternatives", ()))
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="").writerow([_cell(about.get(name)) for name in self.COLUMNS])
        self._add(buffer.getvalue())


def _cell(value: Any) -> str:
    return "" if value is None else " ".join(str(value).splitlines())


class Sidecars:
    """A text beside each picture, under its name with another suffix, as kohya's trainers read it."""

    def __init__(self, suffix: str, existing: Existing) -> None:
        self.suffix, self.existing = suffix, existing
        self._of: dict[Path, Path] = {}

    def has(self, file: Path) -> bool:
        """
        Raises:
            OutputError: another picture's text has that name.
        """
        path = file.with_suffix(self.suffix)
        if path == file:
            raise OutputError(f"the text of {printable(file)} would be the file itself; give --sidecar another suffix")
        if (other := self._of.setdefault(Path(os.path.abspath(path)), file)) != file:  # noqa: PTH100  # links have texts of their own
            raise OutputError(f"{printable(file)} and {printable(other)} would share the text {printable(path.name)}")
        return self.existing == "skip" and path.exists()

    def write(self, row: Row) -> None:
        path, prompt = row.file.with_suffix(self.suffix), " ".join(row.prompts[0].splitlines())
        if self.existing in ("append", "prepend") and path.exists():
            try:
                before = decoded(path.read_bytes()).strip()
            except UnicodeDecodeError as error:
                raise OutputError(f"{printable(path)} is not text that can be read; nothing was added to it") from error
            prompt = _joined(before, prompt) if self.existing == "append" else _joined(prompt, before)
            if prompt == before:
                return
        write_text(path, f"{prompt}\n")


def _joined(first: str, second: str) -> str:
    """With a comma between; what stands there already, as after a run that was interrupted, is not added again."""
    if first == second or not second or first.endswith(f", {second}"):
        return first
    if not first or second.startswith(f"{first}, "):
        return second
    return f"{first}, {second}"


class Copies:
    """Copies of the pictures that carry their prompt, in a folder of their own; of those that carried one already, the file as it is."""

    def __init__(self, folder: Path, existing: Existing, roots: Mapping[Path, Path]) -> None:
        """
        Args:
            roots: of each file the folder below which it was found: the copies lie as they do.
        """
        self.folder, self.existing, self.roots = folder.resolve(), existing, roots
        self._of: dict[Path, Path] = {}

    def _places(self, file: Path) -> tuple[Path, ...]:
        """Where it may lie: under its own name, or as a PNG."""
        within = self.folder / file.relative_to(self.roots[file])
        return (within,) if within.suffix.lower() in _KEEP_THEIR_NAME else (within, within.with_suffix(".png"))

    def _claim(self, place: Path, file: Path) -> None:
        if (other := self._of.setdefault(place, file)) != file:
            raise OutputError(f"{printable(file)} and {printable(other)} would have the same copy")

    def has(self, file: Path) -> bool:
        """
        Raises:
            OutputError: the copy would be the original, or another picture's.
        """
        places = self._places(file)
        if file.resolve() in places:
            raise OutputError(f"the copy of {printable(file)} would be the file itself; give --embed another folder")
        for place in places:
            self._claim(place, file)
        return self.existing != "overwrite" and any(place.exists() for place in places)

    def write(self, row: Row) -> None:
        content = row.file.read_bytes()
        place = self._places(row.file)[0]
        if row.source == "model" and row.prediction is not None:
            about = {"Software": "Reprompt", "Confidence": f"{row.prediction.confidence:.2f}"}
            if row.prediction.familiarity is not None:
                about["Familiarity"] = f"{row.prediction.familiarity:.3f}"
            with opened_image(row.file) as image:
                content, suffix = with_text(content, image, guessed_text(row.prompts[0], about))
            if image.format not in ("PNG", "JPEG"):
                place = place.with_suffix(suffix)
                self._claim(place, row.file)  # its name may have promised another kind
        with replacing(place) as temporary:
            temporary.write_bytes(content)


class Printed:
    """Lines on standard output: file, prompt and, where there is one, what must be known of it, with tabs between; or JSON."""

    def __init__(self, show: Callable[[str], None], *, as_json: bool) -> None:
        self.show, self.as_json = show, as_json

    def has(self, file: Path) -> bool:
        return False

    def write(self, row: Row) -> None:
        if self.as_json:
            self.show(json.dumps(row.as_json(), ensure_ascii=False))
            return
        for place, prompt in enumerate(row.prompts):
            note = [row.note] if row.note and place == 0 else []
            self.show("\t".join([printable(row.file), " ".join(prompt.split()), *note]))


@contextmanager
def opened(builds: Sequence[Callable[[], Output]]) -> Iterator[list[Output]]:
    """What they build, closed at the end."""
    with ExitStack() as stack:
        outputs = []
        for build in builds:
            outputs.append(build())
            if isinstance(outputs[-1], _LineFile):
                stack.callback(outputs[-1].close)
        yield outputs
