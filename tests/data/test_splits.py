from collections import Counter

import pytest

from data.splits import prompt_group, split_of


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a cat on a beach", "A cat, on a beach."),
        ("masterpiece, a cat", "a cat, masterpiece"),
        ("a (red:1.2) cat", "a red cat"),
        ("a [red: 0.85] cat", "a red cat"),
        ("a  cat\n", "a cat"),
    ],
)
def test_near_duplicates_share_a_group(one: str, other: str) -> None:
    assert prompt_group(one) == prompt_group(other)


@pytest.mark.parametrize(("one", "other"), [("a cat", "a dog"), ("two cats", "three cats"), ("a cat", "a cat in a hat"), ("猫", "犬")])
def test_different_prompts_do_not(one: str, other: str) -> None:
    assert prompt_group(one) != prompt_group(other)


def test_splits_have_their_shares_and_stay() -> None:
    counts = Counter(split_of(prompt_group(f"prompt {i}")) for i in range(20_000))
    assert counts["test"] == pytest.approx(1000, rel=0.15)
    assert counts["val"] == pytest.approx(1000, rel=0.15)


def test_rule_is_the_documented_one() -> None:
    import hashlib

    for i in range(300):
        part = int(hashlib.sha256(f"g{i}".encode()).hexdigest()[:16], 16) % 100
        assert split_of(f"g{i}") == ("test" if part < 5 else "val" if part < 10 else "train")
