"""Where rows are written, and the simplest such place, standard output; others: `line_files`, `beside`."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Literal

from inference.rows import Row, one_line, printable

Existing = Literal["skip", "overwrite", "append", "prepend"]


class OutputError(ValueError):
    """An output that cannot be written as asked; names it and says what to do."""


class Output(ABC):
    """Where rows go."""

    @abstractmethod
    def has(self, file: Path) -> bool:
        """Whether it holds the file's row already, and keeps it."""

    @abstractmethod
    def write(self, row: Row) -> None: ...

    def close(self) -> None:
        """Let go of what it holds."""
        return


class Printed(Output):
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
            self.show("\t".join([printable(row.file), one_line(prompt), *note]))


@contextmanager
def opened(builds: Sequence[Callable[[], Output]]) -> Iterator[list[Output]]:
    """What they build, closed at the end."""
    with ExitStack() as stack:
        yield [stack.enter_context(closing(build())) for build in builds]
