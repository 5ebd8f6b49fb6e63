import re
from pathlib import Path
from typing import Any

import pytest
import torch
from examples import painted
from inverters import tiny_inverter

from inference import PromptInverter
from inference.banned import BannedWords
from tokenizer import PromptTokenizer

IMAGES = [painted("cat", "red"), painted("dog", "blue"), painted("owl", "green")]


def test_banned_words_are_not_written() -> None:
    one = tiny_inverter()
    free = one.predict(IMAGES, num_beams=3)
    word = next(word for word in free[0].prompt.split() if word.isascii() and len(word) > 1)
    assert any(word in prediction.prompt for prediction in free)
    assert not any(word in prediction.prompt for prediction in one.predict(IMAGES, num_beams=3, bad_words=[word]))


@pytest.mark.parametrize("ban", ["Two", "tWO", "two"])
def test_bans_hold_in_any_spelling_and_from_any_tokens(ban: str) -> None:
    """Letters are the likeliest tokens by far, so that words would be spelled out."""
    one = tiny_inverter()
    letters = [one.tokenizer.encode(letter)[0] for letter in "twoTWO "]
    with torch.no_grad():
        one.model.decoder.output_bias[letters] += 6.0
    drawn = [
        text
        for p in one.predict(IMAGES, do_sample=True, num_return_sequences=40, seed=1, max_new_tokens=14)
        for text in (p.prompt, *(other.prompt for other in p.alternatives))
    ]
    banned = one.predict(IMAGES, do_sample=True, num_return_sequences=40, seed=1, max_new_tokens=14, bad_words=[ban])
    kept = [text for p in banned for text in (p.prompt, *(other.prompt for other in p.alternatives))]
    begins = re.compile(r"(?<![^\W_])two", re.IGNORECASE)
    assert any(begins.search(text) for text in drawn)
    assert not any(begins.search(text) for text in kept)
    assert any(re.search(r"[^\W_]two", text, re.IGNORECASE) for text in drawn + kept)  # inside of a word it may stand


def test_a_ban_of_accents_and_of_phrases_holds() -> None:
    tokenizer = PromptTokenizer.train(["été café two dogs", "scatter cat, (cat"] * 3, vocab_size=290)
    banned = BannedWords(tokenizer, (word for word in ["ÉTÉ", "two dogs", "cat", "caf\u00e8", "énorme"]))

    def allowed(text: str) -> bool:
        tokens = tokenizer.encode(text)
        return all(token not in banned(tokens[:place]) for place, token in enumerate(tokens))

    for text in (
        *(
            "un été",
            "Été",
            "un ÉTÉ",
            "Two Dogs",
            "see two dogs run",
            "two dogsled",
            "cat",
            "a (cat)",
            "scatter cat",
            "catty",
            "un cafe\u0300",
            "Énorme",
        ),
    ):
        assert not allowed(text), text
        assert banned.held_by(text), text
    for text in ("café", "two  mad dogs", "dogs two", "xété", "scatter", "concat", "écat", "xénorme"):
        assert allowed(text), text
        assert not banned.held_by(text), text


def test_bans_hold_for_the_words_of_a_bert(tmp_path: Path) -> None:
    """Whose decoder takes spaces away beside punctuation, and leaves special tokens out."""
    from gits import WORDS, save_git

    save_git(tmp_path)
    tokenizer = PromptTokenizer.load(tmp_path / "tokenizer.json")
    ids = {word: place for place, word in enumerate(WORDS)}
    banned = BannedWords(tokenizer, ["ab.", "c, d", "e,f", "cat"])

    def allowed(*words: str) -> bool:
        tokens = [ids[word] for word in words]
        return all(token not in banned(tokens[:place]) for place, token in enumerate(tokens))

    for words in (
        ("a", "##b", "."),
        ("c", ",", "d"),
        ("e", ",", "f"),
        ("cat",),
        ("c", "##a", "[MASK]", "##t"),
        ("a", "cat", "##s"),
        ("[UNK]", "cat"),
    ):
        assert not allowed(*words), words
    for words in (("a", "##b"), ("c", "d"), ("c", ",", "e"), ("c", "a")):
        assert allowed(*words), words
    assert banned.held_by("x e, f")  # as the decoder would write it
    git = PromptInverter.from_pretrained(tmp_path)
    for prediction in git.predict(IMAGES, do_sample=True, num_return_sequences=3, seed=1, max_new_tokens=9):
        assert "".join(token.text for token in prediction.tokens) == prediction.prompt


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bad_words": [3]}, r"bad_words must be a list of words, not \[3\]"),
        ({"num_beams": 2.5}, "num_beams must be a whole number, 1 or more, not 2.5"),
        ({"min_new_tokens": 1.5}, "min_new_tokens must be a whole number"),
        ({"max_new_tokens": True}, "max_new_tokens must be a whole number"),
        ({"batch_size": 2.5}, "batch_size must be a whole number"),
        ({"length_penalty": float("nan")}, "length_penalty must be a number from -100 to 100"),
        ({"length_penalty": 1e6}, "length_penalty must be a number from -100 to 100"),
        ({"bad_words": "cat"}, r"bad_words must be a list of words, such as \['cat'\]"),
        ({"bad_words": ["Cat"], "prefix": "a photo of a cat"}, "holds the banned word 'cat'"),
    ],
)
def test_bans_that_cannot_be_meant_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_inverter().predict(IMAGES, **arguments)
