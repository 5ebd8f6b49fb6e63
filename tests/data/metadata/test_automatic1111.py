import pytest
from graphs import SETTINGS
from hypothesis import given
from hypothesis import strategies as st

from data.metadata.automatic1111 import ParametersText, common_parameters, parameters_text, parse_parameters_text, says_settings

LINE = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60).map(str.strip)
PROMPT = st.lists(LINE, max_size=3).map("\n".join).map(str.strip).filter(lambda text: "egative prompt" not in text and "teps" not in text)
NAME = st.from_regex(r"[A-Za-z][A-Za-z0-9 /\-]{0,20}[A-Za-z0-9]", fullmatch=True).filter(lambda name: "emplate" not in name)
VALUES = st.dictionaries(NAME, LINE | st.sampled_from(['a, b: "c"', "one\ntwo", '{"model": "1, 2"}', "", '"quoted"', "\\"]), min_size=2, max_size=6)


@given(PROMPT, PROMPT, VALUES, st.booleans())
def test_what_is_written_reads_back(prompt: str, negative: str, values: dict[str, str], with_steps: bool) -> None:
    parameters = ({"Steps": "20"} if with_steps else {}) | {"Seed": "5"} | values
    text = ParametersText(prompt=prompt, negative_prompt=negative, parameters=parameters)
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
        ("a cat\nmood: good, light: soft, lens: 50 mm", "a cat\nmood: good, light: soft, lens: 50 mm", ""),  # nor do three of nobody's
        ("Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5", "", ""),
        ("a staircase\nSteps: 20 of stone, and a door", "a staircase\nSteps: 20 of stone, and a door", ""),
        ("masterpiece, a cat,\nSteps: 20, Sampler: x, Seed: 5", "masterpiece, a cat,", ""),
        ("", "", ""),
    ],
)
def test_texts_that_lack_a_part(text: str, prompt: str, negative: str) -> None:
    found = parse_parameters_text(text)
    assert (found.prompt, found.negative_prompt) == (prompt, negative)


@pytest.mark.parametrize(
    "after",
    [
        "\nTemplate: a {red|blue} cat, in snow\nNegative Template: dog",
        "\nTemplate: a {red|blue} cat,\nin snow\nSteps: none",
        '\nControlNet 0: "preprocessor: canny, weight: 1", Hires upscale: 2',
        ", \nControlNet-0 Enabled: True, ControlNet-0 Module: none",
        ", Wildcard prompt: a {red|blue}\nNegative prompt of old, Version: v1.6",
        "\r\n\r\nTemplate: x\r\n",
        "\n\n",
        ", Tiling, Version: v1.2",
        ', Lora hashes: "a: 1,\nb: 2"',
    ],
)
def test_settings_are_where_the_steps_are_whatever_follows(after: str) -> None:
    found = parse_parameters_text(f"a red cat\nin snow\nNegative prompt: dog\n{SETTINGS}{after}")
    assert (found.prompt, found.negative_prompt) == ("a red cat\nin snow", "dog")
    common = {"steps": 20, "sampler": "Euler a", "guidance_scale": 7, "seed": 5, "width": 512, "height": 768}
    assert common_parameters(found.parameters) == common


def test_templates_and_what_follows_a_line_break_are_kept() -> None:
    found = parse_parameters_text(
        f"a red cat\n{SETTINGS}, Note: one\ntwo, Version: 3\nTemplate:a {{red|blue}} cat, in snow\nNegative Template: dog, x"
    )
    assert found.parameters["Template"] == "a {red|blue} cat, in snow"
    assert found.parameters["Negative Template"] == "dog, x"
    assert found.parameters["Note"] == "one\ntwo"
    assert found.parameters["Version"] == "3"


@pytest.mark.parametrize(
    "settings",
    [
        "Steps: 20, Seed: 5, Sampler: Euler a, CFG scale: 6, Size: 64x48, Parser: native, App: SD.Next, Operations: txt2img; hires",
        "Steps: 20 | Seed: 5 | Sampler: Euler a | CFG scale: 6 | Size: 64x48 | App: SD.Next",
        "Steps: 20| Size: 64x48| Sampler: Euler a| Seed: 5| CFG scale: 6| App: SD.Next| Version: 1, 2",
        "steps: 20, sampler: Euler a, cfg scale: 6, seed: 5, size: 64 x 48",
    ],
)
def test_separators_and_spellings_of_forks(settings: str) -> None:
    found = parse_parameters_text(f"a cat\nNegative Prompt: dog\n{settings}")
    assert (found.prompt, found.negative_prompt) == ("a cat", "dog")
    assert common_parameters(found.parameters) == {"steps": 20, "seed": 5, "sampler": "Euler a", "guidance_scale": 6, "width": 64, "height": 48}


def test_all_on_one_line() -> None:
    found = parse_parameters_text("a cat, in snow Negative prompt: dog, rain Steps: 25, CFG scale: 7, Sampler: Euler a, Seed: 571, Size: 384x640")
    assert (found.prompt, found.negative_prompt) == ("a cat, in snow", "dog, rain")
    assert common_parameters(found.parameters)["seed"] == 571


def test_a_negative_prompt_on_the_line_of_the_prompt() -> None:
    found = parse_parameters_text(f"a cat, in snow, Negative prompt: dog\n{SETTINGS}")
    assert (found.prompt, found.negative_prompt) == ("a cat, in snow", "dog")


def test_a_bad_number_is_left_out_and_the_rest_is_read() -> None:
    found = parse_parameters_text(f"a cat\nSteps: 20, CFG scale: nan, Seed: {'9' * 5000}, Sampler: x, Size: big")
    assert found.prompt == "a cat"
    assert common_parameters(found.parameters) == {"steps": 20, "sampler": "x"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"a cat\n{SETTINGS}", True),
        (f"a cat\n{SETTINGS}\nTemplate: x", True),
        ("a holiday in France", False),
        ("Cake\nSteps: 1. mix flour, 2. bake", False),
        ("type: photo, mood: good, light: soft", False),
        ("Seed: 3, Model: Canon, Size: 3x4", False),  # no steps
        ("the steps: 20 of them", False),
    ],
)
def test_what_is_taken_for_settings_in_a_text_of_unknown_origin(text: str, says: bool) -> None:
    assert says_settings(text) is says


def test_many_lines_that_begin_like_settings_take_no_time() -> None:
    assert not says_settings("Steps: 1\n" * 100_000)


def test_our_pairs_read_back() -> None:
    metadata = {"prompt": "a cat,\n(fluffy:1.2)", "negative_prompt": "blurry", "seed": 7, "steps": 12, "guidance_scale": 4.0, "sampler": "DDIM"}
    found = parse_parameters_text(str(parameters_text(metadata | {"width": 8, "height": 16, "model": "mini: a, b"})))
    assert (found.prompt, found.negative_prompt) == (metadata["prompt"], "blurry")
    common = {"steps": 12, "sampler": "DDIM", "guidance_scale": 4.0, "seed": 7, "model": "mini: a, b", "width": 8, "height": 16}
    assert common_parameters(found.parameters) == common
