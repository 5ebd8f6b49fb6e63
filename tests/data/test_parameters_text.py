import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.parameters_text import ParametersText, common_parameters, parse_parameters_text

LINE = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60).map(str.strip)
PROMPT = st.lists(LINE, max_size=3).map("\n".join).map(str.strip).filter(lambda text: "egative prompt:" not in text)
NAME = st.from_regex(r"[A-Za-z][A-Za-z0-9 /\-]{0,20}[A-Za-z0-9]", fullmatch=True)
VALUES = st.dictionaries(NAME, LINE | st.sampled_from(['a, b: "c"', "one\ntwo", '{"model": "1, 2"}', "", '"quoted"', "\\"]), min_size=3, max_size=6)


@given(PROMPT, PROMPT, VALUES)
def test_what_is_written_reads_back(prompt: str, negative: str, values: dict[str, str]) -> None:
    text = ParametersText(prompt=prompt, negative_prompt=negative, parameters=values)
    assert parse_parameters_text(str(text)) == text


def test_several_lines_weights_loras_and_quoted_values() -> None:
    text = (
        "a castle, (masterpiece:1.2), <lora:add_detail:0.8>\nsecond line: with a colon, and commas\n"
        "Negative prompt: blurry, (deformed:1.3)\nbad hands\n"
        'Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 6.5, Seed: 123, Size: 512x768, Model: dream_8, Lora hashes: "one: 12ab, two: 34cd", '
        'TI hashes: "x: 1", Wildcard prompt: "a {b|c},\\n\\"d\\"", Hashes: {"model": "8b, 37"}, Version: v1.6.0'
    )
    found = parse_parameters_text(text)
    assert found.prompt == "a castle, (masterpiece:1.2), <lora:add_detail:0.8>\nsecond line: with a colon, and commas"
    assert found.negative_prompt == "blurry, (deformed:1.3)\nbad hands"
    assert found.parameters["Lora hashes"] == "one: 12ab, two: 34cd"
    assert found.parameters["Wildcard prompt"] == 'a {b|c},\n"d"'
    assert found.parameters["Hashes"] == '{"model": "8b, 37"}'
    assert found.parameters["Version"] == "v1.6.0"
    common = {"steps": 20, "sampler": "DPM++ 2M Karras", "guidance_scale": 6.5, "seed": 123, "model": "dream_8", "width": 512, "height": 768}
    assert common_parameters(found.parameters) == common


@pytest.mark.parametrize(
    ("text", "prompt", "negative"),
    [
        ("a cat", "a cat", ""),
        ("a cat\nNegative prompt: dog", "a cat", "dog"),
        ("Negative prompt: dog\nSteps: 2, Seed: 1, Sampler: x", "", "dog"),
        ("a cat\nsize: small, mood: good", "a cat\nsize: small, mood: good", ""),  # two parameters make no line of them
        ("Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5", "", ""),
        ("", "", ""),
    ],
)
def test_texts_that_lack_a_part(text: str, prompt: str, negative: str) -> None:
    found = parse_parameters_text(text)
    assert (found.prompt, found.negative_prompt) == (prompt, negative)
