import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.groups.words import Counted, WordIndex, jaccard, nearest_by_words
from data.splits import words_of

SIMILARITIES = (0.2, 1 / 3, 0.5, 2 / 3, 0.7, 0.8, 0.9, 1.0)


def check(prompts: list[frozenset[str]], similarity: float, group_size: int = 2) -> WordIndex:
    """Each is near to just those before it that a comparison with all finds."""
    index = WordIndex(similarity)
    for number, words in enumerate(prompts):
        expected = {f"group {other // group_size}" for other in range(number) if words and jaccard(words, prompts[other]) >= similarity}
        assert index.near(words) == expected
        index.add(str(number), f"group {number // group_size}", words)
    return index


@settings(max_examples=150, deadline=None)
@given(st.lists(st.frozensets(st.sampled_from("abcdefghijklmnop"), max_size=12), max_size=40), st.sampled_from(SIMILARITIES))
def test_it_finds_what_comparing_each_with_all_finds(prompts: list[frozenset[str]], similarity: float) -> None:
    check(prompts, similarity)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("tail", [0, 12, 24])
def test_also_where_prompts_share_a_tail_and_orders_change(similarity: float, tail: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.groups.words._PAID", 1)  # new orders often
    monkeypatch.setattr("data.groups.words._FEW", 3)  # postings by groups soon
    monkeypatch.setattr("data.groups.words._AT_ONCE", 5)
    draw = random.Random(tail)
    shared = [f"tail{i}" for i in range(tail)]
    prompts = [frozenset([*draw.sample(shared, max(0, tail - draw.randrange(3))), *draw.choices("abcdefghij", k=4)]) for _ in range(250)]
    check(prompts, similarity, group_size=draw.choice([1, 7, 100]))


def test_one_of_many_in_a_large_group_is_found() -> None:
    """Not the last ones of the group, nor the first."""
    index, tail = WordIndex(0.9), [f"t{i}" for i in range(8)]
    for number in range(300):
        own = [f"own {number}", "a", "b"] if number == 150 else [f"own {number}", f"{number} a", "x"]
        index.add(str(number), "one group", frozenset([*tail, *own]))
    assert index.near(frozenset([*tail, "own 150", "a", "b"])) == {"one group"}
    assert index.near(frozenset([*tail, "a", "b", "c"])) == set()


def test_a_tail_that_all_prompts_have_costs_nothing() -> None:
    """What is looked at grows with the prompts, and not with their square."""
    looked = []
    for count in (500, 2000):
        draw, index = random.Random(0), WordIndex(0.8)
        tail = [f"tail{i}" for i in range(20)]
        for number in range(count):
            words = frozenset([*tail, *(f"word{draw.randrange(10 * count)}" for _ in range(4))])
            index.near(words)
            index.add(str(number), str(number), words)
        looked.append(index._looked)
    assert looked[1] < 6 * looked[0]
    assert looked[1] < 2000 * 30


def test_also_a_tail_that_comes_later() -> None:
    """Words that were not there before are taken for rare ones, until they are known to be common."""
    draw, index = random.Random(0), WordIndex(0.8)
    own = [f"word{i}" for i in range(2000)]
    tail = [f"tail{i}" for i in range(20)]
    index.add("own", "own", frozenset(own))  # another data set's
    for number in range(2000):
        words = frozenset([*tail, *draw.sample(own, 4)])
        index.near(words)
        index.add(str(number), str(number), words)
    assert index._looked < 2000 * 300  # 2,000 * 2,000 / 2 and more, were each compared with all


def test_the_first_of_the_same_prompts_counts() -> None:
    index = WordIndex(0.8)
    index.add("key", "first", frozenset("ab"))
    index.add("key", "second", frozenset("ab"))
    assert index.group("key") == "first"
    assert index.group("other") is None
    assert index.near(frozenset("ab")) == {"first"}


def test_the_nearest_prompt_is_that_of_all_pairs() -> None:
    draw = random.Random(0)
    words = [f"w{i}" for i in range(30)]
    some, known = ([" ".join(draw.choices(words, k=draw.randrange(0, 9))) for _ in range(300)] for _ in range(2))
    best, where = (np.concatenate(parts) for parts in zip(*nearest_by_words(some, known), strict=True))
    for i, prompt in enumerate(some):
        every = [jaccard(words_of(prompt), words_of(other)) for other in known]
        assert np.isclose(best[i], max(every))
        assert np.isclose(every[where[i]], max(every))


def test_what_is_ignored_does_not_count_unless_nothing_else_is_left() -> None:
    counted = Counted(["Masterpiece", "best quality", "傑作の絵"])
    assert counted.words("a fox, masterpiece, (best quality:1.2)") == {"a", "fox"}
    assert counted.words("best quality, masterpiece") == {"best", "quality", "masterpiece"}
    assert counted.text("a red fox, masterpiece, Best Quality, in the snow, 傑作の絵") == "a red fox, in the snow"
    assert counted.text("Masterpiece, best quality") == "Masterpiece, best quality"
    assert Counted().text("a fox ,  masterpiece,") == "a fox ,  masterpiece,"
    ((best, _),) = nearest_by_words(["a fox, masterpiece, best quality"], ["an owl, masterpiece, best quality", "a fox"], counted)
    assert best.tolist() == [1.0]
