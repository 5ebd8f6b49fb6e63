import random
from dataclasses import replace

import numpy as np
import pytest

from data.embeddings import SENTENCE_MODEL
from data.groups.groups import Groups, Leak
from data.groups.nearness import Nearness
from data.groups.words import jaccard
from data.splits import prompt_group, split_of, words_of

WORDS = [f"word{i}" for i in range(400)]


BY_WORDS = Nearness(sentence_model="none")


def group_of(groups: Groups, prompt: str, picture: int | None = None) -> str | Leak:
    (found,) = groups.assign([(prompt, picture)])
    return found


def sentence(draw: random.Random, length: int = 12) -> str:
    return " ".join(draw.sample(WORDS, length))


def changed(prompt: str, draw: random.Random) -> str:
    words = prompt.split()
    words[draw.randrange(len(words))] = "changed"
    return ", ".join(draw.sample(words, len(words)))


def test_prompts_that_share_most_words_share_a_group() -> None:
    draw, groups = random.Random(0), Groups(BY_WORDS)
    prompts = [sentence(draw) for _ in range(300)]
    own = [group_of(groups, prompt) for prompt in prompts]
    assert own == [prompt_group(prompt) for prompt in prompts]  # nothing near: each begins a group
    for prompt, group in zip(prompts, own, strict=True):
        near = changed(prompt, draw)
        assert 0.8 <= jaccard(words_of(prompt), words_of(near)) < 1
        assert group_of(groups, near) == group
        assert group_of(groups, prompt.upper() + "!") == group


def test_groups_do_not_move_when_data_is_added() -> None:
    draw = random.Random(1)
    first = [sentence(draw) for _ in range(200)]
    later = [changed(prompt, draw) for prompt in first[:100]] + [sentence(draw) for _ in range(200)]
    alone, together = Groups(BY_WORDS), Groups(BY_WORDS)
    before = [group_of(alone, prompt) for prompt in first]
    assert [group_of(together, prompt) for prompt in first + later][:200] == before


def test_what_lies_between_two_splits_is_left_out() -> None:
    draw = random.Random(2)
    while True:
        words = draw.sample(WORDS, 22)
        one, other = " ".join(words[:20]), " ".join(words[2:])  # 18 of 22 shared
        between = " ".join(words[1:21])
        if split_of(prompt_group(one)) != split_of(prompt_group(other)):
            break
    groups = Groups(Nearness(sentence_model="none", prompt_similarity=0.85))
    group_of(groups, one)
    group_of(groups, other)
    assert group_of(groups, between) == Leak("prompt near two splits")
    assert group_of(groups, between) == Leak("prompt near two splits")  # and it is not remembered


def test_the_same_picture_goes_where_it_is_known() -> None:
    groups, same = Groups(BY_WORDS), 0b1011 << 200
    first = group_of(groups, "a red house", same)
    assert group_of(groups, "something else entirely", same) == first
    other = next(prompt for prompt in map(str, range(1000)) if split_of(prompt_group(prompt)) != split_of(first))
    group_of(groups, other)
    assert group_of(groups, other, same) == Leak("picture near another split")


MEANINGS = {
    "unread": [1, 0, 0],
    "one": [1, 0, 0],
    "uno": [0.96, 0.28, 0],
    "two": [0, 1, 0],
    "dos": [0.28, 0.96, 0],
    "between": [0.8, 0.6, 0],
    "far": [0, 0, 1],
}


class Meanings:
    """A sentence encoder whose vectors can be worked out by hand."""

    def __init__(self, name: str) -> None:
        self.asked: list[str] = []

    def __call__(self, texts: list[str]) -> np.ndarray:
        self.asked += texts
        return np.array([MEANINGS[text.split()[0]] for text in texts], dtype=np.float32)

    def reads(self, texts: list[str]) -> np.ndarray:
        return np.array([text.split()[0] != "unread" for text in texts])


@pytest.fixture
def by_sentences(monkeypatch: pytest.MonkeyPatch) -> Nearness:
    monkeypatch.setattr("data.groups.groups.SentenceEncoder", Meanings)
    return Nearness(sentence_model="by hand", sentence_similarity=0.9)


def test_prompts_that_say_the_same_share_a_group_whatever_their_words(by_sentences: Nearness) -> None:
    prompts = ["one", "far", "uno", "one", "two", "dos"]
    expected = [prompt_group(first) for first in ("one", "far", "one", "one", "two", "two")]
    assert list(Groups(by_sentences).assign((prompt, None) for prompt in prompts)) == expected  # in one comparison
    groups = Groups(by_sentences)
    assert [group_of(groups, prompt) for prompt in prompts] == expected  # each in one of its own


def test_what_says_the_same_as_prompts_of_two_splits_is_left_out(by_sentences: Nearness) -> None:
    """Also where its words are those of a prompt that is known."""
    train = next(text for i in range(1000) if split_of(prompt_group(text := f"one {i}")) == "train")
    test = next(text for i in range(1000) if split_of(prompt_group(text := f"two {i}")) == "test")
    nearness = replace(by_sentences, sentence_similarity=0.6)
    groups = Groups(nearness)
    assert list(groups.assign([(train, None), (test, None), ("between", None), ("between", None)])) == [
        prompt_group(train),
        prompt_group(test),
        *[Leak("prompt near two splits")] * 2,
    ]
    groups.add([("far", prompt_group(test), None)])
    assert group_of(groups, "far far") == prompt_group(test)


def test_what_the_model_cannot_read_is_left_to_the_words(by_sentences: Nearness) -> None:
    prompts = ["one", "unread thai", "unread chinese", "unread thai !"]
    assert list(Groups(by_sentences).assign((prompt, None) for prompt in prompts)) == [*map(prompt_group, prompts[:3]), prompt_group("unread thai")]


def near_pairs(prompts: list[str], similarity: float) -> list[tuple[int, int]]:
    """By comparing each with all."""
    words = [words_of(prompt) for prompt in prompts]
    return [(i, j) for i in range(len(words)) for j in range(i) if jaccard(words[i], words[j]) >= similarity]


def components(count: int, pairs: list[tuple[int, int]]) -> list[int]:
    """For each of `count` the lowest that it is joined to, over any number of steps (union-find)."""
    parents = list(range(count))

    def root(one: int) -> int:
        while parents[one] != one:
            one = parents[one]
        return one

    for one, other in pairs:
        low, high = sorted((root(one), root(other)))
        parents[high] = low
    return [root(one) for one in range(count)]


def crossing(prompts: list[str], groups: list[str], similarity: float) -> int:
    """How many sets of prompts that are joined by nearness are in more than one split."""
    splits: dict[int, set[str]] = {}
    for prompt_set, group in zip(components(len(prompts), near_pairs(prompts, similarity)), groups, strict=True):
        splits.setdefault(prompt_set, set()).add(split_of(group))
    return sum(len(where) > 1 for where in splits.values())


@pytest.mark.parametrize("similarity", [0.5, 0.8])
def test_no_group_crosses_a_split(similarity: float) -> None:
    """Compared with what joining all near pairs finds; and what is left out is what would cross."""
    draw = random.Random(5)
    prompts = [sentence(draw) for _ in range(150)]
    for _ in range(250):
        prompts.append(changed(draw.choice(prompts), draw))
    assert crossing(prompts, [prompt_group(prompt) for prompt in prompts], similarity) > 20  # were each a group of its own
    found = list(Groups(replace(BY_WORDS, prompt_similarity=similarity)).assign((prompt, None) for prompt in prompts))
    kept = [i for i, group in enumerate(found) if isinstance(group, str)]
    groups = [group for group in found if isinstance(group, str)]
    assert crossing([prompts[i] for i in kept], groups, similarity) == 0
    assert {split_of(group) for group in groups} == {"train", "val", "test"}
    near = near_pairs(prompts, similarity)
    for i, group in enumerate(found):
        if isinstance(group, Leak):
            before = {split_of(known) for one, other in near if one == i and isinstance(known := found[other], str)}
            assert len(before) > 1
    assert len(kept) > 300


def test_ignored_words_do_not_join_prompts_but_stay_in_their_groups_names() -> None:
    draw = random.Random(6)
    tail = ", ".join(f"tail{i}" for i in range(40))
    prompts = [f"{' '.join(draw.sample(WORDS, 4))}, {tail}" for _ in range(100)]
    assert len(set(Groups(BY_WORDS).assign((prompt, None) for prompt in prompts))) == 1
    ignoring = replace(BY_WORDS, ignore_words=(tail,))
    groups = list(Groups(ignoring).assign((prompt, None) for prompt in prompts))
    assert groups == [prompt_group(prompt) for prompt in prompts]
    known = Groups(ignoring)
    known.add((prompt, group, None) for prompt, group in zip(prompts, groups, strict=True))  # as --beside does
    assert list(known.assign((prompt.split(",")[0], None) for prompt in prompts)) == groups


def test_a_data_set_keeps_the_sentence_model_it_was_begun_with() -> None:
    assert Nearness().settled({"sentence_model": None}).sentence_model == "none"
    assert Nearness().settled({}).sentence_model == "none"  # begun before there was a choice
    assert Nearness().settled({"sentence_model": "someone/model"}).sentence_model == "someone/model"
    assert Nearness(sentence_model="none").settled({"sentence_model": "someone/model"}).sentence_model == "none"
    assert Nearness().settled(None).sentence_model == SENTENCE_MODEL  # which the extra 'eval' has installed
    assert Nearness(sentence_model="none").settings() == {
        "prompt_similarity": 0.8, "sentence_model": None, "sentence_similarity": None, "ignore_words": None,
    }  # fmt: skip
    assert Nearness(ignore_words=("8k", "best quality")).settings()["ignore_words"] == ["8k", "best quality"]
    for changes in ({"prompt_similarity": 0.0}, {"sentence_similarity": 1.5}):
        with pytest.raises(ValueError, match=f"--{next(iter(changes)).replace('_', '-')} is a number above 0"):
            Nearness(**changes).settled(None)
