"""Helpers of a network that computes on the same cores."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

_NICE, _LOWEST = 10, 19


def step_back() -> None:
    """Let the calling thread run when the cores have nothing better to do.

    Threads of one product wait for each other. Where a thread that reads files takes a core from one of them, both cores stand still for a time
    slice, and the product takes several times as long. A lower priority gives readers the cores whenever the network waits, and not while it
    computes. Only Linux has priorities of single threads; elsewhere nothing changes.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, min(_LOWEST, os.getpriority(os.PRIO_PROCESS, thread) + _NICE))
