"""A thread that steps back does so alone."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.priority import step_back


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of single threads")
def test_only_the_calling_thread_steps_back_and_not_below_the_lowest() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = niceness()
    with ThreadPoolExecutor(1, initializer=step_back) as pool:
        assert pool.submit(niceness).result() == min(19, before + 10)
        pool.submit(step_back).result()
        assert pool.submit(niceness).result() == 19 if before >= -1 else before + 20
    assert niceness() == before
