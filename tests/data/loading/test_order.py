from data.loading.order import ShuffledBatches


def draw(count: int, steps: int, **arguments: int) -> list[list[int]]:
    batches = iter(ShuffledBatches(count, 4, seed=1, **arguments))
    return [[place.index for place in next(batches)] for _ in range(steps)]


def test_every_epoch_sees_every_pair_once_in_another_order() -> None:
    order = [index for batch in draw(12, 6) for index in batch]
    assert sorted(order[:12]) == sorted(order[12:]) == list(range(12))
    assert order[:12] != order[12:]


def test_a_resumed_order_goes_on_where_it_stopped() -> None:
    assert draw(10, 9)[5:] == draw(10, 4, start_step=5)


def test_two_processes_share_the_batches_of_one_with_twice_the_size() -> None:
    whole = iter(ShuffledBatches(10, 8, seed=1))
    halves = [draw(10, 5, rank=rank, world_size=2) for rank in (0, 1)]
    for step in range(5):
        assert halves[0][step] + halves[1][step] == [place.index for place in next(whole)]


def test_positions_count_on_and_on() -> None:
    batches = iter(ShuffledBatches(10, 4, seed=1, start_step=2, rank=1, world_size=2))
    assert [place.position for _ in range(2) for place in next(batches)] == [20, 21, 22, 23, 28, 29, 30, 31]


def test_order_depends_on_the_seed() -> None:
    assert next(iter(ShuffledBatches(50, 8, seed=1))) != next(iter(ShuffledBatches(50, 8, seed=2)))
    assert len(draw(50, 1)[0]) == 4
