"""What all commands do alike: they check their numbers, write any text, and end quietly."""

from __future__ import annotations

import io
import signal
import sys


def check_least(least: float, **options: float | None) -> None:
    """
    Raises:
        ValueError: an option is below `least`; names it as it is typed.
    """
    for name, value in options.items():
        if value is not None and not value >= least:
            raise ValueError(f"--{name.replace('_', '-')} must be {least} or more, not {value}")


def begin_command() -> None:
    """To be called when the imports are done: from here on Ctrl-C raises `KeyboardInterrupt` (before, it ended the process: see the top of each
    command), and what a terminal's encoding lacks, an emoji or a name that is no UTF-8, is written with backslashes."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
