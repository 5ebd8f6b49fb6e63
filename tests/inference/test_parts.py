"""Parts of prompts, against a table written by hand, and their confidences against products of probabilities."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.parts import Part, prompt_parts
from inference.prediction import Prediction, Token
from model.confidence import Confidence

PLAIN = Confidence(label_smoothing=0.0, vocab_size=100)


def predicted(*tokens: tuple[str, float], start: str = "") -> Prediction:
    """Of tokens and their probabilities, after a forced start."""
    prompt = start + "".join(text for text, _ in tokens)
    found = [Token(text, math.log(sure), sure) for text, sure in tokens]
    return Prediction(prompt, -1.0, 0.5, tokens=found)


@pytest.mark.parametrize(
    ("prompt", "medium", "subject", "modifiers"),
    [
        ("a watercolor painting of a cat on a beach, soft light", "watercolor painting", "a cat on a beach", ["soft light"]),
        ("a cat", None, "a cat", []),
        ("a photo of a painting of a dog", "photo", "a painting of a dog", []),
        ("Pixel Art of two dogs,, sharp ,by night, ", "Pixel Art", "two dogs", ["sharp", "by night"]),
        ("the black-and-white close-up of an owl", "black-and-white close-up", "an owl", []),
        ("portrait of a king of Spain, oil painting of old", "portrait", "a king of Spain", ["oil painting of old"]),
        ("a cat, a photo of a dog", None, "a cat", ["a photo of a dog"]),  # after the first comma nothing is a medium
        ("a king of spades", None, "a king of spades", []),
        ("one two three four five photo of a cat", None, "one two three four five photo of a cat", []),
        ("a one two three four photo of a cat", "one two three four photo", "a cat", []),
        ("artist of the year", None, "artist of the year", []),
        ("a photo of", None, "a photo of", []),
        ("a drawing, of a cat", None, "a drawing", ["of a cat"]),
        ("  a sketch of a cat  ", "sketch", "a cat", []),
        ("", None, "", []),
        (",,", None, "", []),
        (", a cat", None, "", ["a cat"]),
    ],
)
def test_a_prompt_has_a_medium_a_subject_and_modifiers(prompt: str, medium: str | None, subject: str, modifiers: list[str]) -> None:
    parts = prompt_parts(predicted((prompt, 0.5)), PLAIN)
    assert (parts.medium.text if parts.medium else None, parts.subject.text) == (medium, subject)
    assert [part.text for part in parts.modifiers] == modifiers


def test_a_part_is_as_sure_as_its_tokens_together() -> None:
    tokens = [
        ("a", 0.9),
        (" photo", 0.8),
        (" of", 0.7),
        (" a", 0.6),
        (" c", 0.5),
        ("at", 0.4),
        (",", 0.3),
        (" soft", 0.2),
        (" light", 0.1),
        ("", 0.05),
    ]
    parts = prompt_parts(predicted(*tokens), PLAIN)
    assert parts.medium == Part("photo", pytest.approx(0.8))
    assert parts.subject == Part("a cat", pytest.approx(0.6 * 0.5 * 0.4))
    assert parts.modifiers == [Part("soft light", pytest.approx(0.2 * 0.1))]  # the end's token belongs to no part


def test_a_token_of_two_parts_counts_for_both() -> None:
    parts = prompt_parts(predicted(("a cat, so", 0.5), ("ft", 0.25), (", ", 0.125), ("x", 0.75)), PLAIN)
    assert parts.subject == Part("a cat", pytest.approx(0.5))
    assert parts.modifiers == [Part("soft", pytest.approx(0.5 * 0.25)), Part("x", pytest.approx(0.75))]


def test_what_was_given_is_sure() -> None:
    """Of a forced start there are no tokens."""
    parts = prompt_parts(predicted((" c", 0.5), ("at", 0.5), (", x", 0.25), start="a photo of a"), PLAIN)
    assert parts.medium == Part("photo", 1.0)
    assert parts.subject == Part("a cat", pytest.approx(0.25))
    assert parts.modifiers == [Part("x", pytest.approx(0.25))]


def test_a_character_of_several_tokens_is_as_sure_as_all_of_them() -> None:
    """Whose text stands with the last of them."""
    tokens = [("", 0.9), ("", 0.8), ("猫", 0.7), ("", 0.6), ("", 0.5), ("，", 0.4), (",", 0.3), ("", 0.2), ("犬", 0.1), ("", 0.05)]
    parts = prompt_parts(predicted(*tokens), PLAIN)
    assert parts.subject == Part("猫，", pytest.approx(0.9 * 0.8 * 0.7 * 0.6 * 0.5 * 0.4))
    assert parts.modifiers == [Part("犬", pytest.approx(0.2 * 0.1))]


def test_label_smoothing_is_undone() -> None:
    smoothed = Confidence(label_smoothing=0.1, vocab_size=10)
    sure = 0.9 * 0.8 + 0.1 / 10  # what a network shows that holds a token right with 0.8
    assert prompt_parts(predicted(("a cat", sure), (" x", sure)), smoothed).subject.confidence == pytest.approx(0.8**2)


@given(st.lists(st.text(alphabet="ab ,猫\n", max_size=4), max_size=8), st.text(alphabet="ab, ", max_size=6))
def test_any_prompt_has_parts(pieces: list[str], start: str) -> None:
    prediction = predicted(*((piece, 0.5) for piece in pieces), start=start)
    parts = prompt_parts(prediction, PLAIN)
    every = [parts.subject, *parts.modifiers]
    assert [part.text for part in every if part.text] == [text.strip() for text in prediction.prompt.split(",") if text.strip()]
    counts = [round(-math.log2(part.confidence)) for part in every]
    assert all(0 <= count <= len(pieces) for count in counts)
    # a token that is no part of a prompt, or of two, is one with a comma or with nothing but space
    alone = sum(bool(piece.strip()) and "," not in piece for piece in pieces)
    assert sum(counts) >= alone
