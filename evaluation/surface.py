"""What predictions look like, whatever the pictures: empty, looping, all alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluation.overlap import Scores
from evaluation.words import is_word, words

_REPEATS = 4  # of a phrase, one after another
_LONGEST_PHRASE = 4  # words


def degenerate(predictions: Sequence[str]) -> Scores:
    """1 where a text has no word, or says a phrase of one to four words four times in a row ("a cat a cat a cat a cat")."""
    return np.array([float(_loops(words(prediction))) for prediction in predictions])


def _loops(text: list[str]) -> bool:
    if not any(map(is_word, text)):
        return True
    for length in range(1, _LONGEST_PHRASE + 1):
        in_a_row = 0
        for place in range(length, len(text)):
            in_a_row = in_a_row + 1 if text[place] == text[place - length] else 0
            if in_a_row == length * (_REPEATS - 1):
                return True
    return False


def vocabulary_size(predictions: Sequence[str]) -> int:
    """Different words in all predictions."""
    return len({word for prediction in predictions for word in words(prediction) if is_word(word)})


def mean_length(predictions: Sequence[str]) -> float:
    """Words of a prediction, marks not counted."""
    return float(np.mean([sum(map(is_word, words(prediction))) for prediction in predictions]))
