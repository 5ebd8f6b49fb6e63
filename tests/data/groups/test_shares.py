import random
import shlex
from dataclasses import replace

import pytest

from data.groups.groups import Groups
from data.groups.nearness import Nearness
from data.groups.shares import Shares, shares

BY_WORDS = Nearness(sentence_model="none")


def shares_of(prompts: list[str], nearness: Nearness) -> Shares:
    found = Groups(nearness).assign((prompt, None) for prompt in prompts)
    return shares(((prompt, group) for prompt, group in zip(prompts, found, strict=True) if isinstance(group, str)), nearness.ignore_words)


def test_counts_by_hand() -> None:
    found = shares([("a red fox", "x")] * 6 + [("a red owl", "y")] * 3 + [("a ship", "z")])
    assert found == Shares(pairs=10, groups=3, largest=(6, 3, 1), common=("a", "red", "fox"))
    assert found.text == "3 groups; the largest hold 60.0 %, 30.0 %, 10.0 % of 10 pairs"
    assert found.warning is not None
    assert "one group holds 60 % of all pairs" in found.warning
    assert shares([("a red fox", "x")] * 5 + [("an owl", "y")] * 5).warning is None
    assert shares([("a fox", "x")] * 9).warning is None  # too few to tell
    assert shares([]).text == "no groups"
    assert shares([]).warning is None


def test_the_remedies_of_the_warning_work() -> None:
    """A thousand prompts with four words of their own and a long tail are one group, until the tail is ignored or more is asked for."""
    draw = random.Random(0)
    words, tail = [f"word{i}" for i in range(500)], ", ".join(f"tail{i}" for i in range(40))
    prompts = [f"{' '.join(draw.sample(words, 4))}, {tail}" for _ in range(1000)]
    found = shares_of(prompts, BY_WORDS)
    assert found.largest == (1000,)
    assert found.warning is not None
    (command,) = (line for line in found.warning.splitlines() if "--ignore-words" in line)
    ignored = tuple(shlex.split(command.partition("--ignore-words")[2]))
    assert set(ignored) == {f"tail{i}" for i in range(40)}
    for remedy in (replace(BY_WORDS, ignore_words=ignored), replace(BY_WORDS, prompt_similarity=0.9)):
        better = shares_of(prompts, remedy)
        assert better.warning is None
        assert better.largest[0] < 20


@pytest.mark.parametrize("ignored", [(), ("w0",)])
def test_where_no_words_are_common_it_says_to_ask_for_more(ignored: tuple[str, ...]) -> None:
    chain = [" ".join(["w0"] * bool(ignored) + [f"w{i + j}" for j in range(1, 13)]) for i in range(100)]
    found = shares_of(chain, replace(BY_WORDS, ignore_words=ignored))
    assert found.largest == (100,)
    assert found.common == ()
    assert found.warning is not None
    assert "--ignore-words" not in found.warning
    assert "Raise --prompt-similarity" in found.warning
    assert shares_of(chain, replace(BY_WORDS, ignore_words=ignored, prompt_similarity=0.9)).warning is None
