"""Processes that work through a list, in order. One that is killed is an error and not a wait without end."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_AHEAD = 4  # pieces of work that wait for each process: enough to keep it busy, few enough to be held


class WorkerError(RuntimeError):
    """A worker process was killed, for want of memory most likely; says what to do."""


class Pool:
    """Maps functions over lists, in processes or, where one is enough, in the running one."""

    def __init__(self, executor: ProcessPoolExecutor | None, workers: int) -> None:
        self._executor = executor
        self._workers = workers

    def map(self, function: Callable[[_Item], _Result], items: Iterable[_Item], *, chunk: int = 1) -> Iterator[_Result]:
        """Results in the order of the items, `chunk` of which go to a process at once. Items are only asked for as they are needed.

        Raises:
            WorkerError: a process has died.
        """
        if self._executor is None:
            yield from map(function, items)
            return
        source, waiting = iter(items), deque[Future[list[_Result]]]()
        try:
            while True:
                while len(waiting) < self._workers * _AHEAD and (some := list(islice(source, chunk))):
                    waiting.append(self._executor.submit(_all, function, some))
                if not waiting:
                    return
                yield from waiting.popleft().result()
        except BrokenProcessPool as error:
            raise WorkerError(
                "a worker process was killed, for want of memory most likely. What was done is kept; run the same command again, with fewer --workers"
            ) from error
        finally:
            for future in waiting:
                future.cancel()


@contextlib.contextmanager
def worker_pool(workers: int) -> Iterator[Pool]:
    if workers == 1:
        yield Pool(None, 1)
        return
    context = multiprocessing.get_context("spawn" if sys.platform == "darwin" else None)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_ignore_ctrl_c) as executor:
        try:
            yield Pool(executor, workers)
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise


def _all(function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
    return [function(item) for item in items]


def _ignore_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
