"""What all commands do alike: they parse before they import what takes seconds, check their numbers, write any text, and end quietly."""

from __future__ import annotations

import io
import math
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import tyro

_Config = TypeVar("_Config")


def check_least(least: float, **options: float | None) -> None:
    """
    Raises:
        ValueError: an option is below `least`; names it as it is typed.
    """
    for name, value in options.items():
        if value is not None and not value >= least:
            raise ValueError(f"--{name.replace('_', '-')} must be {least} or more, not {value}")


def check_finite(**options: float) -> None:
    """
    Raises:
        ValueError: an option is infinite or not a number; names it as it is typed.
    """
    for name, value in options.items():
        if not math.isfinite(value):
            raise ValueError(f"--{name.replace('_', '-')} must be a number, not {value}")


def read_command_line(config: type[_Config], description: str | None) -> _Config:
    """What the command line asks for: see `read_arguments`."""
    return read_arguments(lambda arguments: tyro.cli(config, args=arguments, description=description))


def read_arguments(parse: Callable[[Sequence[str]], _Config]) -> _Config:
    """To be called before the imports that take seconds: help and wrong options end the process here."""
    _write_anything()
    try:
        return parse(sys.argv[1:])
    except BrokenPipeError:  # as in `train.py --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where the interpreter would flush the rest at its end
        sys.exit(1)


def begin_command() -> None:
    """To be called when the imports are done: from here on Ctrl-C raises `KeyboardInterrupt`."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _write_anything()


def _write_anything() -> None:
    """What a terminal's encoding lacks, an emoji or a name that is no UTF-8, is written with backslashes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
