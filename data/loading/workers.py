"""The processes of a loader: what they do with signals, with errors, and how they end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from core.priority import step_back
from data.errors import ImageError, PairError, ShardError
from data.loading.examples import Batch


def batches_of(loader: DataLoader[Any]) -> Iterator[Batch]:
    """The batches of a loader. When the iteration ends, however it does, its workers have ended: left to the garbage collector they miss the word,
    and the process waits ten seconds for them.

    Raises:
        ImageError, PairError, ShardError: of a worker, in their own words; a loader hands them on wrapped in the text of a traceback.
    """
    batches: Any = iter(loader)
    try:
        yield from batches
    except (ImageError, PairError, ShardError) as error:
        kind = type(error)
        raise kind(str(error).rpartition(f"{kind.__module__}.{kind.__qualname__}: ")[2].strip()) from error
    finally:
        if loader.num_workers:
            batches._shutdown_workers()
            for worker in batches._workers:
                if worker.is_alive():  # it hangs in a read
                    worker.kill()


def begin_worker(worker: int) -> None:
    """For a worker to begin with: it leaves the cores to the network, and signals to the main process.

    Ctrl-C and the SIGTERM of `timeout`, Slurm or systemd reach it as well as the main process, which decides when it ends. Until then what was begun
    is finished and saved.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    step_back()
