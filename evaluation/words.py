"""What the word-based metrics count as a word."""

from __future__ import annotations

import re
import unicodedata

# scripts without spaces between words: Thai, Lao, Burmese, Khmer, kana and Han
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_MARKS = "".join(chr(code) for code in range(0x300, 0x1E00) if unicodedata.category(chr(code)).startswith("M"))  # vowel signs, accents
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}](?:[^\W{_UNSPACED}]|[{_MARKS}])*|[^\w\s]")


def words(text: str) -> list[str]:
    """Lower-case words and punctuation marks: the tokens of the word-based metrics. Forms of Unicode are made one (NFC); where a script has no spaces
    each character is a word, as sacrebleu and COCO's tokenizers have it for Chinese."""
    return _WORD.findall(unicodedata.normalize("NFC", text.casefold()))


def is_word(token: str) -> bool:
    """Whether it is a word and no mark: "long_hair" and words with vowel signs, which `str.isalnum` is not true of, are words too."""
    return any(sign.isalnum() for sign in token)
