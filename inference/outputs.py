"""Where rows are written: to a terminal, lines of JSON, a table, texts beside the pictures, copies that carry them."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from filelock import FileLock, Timeout

from data.files import explained, replacing, write_text
from data.images import opened_image
from data.metadata.embedding import guessed_text, with_text
from data.text import decoded
from inference.rows import Row, printable

Existing = Literal["skip", "overwrite", "append", "prepend"]


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

    def __init__(self, path: Path, existing: Existing, by: str, begin: str = "") -> None:
        self.path, self.by = path, by
        self._known: set[str] = set()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(f"{path}.lock", timeout=0)
            self._lock.acquire()
        except Timeout as error:
            raise OutputError(f"another run is writing {path}; wait for it, or name another file") from error
        try:
            before = b"" if existing == "overwrite" or not path.exists() else path.read_bytes()
            whole = before[: before.rfind(b"\n") + 1]  # a line that was cut is written again
            self._read(whole.decode("utf-8", "replace").splitlines())
            self._file = open(path, "r+b" if before else "wb", buffering=0)  # noqa: SIM115  # closed by `close`
            self._file.truncate(len(whole))
            self._file.seek(0, os.SEEK_END)
            if not whole and begin:
                self._add(begin)
        except BaseException:
            self.close()
            raise

    def _read(self, lines: list[str]) -> None:
        raise NotImplementedError

    def _check(self, by: str) -> None:
        if by != self.by:
            raise OutputError(f"{self.path} was written by another model or with other options; name another file, or add --existing overwrite")

    def has(self, file: Path) -> bool:
        return printable(file) in self._known

    def _add(self, line: str) -> None:
        left = f"{line}\n".encode("utf-8", "replace")
        try:
            while left:  # a disk that is nearly full takes a part
                left = left[self._file.write(left) :]
        except OSError as error:
            raise explained(error, self.path) from error

    def close(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()
        self._lock.release()
        Path(f"{self.path}.lock").unlink(missing_ok=True)


class JsonLines(_LineFile):
    """A JSON object for each row."""

    def _read(self, lines: list[str]) -> None:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                self._known.add(row["file"])
                by = row["by"]
            except (ValueError, KeyError, TypeError) as error:
                raise OutputError(f"{self.path}, line {number} is not a row of ours; name another file, or add --existing overwrite") from error
            self._check(by)

    def write(self, row: Row) -> None:
        self._add(json.dumps(row.as_json(), ensure_ascii=False))


class Table(_LineFile):
    """CSV, a line for each row: line breaks in a prompt become spaces."""

    COLUMNS = ("file", "prompt", "source", "confidence", "familiarity", "note", "metadata", "model_prompt", "similarity", "alternatives", "by")

    def __init__(self, path: Path, existing: Existing, by: str) -> None:
        super().__init__(path, existing, by, ",".join(self.COLUMNS))

    def _read(self, lines: list[str]) -> None:
        if lines and lines[0] != ",".join(self.COLUMNS):
            raise OutputError(f"{self.path} is not a table of ours; name another file, or add --existing overwrite")
        for row in csv.DictReader(lines):
            self._known.add(row["file"])
            self._check(row["by"])

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
        if path == file or self._of.setdefault(path, file) != file:
            raise OutputError(f"{printable(file)} and {printable(self._of.get(path, file))} would share the text {path.name}")
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
        within = self.folder / file.relative_to(self.roots[file])
        return within, within.with_suffix(".png")

    def has(self, file: Path) -> bool:
        """
        Raises:
            OutputError: the copy would be the original, or another picture's.
        """
        places = self._places(file)
        if file.resolve() in places:
            raise OutputError(f"the copy of {printable(file)} would be the file itself; give --embed another folder")
        if self._of.setdefault(places[1], file) != file:
            raise OutputError(f"{printable(file)} and {printable(self._of[places[1]])} would have the same copy")
        return self.existing == "skip" and any(place.exists() for place in places)

    def write(self, row: Row) -> None:
        content = row.file.read_bytes()
        place, suffix = self._places(row.file)[0], None
        if row.source == "model" and row.prediction is not None:
            about = {"Software": "Reprompt", "Confidence": f"{row.prediction.confidence:.2f}"}
            if row.prediction.familiarity is not None:
                about["Familiarity"] = f"{row.prediction.familiarity:.3f}"
            with opened_image(row.file) as image:
                content, suffix = with_text(content, image, guessed_text(row.prompts[0], about))
        if suffix == ".png":
            place = place.with_suffix(".png")
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
