import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.normalise import normalise, strip_loras, strip_spaces, strip_weights


@pytest.mark.parametrize(
    ("prompt", "plain"),
    [
        ("(masterpiece:1.2), a cat", "masterpiece, a cat"),
        ("((best quality)), [dog], {{owl}}", "best quality, dog, owl"),
        ("((a:1.1) cat:0.9)", "a cat"),
        (r"hatsune miku \(vocaloid\)", "hatsune miku (vocaloid)"),
        ("a clock at 10:30 (a smile :)", "a clock at 10:30 a smile :"),
        ("unbalanced (one, two]", "unbalanced (one, two]"),
        ("(a:-0.5) (b: 2 )", "a b"),
        ("back\\slash\\", "back\\slash\\"),
    ],
)
def test_weights(prompt: str, plain: str) -> None:
    assert strip_weights(prompt) == plain


def test_loras_and_spaces() -> None:
    assert strip_loras("a cat <lora:add_detail:0.8>, <3 <lyco:x:1>") == "a cat , <3 "
    assert strip_spaces(" a  cat ,, , in\nsnow , ") == "a cat, in snow"


def test_the_steps_asked_for_and_words_dropped() -> None:
    prompt = "(Masterpiece:1.3), best quality, a cat\n<lora:x:1>, masterpieces"
    assert normalise(prompt, []) == prompt
    assert normalise(prompt, ["spaces", "weights", "loras"], ["masterpiece", "best quality"]) == "a cat, masterpieces"
    assert normalise(prompt, ["loras"]) == "(Masterpiece:1.3), best quality, a cat\n, masterpieces"


@given(st.text(alphabet="ab:1.()[]{}\\<>,lor ", max_size=60))
def test_any_text_goes_through(prompt: str) -> None:
    once = normalise(prompt, ["spaces"])
    assert normalise(once, ["spaces"]) == once
    assert set(normalise(prompt, ["loras", "weights"])) <= set(prompt)
