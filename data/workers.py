"""Processes that work through a list."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def worker_pool(workers: int) -> Iterator[Any]:
    """Processes, or the running one where one is enough."""
    if workers == 1:
        yield _InProcess()
        return
    with multiprocessing.get_context("spawn" if sys.platform == "darwin" else None).Pool(workers, _ignore_ctrl_c) as pool:
        yield pool


class _InProcess:
    """The part of `multiprocessing.Pool` that is used here."""

    def imap(self, function: Any, items: Any, chunksize: int = 1) -> Iterator[Any]:
        return map(function, items)

    imap_unordered = imap


def _ignore_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
