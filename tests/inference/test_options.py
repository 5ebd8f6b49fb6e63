"""What may be asked for."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from inference.options import Decoding


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_return_sequences": 0}, "num_return_sequences must be a whole number, 1 or more, not 0"),
        ({"num_return_sequences": 5}, r"num_return_sequences must be 1 to num_beams \(4\), not 5"),
        ({"num_beams": 0}, "num_beams must be a whole number, 1 or more, not 0"),
        ({"num_beams": 2.0}, r"num_beams must be a whole number, 1 or more, not 2\.0"),
        ({"num_beams": True}, "num_beams must be a whole number, 1 or more, not True"),
        ({"num_beams": None}, "num_beams must be a whole number"),
        ({"min_new_tokens": -1}, "min_new_tokens must be a whole number, 0 or more, not -1"),
        ({"max_new_tokens": 0}, "max_new_tokens must be a whole number, 1 or more, not 0"),
        ({"max_new_tokens": "3"}, "max_new_tokens must be a whole number, 1 or more, not '3'"),
        ({"do_sample": True, "top_k": -1}, "top_k must be a whole number, 0 or more, not -1"),
        ({"do_sample": True, "seed": 1.5}, r"seed must be a whole number, not 1\.5$"),
        ({"seed": 1}, "^seed: how to draw prompts; add do_sample=True"),
        ({"seed": 0}, "^seed: how to draw prompts"),
        ({"temperature": 0.5, "top_k": 3, "top_p": 0.9}, "^temperature, top_k, top_p: how to draw prompts; add do_sample=True"),
        ({"bad_words": "cat"}, r"bad_words must be a list of words, such as \['cat'\], not one text"),
    ],
)
def test_what_cannot_be_meant_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Decoding(**options)


def test_what_there_is_not_is_named() -> None:
    with pytest.raises(TypeError, match="num_return"):
        Decoding(num_return=3)  # type: ignore[call-arg]


def test_what_can_be_meant_is_taken() -> None:
    assert Decoding() == Decoding(temperature=1.0, top_k=0, top_p=1.0, seed=None)  # what does nothing is no contradiction
    assert Decoding(do_sample=True, num_return_sequences=9, num_beams=1).num_return_sequences == 9  # beams are a search's
    assert Decoding(do_sample=True, seed=-5).seed == -5
    assert Decoding(max_new_tokens=1, min_new_tokens=0, num_return_sequences=4).max_new_tokens == 1
    assert Decoding(bad_words=iter(["a", "b"])).bad_words == ("a", "b")  # type: ignore[arg-type]  # read once, and kept


def test_a_search_and_a_draw_are_told_what_is_theirs() -> None:
    how = Decoding(num_return_sequences=2, num_beams=3, length_penalty=0.5, min_new_tokens=1, max_new_tokens=7)
    assert how.searching == {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.5}
    assert how.lengths == {"min_new_tokens": 1, "max_new_tokens": 7}
    drawn = Decoding(do_sample=True, num_return_sequences=2, temperature=0.7, top_k=4, top_p=0.8, seed=1)
    assert drawn.drawing == {"num_return_sequences": 2, "temperature": 0.7, "top_k": 4, "top_p": 0.8}
    told = {*how.searching, *how.lengths, *drawn.drawing, "do_sample", "seed", "prefix", "bad_words"}
    assert told == {field.name for field in dataclasses.fields(Decoding)}
