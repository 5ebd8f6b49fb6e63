from evaluation.words import words


def test_words_are_lower_case_and_marks_are_words() -> None:
    assert words("A (cat:1.2), Naïve") == ["a", "(", "cat", ":", "1", ".", "2", ")", ",", "naïve"]


def test_words_of_scripts_without_spaces_and_forms_of_unicode() -> None:
    assert words("猫が座る, cat") == ["猫", "が", "座", "る", ",", "cat"]
    assert words("แมว") == ["แ", "ม", "ว"]
    assert words("बिल्ली सोती") == ["बिल्ली", "सोती"]  # marks belong to their letters
    assert words("na\u00efve caf\u00e9") == words("nai\u0308ve cafe\u0301") == ["na\u00efve", "caf\u00e9"]
