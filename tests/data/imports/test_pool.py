import os
import signal
import time

import pytest

from data.imports.pool import WorkerError, worker_pool


def doubled(number: int) -> int:
    time.sleep(0.01 * (number % 3))
    return 2 * number


def killed(number: int) -> int:
    if number == 40:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order_and_items_are_asked_for_as_needed(workers: int) -> None:
    asked: list[int] = []

    def items():
        for number in range(200):
            asked.append(number)
            yield number

    with worker_pool(workers) as pool:
        results = pool.map(doubled, items(), chunk=4)
        assert next(results) == 0
        assert len(asked) < 100
        assert [0, *results] == [2 * number for number in range(200)]


def test_a_killed_worker_is_an_error_and_not_a_wait() -> None:
    begun = time.monotonic()
    with pytest.raises(WorkerError, match="a worker process was killed"), worker_pool(2) as pool:
        list(pool.map(killed, range(1000), chunk=8))
    assert time.monotonic() - begun < 20


def test_an_error_in_a_worker_is_the_error() -> None:
    with pytest.raises(ZeroDivisionError), worker_pool(2) as pool:
        list(pool.map((1).__truediv__, [1, 0]))
