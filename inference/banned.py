"""Words that must not be written, whatever tokens spell them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from tokenizer import PromptTokenizer


class BannedWords:
    """For each text so far the tokens that would complete a banned word: what `CaptionModel.search` takes as `forbidden`.

    A word is banned in any case, and so is what begins with it ("cat" bans "Cats"); inside of other words it may stand ("scatter"). Tokens are judged
    by their text, since a network that may not write " panda" can write " pan" and "da".
    """

    def __init__(self, tokenizer: PromptTokenizer, words: Iterable[str]) -> None:
        """
        Raises:
            ValueError: one text instead of several, an empty one, or something else than texts.
        """
        if isinstance(words, str):
            raise ValueError(f"bad_words must be a list of words, such as [{words!r}], not one text")
        self.words = list(words)
        if not all(isinstance(word, str) for word in self.words):
            raise ValueError(f"bad_words must be a list of words, not {self.words!r}")
        if any(not word.strip() for word in self.words):
            raise ValueError("bad_words holds an empty word")
        self._pieces = [piece.lower() for piece in tokenizer.pieces]
        plain = [" ".join(word.split()) for word in self.words]
        cased = {form for word in plain for form in (word, word.lower(), word.upper(), word.capitalize(), word.title())}
        spelled = {unicodedata.normalize(form, word) for word in cased for form in ("NFC", "NFD")}
        tokens = [tokenizer.encode(form) for form in spelled]
        # as a vocabulary without accents reads it, and as it stands before the spaces beside punctuation are taken away
        found = [form.encode() for form in spelled] + [tokenizer.decode(some).encode() for some in tokens]
        found += [b"".join(tokenizer.pieces[token] for token in some) for some in tokens]
        self._words = sorted({word.strip().lower() for word in found} - {b""})
        self._longest = max(map(len, self._words), default=0)
        self._inside = [token for token, piece in enumerate(self._pieces) if any(_begins_inside(piece, word) for word in self._words)]
        # word -> how much of it a text ends with -> the tokens that go on with the rest
        self._ends = {word: [self._beginning_with(word[known:]) for known in range(len(word))] for word in self._words}

    def _beginning_with(self, rest: bytes) -> list[int]:
        return [token for token, piece in enumerate(self._pieces) if piece.startswith(rest)]

    def __call__(self, tokens: Sequence[int]) -> list[int]:
        """The tokens that may not come after `tokens`."""
        text = b""
        for token in reversed(tokens):
            text = self._pieces[token] + text
            if len(text) > self._longest:
                break
        found = list(self._inside)
        for word, ends in self._ends.items():
            for known, rest in enumerate(ends):
                begins = len(text) - known
                if text.endswith(word[:known]) and not (begins and _in_word(text[begins - 1]) and _in_word(word[0])):
                    found += rest
        return found

    def held_by(self, text: str) -> str | None:
        """A banned word that a text holds."""
        lowered = b" " + " ".join(text.split()).encode().lower()
        return next((word.decode("utf-8", "replace") for word in self._words if _begins_inside(lowered, word)), None)


def _begins_inside(text: bytes, word: bytes) -> bool:
    """Whether `word` begins after the first byte of `text`, and not within another word."""
    place = text.find(word, 1)
    while place > 0:
        if not (_in_word(text[place - 1]) and _in_word(word[0])):
            return True
        place = text.find(word, place + 1)
    return False


def _in_word(byte: int) -> bool:
    return byte >= 128 or chr(byte).isalnum()
