import itertools

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
    one, other = (next(iter(ShuffledBatches(5, 5, seed=seed, pictures=[0] * 5))) for seed in (1, 2))  # captions of one picture
    assert one != other
    assert len(draw(50, 1)[0]) == 4


PICTURES = [0, 0, 0, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 16, 16]  # with 3, 1, 12 and 2 captions


def epoch(number: int, **arguments: int) -> list[int]:
    batches = iter(ShuffledBatches(18, 9, seed=1, pictures=PICTURES, start_step=2 * number, **arguments))
    return [place.index for batch in itertools.islice(batches, 2) for place in batch]


def test_captions_of_a_picture_are_neighbours_five_at_most() -> None:
    lengths = set()
    for number in range(20):
        order = epoch(number)
        assert sorted(order) == list(range(18))
        runs = [list(run) for _, run in itertools.groupby(order, key=lambda index: PICTURES[index])]
        for picture, count in ((0, 3), (3, 1), (16, 2)):
            assert [len(run) for run in runs if PICTURES[run[0]] == picture] == [count]
        lengths |= {len(run) for run in runs if PICTURES[run[0]] == 4}
    assert {2, 5} <= lengths  # 12 = 5 + 5 + 2; parts may come to stand side by side
    assert epoch(0) != epoch(1)
    together = {frozenset(index for index in epoch(number)[place : place + 2]) for number in range(20) for place in range(17)}
    assert len({pair for pair in together if pair <= set(range(4, 16))}) > 30  # in an order of their own each time


def test_pictures_of_one_caption_come_as_if_nothing_were_said_of_them() -> None:
    plain, said = (iter(ShuffledBatches(10, 4, seed=3, pictures=pictures)) for pictures in (None, range(10)))
    assert list(itertools.islice(plain, 6)) == list(itertools.islice(said, 6))
