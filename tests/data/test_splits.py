import re
import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.splits import prompt_group, split_of, words_of


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a cat on a beach", "A cat, on a beach."),
        ("masterpiece, a cat", "a cat, masterpiece"),
        ("a (red:1.2) cat", "a red cat"),
        ("a [red: 0.85] cat", "a red cat"),
        ("a  cat\n", "a cat"),
    ],
)
def test_near_duplicates_share_a_group(one: str, other: str) -> None:
    assert prompt_group(one) == prompt_group(other)


@pytest.mark.parametrize(("one", "other"), [("a cat", "a dog"), ("two cats", "three cats"), ("a cat", "a cat in a hat"), ("猫", "犬")])
def test_different_prompts_do_not(one: str, other: str) -> None:
    assert prompt_group(one) != prompt_group(other)


def test_splits_have_their_shares_and_stay() -> None:
    counts = Counter(split_of(prompt_group(f"prompt {i}")) for i in range(20_000))
    assert counts["test"] == pytest.approx(1000, rel=0.15)
    assert counts["val"] == pytest.approx(1000, rel=0.15)


def test_rule_is_the_documented_one() -> None:
    import hashlib

    for i in range(300):
        part = int(hashlib.sha256(f"g{i}".encode()).hexdigest()[:16], 16) % 100
        assert split_of(f"g{i}") == ("test" if part < 5 else "val" if part < 10 else "train")


@pytest.mark.parametrize(
    ("prompt", "group"),
    [
        ("", "e3b0c44298fc1c14"),
        ("a cat", "51e4674156077982"),
        ("A (red:1.2) fox, in the forest!", "15059862b5e1d5dc"),
        ("masterpiece, best quality, 1girl, 8k", "5ea9be62eea2da60"),
        ("snake_case x-ray it's 3.5", "d6d8c7c3acb50c9a"),
        ("café", "850f7dc43910ff89"),
        ("größe", "d179961a977e3d4b"),
        ("кошка", "8dd8bbbac22f7711"),
    ],
)
def test_groups_keep_their_names(prompt: str, group: str) -> None:
    """They are in data sets that exist."""
    assert prompt_group(prompt) == group


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("ｃａｔ （ｒｅｄ：１．２）", "cat red"),
        ("cafe\u0301 CAFÉ", "café"),
        ("ﬁre № 5", "fire no 5"),
        ("सोफे पर बिल्ली", "सोफे पर बिल्ली"),  # the vowel signs belong to the words
        ("고양이가 \u1100\u1161\u11ab", "고양이가 간"),
        ("一只猫, a cat", "一只 只猫 a cat"),
        ("猫", "猫"),
        ("3匹の猫", "3 匹の の猫"),
        ("ｿﾌｧ", "ソフ ファ"),
        ("แมวนอน", "แมว มวน วนอ นอน"),
        ("ແມວ", "ແມວ"),
        ("ឆ្មា", "ឆ្ម ្មា"),
        ("ကြောင်", "ကြေ ြော ောင ာင်"),
        ("😀🐱 cat 👍🏽", "😀 🐱 cat 👍 🏽"),
        ("❤\ufe0f ★", "❤ ★"),
        ("🇦🇺🇺🇦", "🇦🇺 🇺🇦"),
        ("👨\u200d👧", "👨 👧"),
        ("می\u200cخواهم", "میخواهم"),
        ("Disney™ castle — “old”", "disney castle old"),
        ("─── !!! …", ""),
        ("\ud800 x\u00ady é", "xy é"),
    ],
)
def test_words_of_any_script(prompt: str, words: str) -> None:
    assert words_of(prompt) == set(words.split())


def test_prompts_of_emoji_or_of_scripts_without_spaces_are_told_apart() -> None:
    prompts = ["😀", "🐱🏰", "🇦🇺", "แมวนอนบนโซฟา", "ปราสาทบนภูเขา", "一只猫躺在沙发上", "雾中山上的城堡", "霧の中の城"]
    assert len({prompt_group(prompt) for prompt in prompts}) == len(prompts)


@given(st.text(max_size=40))
def test_the_form_of_unicode_does_not_matter(prompt: str) -> None:
    forms = [unicodedata.normalize(form, prompt) for form in ("NFC", "NFD", "NFKC", "NFKD")]
    assert len({words_of(form) for form in forms}) == 1


@given(st.text(alphabet=st.characters(max_codepoint=127), max_size=60))
def test_ascii_is_read_as_ever(prompt: str) -> None:
    plain = re.sub(r":\s*\d*\.?\d+\s*(?=[)\]])", "", prompt).casefold()
    assert words_of(prompt) == set(re.findall(r"\w+", plain))
    assert words_of(f"{prompt} é") - {"é"} == words_of(prompt)  # by the way that other scripts go
