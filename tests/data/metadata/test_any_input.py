"""Whatever stands in a file, a reader finds a prompt or names what is wrong: nothing else is raised, and nothing hangs."""

import io
import json
import random
from collections.abc import Mapping
from typing import Any

import pytest
from graphs import SETTINGS, graph, hiding, node, with_comment
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data.metadata.comfyui_nodes import BUNDLES, FIRST_OF, OUTPUTS, POPULATED, SCALARS, SHOWN, STRINGS, SWITCHES, TEXT_ENCODERS, TWO_SIDED
from data.metadata.tools import MetadataError, read_image_metadata, read_sidecar

LARGE: dict[str, Any] = graph(
    n6=node("CLIPTextEncode", text=["20", 0]),
    n20=node("ImpactSwitch", select=["24", 0], input1=["21", 0], input2=["22", 0]),
    n21=node("ImpactWildcardProcessor", wildcard_text="a {x|y}", populated_text="a x"),
    n24=node("ImpactInt", value=2),
    n22=node("Text Concatenate", text_a=["23", 0], text_b="b", delimiter=", "),
    n23=node("ShowText|pysssss", text=["25", 0]),
    n25=node("OllamaGenerate", prompt="write"),
    n3=node("KSampler", steps=9, seed=1, latent_image=["5", 0], positive=["30", 4], negative=["30", 5]),
    n30=node("Context (rgthree)", base_ctx=["31", 0]),
    n31=node("ToBasicPipe", positive=["6", 0], negative=["7", 0]),
    n40=node("DualCFGGuider", cond1=["6", 0], cond2=["7", 0], negative=["7", 0]),
    n41=node("SamplerCustomAdvanced", guider=["40", 0], latent_image=["5", 0]),
    n42=node("SaveImage", images=["43", 0], filename_prefix="y"),
    n43=node("ImageScaleBy", image=["44", 0], scale_by=2),
    n44=node("VAEDecode", samples=["41", 0]),
)
WORKFLOW = {
    "nodes": [
        {"id": 3, "type": "KSampler", "widgets_values": [5, "fixed", 20, 8, "euler", "normal", 1], "outputs": [{"name": "LATENT"}],
         "inputs": [{"name": "positive", "link": 4}, {"name": "negative", "link": 6}, {"name": "latent_image", "link": 2}]},
        {"id": 6, "type": "CLIPTextEncode", "widgets_values": ["a castle"], "inputs": [{"name": "text", "link": 8, "widget": {"name": "text"}}]},
        {"id": 7, "type": "GetNode", "widgets_values": ["words"]}, {"id": 8, "type": "SetNode", "widgets_values": ["words"], "inputs": [{"link": 9}]},
        {"id": 9, "type": "sub", "inputs": [{"name": "text", "widget": {"name": "text"}}], "properties": {"proxyWidgets": [["1", "text"]]}},
        {"id": 23, "type": "ShowText|pysssss", "widgets_values": [["shown"]]},
    ],
    "links": [[2, 5, 0, 3, 3, "LATENT"], [4, 6, 0, 3, 1, "X"], [6, 7, 0, 3, 2, "X"], [8, 7, 0, 6, 0, "X"], [9, 9, 0, 8, 0, "X"]],
    "definitions": {"subgraphs": [{"id": "sub", "nodes": [{"id": 1, "type": "CR Text", "widgets_values": ["x"]}],
                                   "links": [{"id": 1, "origin_id": 1, "origin_slot": 0, "target_id": -20, "target_slot": 0}]}]},
}  # fmt: skip
A1111 = f'a castle, (stone:1.2)\nNegative prompt: blurry\n{SETTINGS}, Note: "a, b", Hashes: {{"model": "1"}}\nTemplate: a {{b|c}}'
OBJECTS: list[Any] = [
    LARGE,
    {"prompt": LARGE, "workflow": WORKFLOW},
    WORKFLOW,
    LARGE | {"extraMetadata": json.dumps({"prompt": "a castle", "seed": 5})},
    {"prompt": "a castle", "negative_prompt": "blurry", "base_model": "x", "steps": 30, "seed": "5", "resolution": "64 x 64"},
    {"sui_image_params": {"prompt": "a castle", "negativeprompt": "blurry", "seed": 5}},
    {"positive_prompt": "a castle", "positive_style_prompt": "drawn", "negative_prompt": "blurry", "seed": 5, "model": {"model_name": "sd"}},
    {"model_weights": "sd", "image": {"prompt": [{"prompt": "a castle [blurry]", "weight": 1}], "seed": 5, "steps": 20}},
    {"uc": "blurry", "seed": 5, "prompt": "x", "v4_prompt": {"caption": {"char_captions": [{"char_caption": "red hair"}]}}},
    {"prompt": "a castle", "negativePrompt": "blurry", "baseModel": {"modelFileName": "m"}, "seed": "5"},
    {"PositivePrompt": "a castle", "NegativePrompt": "blurry", "Seed": 5},
    {"c": "a castle", "uc": "blurry", "seed": 5, "size": "512x768"},
]
DREAM = '"a castle [blurry]" -s20 -S5 -W512 -F -H768 -C7.5 -A k_lms'
XMP = f"<x><UserComment><li>{json.dumps(OBJECTS[-1])}</li></UserComment><description a='b'>{A1111}</description></x>"
SEEDS = [A1111, XMP, DREAM, *map(json.dumps, OBJECTS)]
KEYS = ["parameters", "prompt", "workflow", "Comment", "comment", "Software", "Dream", "sd-metadata", "invokeai_metadata", "Title", "Description"]
KEYS += ["XML:com.adobe.xmp", "xmp", "generation_data", "parameters-json", "UserComment", "ImageDescription"]
TABLES: list[Any] = [BUNDLES, FIRST_OF, OUTPUTS, POPULATED, SCALARS, SHOWN, STRINGS, SWITCHES, TEXT_ENCODERS, TWO_SIDED]
KINDS = sorted({kind for table in TABLES for kind in table})


def mutated_texts(draw: random.Random) -> dict[str, str]:
    """Texts of the tools, under their names or others', cut, repeated, with signs and values exchanged."""
    texts = {}
    for _ in range(draw.randint(1, 3)):
        text = draw.choice(SEEDS)
        for _ in range(draw.randint(0, 4)):
            place, end = sorted(draw.choices(range(len(text) + 1), k=2))
            new = draw.choice(
                ["", "null", "[]", "{}", "[1,", '"', "1e999", "-1", "\0", "é🜁", "[[" * 50, text[place:end] * 2, chr(draw.randint(1, 0x2FFF))]
            )
            text = text[:place] + new + text[end if draw.random() < 0.5 else place :]
        texts[draw.choice(KEYS)] = text
    return texts


def mutated_graph(draw: random.Random) -> dict[str, str]:
    """A graph with links, kinds and values exchanged: it stays JSON, and goes in circles, nowhere, or through nodes that it should not."""
    content = json.loads(json.dumps(LARGE))
    names = list(content)
    for _ in range(draw.randint(1, 6)):
        one = content[draw.choice(names)]
        inputs = one["inputs"]
        if draw.random() < 0.4:
            one["class_type"] = draw.choice([draw.choice(KINDS), content[draw.choice(names)]["class_type"]])
        if inputs:
            link = [draw.choice(names), draw.randint(-1, 6)]
            key = draw.choice([*inputs, "positive", "negative", "pipe", "conditioning", "images", "text", "select", "stage_c"])
            inputs[key] = draw.choice([link, link, link, "text", None, 3, [], {}, True, ["x"], float("inf"), "__w__", "{a|b}"])
    texts = {"prompt": json.dumps(content)}
    if draw.random() < 0.3:
        texts["workflow"] = json.dumps(WORKFLOW)
    return texts


def survives(texts: Mapping[str, str | bytes], name: str = "") -> None:
    image = Image.new("RGB", (4, 4))
    image.info.update(texts)
    try:
        found = read_image_metadata(image, name=name)
        assert found is None or (isinstance(found.prompt, str) and isinstance(found.negative_prompt, str))
    except MetadataError as error:
        assert str(error)
    for text in texts.values():
        if isinstance(text, str):
            beside = read_sidecar(text)
            assert beside is None or isinstance(beside.prompt, str)


def test_mutated_texts_and_graphs() -> None:
    draw = random.Random(1)
    for _ in range(1500):
        survives(mutated_texts(draw))
        survives(mutated_graph(draw), "y_00001_.png")


@pytest.mark.slow
def test_a_hundred_thousand_mutated_texts_and_graphs() -> None:
    draw = random.Random(2)
    for _ in range(50_000):
        survives(mutated_texts(draw))
        survives(mutated_graph(draw), "y_00001_.png")


NAMES = st.sampled_from(["nodes", "links", "prompt", "image", "1", "inputs", "class_type", "positive", "c", "p", "text", "seed", "workflow"])
LEAVES = st.none() | st.booleans() | st.floats() | st.text(max_size=9) | st.sampled_from([*KINDS, "KSampler"])
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4)).map(json.dumps)


@given(st.dictionaries(st.sampled_from(KEYS), st.text(max_size=200) | JSON))
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_any_json(texts: dict[str, str]) -> None:
    survives(texts)


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_comment(comment: bytes) -> None:
    for prefix in (b"", b"UNICODE\0", b"ASCII\0\0\0"):
        try:
            with Image.open(io.BytesIO(with_comment("JPEG", prefix + comment))) as image:
                read_image_metadata(image)
        except MetadataError as error:
            assert str(error)


def test_any_text_hidden_in_pixels() -> None:
    draw = random.Random(3)
    for _ in range(100):
        image = hiding(
            next(iter(mutated_texts(draw).values())), draw.choice(["stealth_pnginfo", "stealth_pngcomp", "stealth_rgbinfo", "stealth_rgbcomp"])
        )
        for _ in range(draw.randint(0, 3)):
            image.putpixel((draw.randrange(image.width), draw.randrange(image.height)), (0, 0, 0, 255) if image.mode == "RGBA" else (0, 0, 0))
        try:
            read_image_metadata(image)
        except MetadataError as error:
            assert str(error)


@pytest.mark.parametrize(
    "text", ['{"a":' * 200_000, "[" * 200_000, '{"prompt": ' + "[" * 200_000, "<a>" * 200_000, "Steps: 1, " * 50_000, "{" * 1_000_000]
)
def test_deep_and_long_texts_take_no_time(text: str) -> None:
    survives(dict.fromkeys(KEYS, text))
