"""What is printed, and that outputs are closed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from inverters import row

from inference.line_files import JsonLines
from inference.outputs import OutputError, Printed, opened


def test_outputs_are_closed_at_the_end_and_where_a_later_one_cannot_be_opened(tmp_path: Path) -> None:
    held: list[JsonLines] = []

    def build() -> JsonLines:
        held.append(JsonLines(tmp_path / "a", "skip", "me"))
        return held[-1]

    def fails() -> Any:
        raise OutputError("no")

    with opened([build]) as outputs:
        assert outputs == held
    with pytest.raises(OutputError, match="no"), opened([build, fails]):
        pass
    with opened([build]):  # nobody holds it
        pass
    assert len(held) == 3


def test_lines_are_printed_with_the_note_on_the_first() -> None:
    lines: list[str] = []
    one = row(Path("a\tb.png"), prompts=("a\tcat\non a mat", "a dog"), note="unsure")
    Printed(lines.append, as_json=False).write(one)
    assert lines == ["a\\tb.png\ta cat on a mat\tunsure", "a\\tb.png\ta dog"]
    lines.clear()
    printed = Printed(lines.append, as_json=True)
    assert not printed.has(Path("a.png"))
    printed.write(one)
    assert [json.loads(line) for line in lines] == [one.as_json()]
