import pytest

from core.minutes import about_minutes


@pytest.mark.parametrize(("seconds", "words"), [(0, "less than 1 min"), (59, "less than 1 min"), (60, "about 1 min"), (601, "about 10 min")])
def test_words_by_hand(seconds: float, words: str) -> None:
    assert about_minutes(seconds) == words
