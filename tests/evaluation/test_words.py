from evaluation.words import is_word, words


def test_words_are_lower_case_and_marks_are_words() -> None:
    assert words("A (cat:1.2), Naïve") == ["a", "(", "cat", ":", "1", ".", "2", ")", ",", "naïve"]
    assert words("STRASSE") == words("Straße")


def test_words_are_told_from_marks() -> None:
    assert [is_word(word) for word in words("1girl, long_hair! नमस्ते _ — 猫 e\u0301")] == [True, False, True, False, True, False, False, True, True]


def test_words_of_scripts_without_spaces_and_forms_of_unicode() -> None:
    assert words("猫が座る, cat") == ["猫", "が", "座", "る", ",", "cat"]
    assert words("แมว") == ["แ", "ม", "ว"]
    assert words("बिल्ली सोती") == ["बिल्ली", "सोती"]  # marks belong to their letters
    assert words("na\u00efve caf\u00e9") == words("nai\u0308ve cafe\u0301") == ["na\u00efve", "caf\u00e9"]
