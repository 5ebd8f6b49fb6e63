import hashlib
import re
import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.splits import Split, declared_split, divided, group_of, prompt_group, split_in_path, split_of, words_of


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


def test_large_data_is_divided_by_the_hash_of_its_groups_and_only_what_is_missing_leaves_train() -> None:
    groups = [f"group {i // 2}" for i in range(2000)]
    both = divided(groups, [None] * len(groups), ("val", "test"))
    assert both == [split_of(group) for group in groups]
    test = divided(groups, [None] * len(groups), ("test",))
    assert [split == "test" for split in test] == [split == "test" for split in both]
    assert set(test) == {"train", "test"}


@pytest.mark.parametrize("count", [3, 4, 5, 8, 20, 60])
def test_of_a_few_groups_every_split_gets_some_and_the_same_each_time(count: int) -> None:
    for draw in range(50):
        groups = [f"{draw} {i}" for i in range(count) for _ in range(2)]
        found = divided(groups, [None] * len(groups), ("val", "test"))
        assert set(found) == {"train", "val", "test"}
        assert found[::2] == found[1::2]  # a group stays whole
        assert found == divided(groups, [None] * len(groups), ("val", "test"))
        backwards = divided(groups[::-1], [None] * len(groups), ("val", "test"))[::-1]
        assert found == backwards  # whatever their order
        if count >= 8:  # what the hash gives to a split it keeps
            assert all(split == "test" for group, split in zip(groups, found, strict=True) if split_of(group) == "test")


def test_sixty_groups_give_at_least_one_in_twenty() -> None:
    groups = [f"{i}" for i in range(3000) if split_of(f"{i}") == "train"][:60]
    found = divided(groups, [None] * len(groups), ("val", "test"))
    assert (found.count("val"), found.count("test")) == (3, 3)
    lowest = sorted(groups, key=lambda group: hashlib.sha256(group.encode()).digest()[:8])[:6]
    assert {group for group, split in zip(groups, found, strict=True) if split != "train"} == set(lowest)


def test_fewer_groups_than_splits_are_too_few() -> None:
    assert set(divided(["a", "b"], [None, None], ("test",))) == {"train", "test"}
    for groups, missing in ((["a", "b", "a"], ("val", "test")), (["a"], ("test",))):
        with pytest.raises(ValueError, match="different prompts are too few for train and "):
            divided(groups, [None] * len(groups), missing)


def test_what_pairs_say_is_kept_and_small_splits_are_filled_from_the_others() -> None:
    groups = [f"{i}" for i in range(40)]
    said: list[Split | None] = ["val"] * 5 + ["train"] * 35
    found = divided(groups, said, ("val", "test"))
    assert found[:5] == ["val"] * 5
    assert "val" not in found[5:]
    assert found.count("test") == 2  # of those that say train, since none says test
    assert divided(groups, said, ("test",))[:5].count("val") == 0  # where val is declared otherwise, that holds
    assert set(divided(groups, ["test"] * 40, ("val", "test"))) == {"test"}  # nobody's test pairs are trained on
    assert divided(["a", "a", "b"], ["test", None, None], ("test",)).count("train") == 2 - (split_of("a") == "test") - (split_of("b") == "test")


def test_a_pair_may_say_its_group_and_directories_their_split() -> None:
    assert group_of("a cat", {"prompt_group": "mine"}) == "mine"
    assert group_of("a cat", {"prompt_group": ""}) == group_of("a cat", {}) == prompt_group("a cat")
    assert [declared_split(name) for name in ("train", "Validation", "TEST", "images", None, 3)] == ["train", "val", "test", None, None, None]
    assert [split_in_path(path) for path in ("train/0.tar", "a/val/b/0.tar", "test.tar", "0.tar", "a/test")] == ["train", "val", None, None, None]
