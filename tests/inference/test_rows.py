"""Names and prompts on one line."""

from __future__ import annotations

import os

from inference.rows import one_line, printable

ODD = [b"a\nb.png", b"a\tb.png", b"caf\xe9.png", b"\"q\", 'r'.png", b"a\rb.png", b"plain.png"]


def test_a_name_is_one_line_and_spaces_stay() -> None:
    for name in map(os.fsdecode, ODD):
        text = printable(name)
        assert len(text.splitlines()) == 1
        text.encode("utf-8")
    assert printable("\x1b[31m \u202e\x7f\u200b") == "\\x1b[31m \\u202e\\x7f\\u200b"
    for space in ("\u202f", "\xa0", "\u3000", " "):  # macOS and Japanese keyboards write them
        assert printable(f"at 3{space}PM.png") == f"at 3{space}PM.png"


def test_a_prompt_is_one_line_of_one_column() -> None:
    assert one_line("a\tcat\non a mat\r\nat  night") == "a cat on a mat at night"
    assert one_line("") == ""
