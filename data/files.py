"""Files that are whole or not there: written under a temporary name and renamed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from data.errors import DiskFullError, ShardError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, for a file that takes its place when the `with` block ends well and of which nothing is left otherwise.

    Raises:
        DiskFullError: no space left; what was at `path` is as it was.
    """
    temporary = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise explained(error, path) from error
    finally:  # lines may take long to come, and be interrupted
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """To be asked before the work whose outcome is to be written there.

    Raises:
        OSError: it cannot be.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a directory; name a file", str(path))
    temporary = temporary_name(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.touch()
    temporary.unlink()


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """A line of JSON for each row."""
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", errors="replace") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ShardError: missing, or not JSON.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ShardError(f"{path} does not exist") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ShardError(f"{path} is not JSON ({error}); delete it and run the command that made it again") from error
    if not isinstance(content, dict):
        raise ShardError(f"{path} holds a JSON {type(content).__name__} where an object was expected")
    return content


def explained(error: OSError, path: Path) -> OSError:
    """The same error, or one that says what a full disk has cost."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(
            error.errno,
            f"the disk is full; {path} was not finished and does not count as done, what was done before is whole. "
            "Free some space and run the same command again",
        )
    return error


def temporary_name(path: Path) -> Path:
    """Beside `path`, saying whose it is."""
    return Path(f"{path}.{_owner()}.tmp")


def remove_leftovers(directory: Path) -> None:
    """Remove temporary files of runs on this machine that were killed; those of runs that go on, and of other machines, stay."""
    for path in directory.rglob("*.tmp"):
        host, _, process = path.name.removesuffix(".tmp").rpartition(".")[2].rpartition("-")
        if host == _owner().rpartition("-")[0] and process.isdecimal() and not psutil.pid_exists(int(process)):
            path.unlink(missing_ok=True)


def _owner() -> str:
    return f"{socket.gethostname().replace('.', '_')}-{os.getpid()}"
