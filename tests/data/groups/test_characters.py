import math
import random
from collections import Counter

import numpy as np

from data.groups.characters import grams_of, nearest_by_characters


def cosine(one: str, other: str) -> float:
    ours, theirs = Counter(grams_of(one)), Counter(grams_of(other))
    return sum(ours[gram] * theirs[gram] for gram in ours) / math.sqrt(sum(n * n for n in ours.values()) * sum(n * n for n in theirs.values()))


def test_four_neighbouring_characters_whatever_the_case_spaces_and_form() -> None:
    assert grams_of("A  cat\n") == [" a c", "a ca", " cat", "cat "]
    assert grams_of("ｃａｔ") == [" cat", "cat "]
    assert grams_of("") == ["  "]


def test_the_nearest_is_that_of_all_pairs() -> None:
    draw = random.Random(0)
    words = ["red", "reddish", "fox", "foxes", "ox", "", "猫"]
    some, known = ([" ".join(draw.choices(words, k=draw.randrange(5))) for _ in range(150)] for _ in range(2))
    best, where = (np.concatenate(parts) for parts in zip(*nearest_by_characters(some, known), strict=True))
    for i, prompt in enumerate(some):
        every = [cosine(prompt, other) for other in known]
        assert np.isclose(best[i], max(every), atol=1e-6)
        assert np.isclose(every[where[i]], max(every), atol=1e-6)


def test_it_sees_what_words_do_not() -> None:
    ((best, _),) = nearest_by_characters(["a red-foxes' den"], ["the reddish fox denning"])
    ((same, _),) = nearest_by_characters(["photorealistic landscapes"], ["photorealistically landscaped"])
    assert 0.1 < best[0] < 0.5 < 0.7 < same[0] < 1
