import pytest

from evaluation.surface import degenerate, mean_length, vocabulary_size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 1),
        (" , . ,", 1),
        ("a cat a cat a cat a cat", 1),
        ("so a cat, a cat, a cat, a cat,", 1),  # the comma is of the phrase
        ("very very very very good", 1),
        ("one two three four " * 4, 1),
        ("one two three four " * 3, 0),
        ("one two three four five " * 4, 0),  # a phrase of five
        ("very very very good", 0),
        ("a cat, a dog, a fox, a pig", 0),
        ("cat", 0),
        ("long_hair, blue_eyes", 0),
        ("नमस्ते", 0),
        ("_ __ _", 1),
    ],
)
def test_what_is_degenerate(text: str, expected: int) -> None:
    assert degenerate([text]).tolist() == [expected]


def test_words_are_counted_without_marks() -> None:
    assert vocabulary_size(["A cat, a Dog", "cat!"]) == 3
    assert mean_length(["A cat, a Dog", "cat!"]) == 2.5
    assert vocabulary_size(["long_hair, नमस्ते"]) == mean_length(["long_hair, नमस्ते"]) == 2
