import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import PairError, TableError
from data.text import cleaned, decoded, encoding_of, normalise, prompt_column, prompts_of, strip_loras, strip_spaces, strip_weights


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


def test_bytes_become_text() -> None:
    text = "un phare à la côte"
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"):
        assert decoded(text.encode(encoding)) == text
    assert encoding_of(b"") == "utf-8"
    for foreign in ("красный маяк".encode("cp1251"), "赤い灯台".encode("shift_jis"), b"a\x81b"):
        with pytest.raises(UnicodeDecodeError):
            decoded(foreign)


def test_a_prompt_is_cleaned_in_one_way() -> None:
    assert cleaned("\ufeff a cat\r\nand a dog\r \n") == "a cat\nand a dog"
    assert cleaned("half \ud83d of it") == "half ? of it"


def test_prompts_of_a_row() -> None:
    names = ("prompt", "text")
    assert prompts_of({"text": " a\r\n"}, names, "x") == ["a"]
    assert prompts_of({"Prompt": "a", "text": "b"}, names, "x") == ["a"]
    assert prompts_of({"prompt": ["a", "b "]}, names, "x") == ["a", "b"]
    assert prompts_of({"prompt": ["a", None, " "]}, names, "x") == ["a", "", ""]  # to be counted as empty, and "a" is not lost
    for row in ({"prompt": 3}, {"prompt": []}, {"prompt": ["a", 3]}, {"words": "a"}):
        with pytest.raises(PairError, match=r"x: no text under prompt or text \(there is: (prompt|words)\)") as error:
            prompts_of(row, names, "x")
        assert error.value.kind == "no prompt"
    assert prompt_column(["ID", "Caption"], None, "f") == "Caption"
    assert prompt_column(["a", "b"], "b", "f") == "b"
    with pytest.raises(TableError, match="f has no column c; give --prompt-column, one of: a, b"):
        prompt_column(["a", "b"], "c", "f")
