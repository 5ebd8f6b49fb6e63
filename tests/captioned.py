"""Files captioned into an output that keeps its rows, for the tests of captioning."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from graphs import png
from inverters import StubInverter, coloured

from inference.captioning import Captioning, Outcome
from inference.outputs import Output
from inference.rows import Row

SETTINGS = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5"


class Kept:
    """An output that keeps its rows, and has some already."""

    def __init__(self, had: Sequence[str] = (), fails: Callable[[Row], None] = lambda row: None) -> None:
        self.had, self.fails = had, fails
        self.rows: list[Row] = []

    def has(self, file: Path) -> bool:
        return file.name in self.had

    def write(self, row: Row) -> None:
        self.fails(row)
        self.rows.append(row)

    @property
    def prompts(self) -> list[str]:
        return [row.prompts[0] for row in self.rows]


class Ran:
    """What a run said and counted."""

    def __init__(self, files: Iterable[Path], *outputs: Output, stub: Any = None, **options: Any) -> None:
        self.stub = stub or StubInverter()
        self.outcome, self.failed, self.done = Outcome(), list[str](), 0
        about: dict[str, Any] = {"decoding": {}, "by": "me"} | options

        def done() -> None:
            self.done += 1

        Captioning(inverter=self.stub, **about).run(files, outputs, self.outcome, failed=self.failed.append, done=done)


def carrying(path: Path, prompt: str, red: int = 0) -> None:
    path.write_bytes(png({"parameters": f"{prompt}\n{SETTINGS}"}, coloured(red)))
