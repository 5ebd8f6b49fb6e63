"""Texts in the lowest bits of pictures."""

import io
import json
from typing import Any

import numpy as np
import pytest
from graphs import SETTINGS, graph, hiding, png
from PIL import Image

from data.metadata.hidden import hidden_text
from data.metadata.tools import ImageMetadata, MetadataError, read_image_metadata

NAMES = ["stealth_pnginfo", "stealth_pngcomp", "stealth_rgbinfo", "stealth_rgbcomp"]
A1111 = f"a castle\nNegative prompt: blurry\n{SETTINGS}"
SWARM = json.dumps({"sui_image_params": {"prompt": "a castle", "negativeprompt": "blurry", "seed": 5}})
NOVEL = json.dumps({"Description": "a castle", "Software": "NovelAI", "Comment": json.dumps({"uc": "blurry", "seed": 5})})
NOVEL_WITHOUT_ITS_NAME = json.dumps({"Description": "a castle", "Comment": json.dumps({"uc": "blurry", "seed": 5})})
CHUNKS = json.dumps({"prompt": graph(), "workflow": {"nodes": []}})
CHUNKS_OF_TEXT = json.dumps({"prompt": json.dumps(graph()), "workflow": json.dumps({"nodes": []})})
FOOOCUS = json.dumps({"prompt": "a castle", "negative_prompt": "blurry", "seed": 5, "base_model": "x"})
PARAMETERS = json.dumps({"parameters": A1111})


def read(image: Image.Image) -> ImageMetadata | None:
    return read_image_metadata(image)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("text", "tool"),
    [
        (A1111, "AUTOMATIC1111"),
        (PARAMETERS, "AUTOMATIC1111"),
        (SWARM, "SwarmUI"),
        (NOVEL, "NovelAI"),
        (NOVEL_WITHOUT_ITS_NAME, "NovelAI"),
        (json.dumps(graph()), "ComfyUI"),
        (CHUNKS, "ComfyUI"),
        (CHUNKS_OF_TEXT, "ComfyUI"),
        (FOOOCUS, "Fooocus"),
    ],
)
def test_every_place_and_every_tool(name: str, text: str, tool: str) -> None:
    found = read(hiding(text, name))
    assert found is not None
    assert (found.tool, found.prompt, found.negative_prompt, found.parameters["seed"]) == (tool, "a castle", "blurry", 5)


@pytest.mark.parametrize("name", NAMES)
def test_letters_that_are_not_latin(name: str) -> None:
    assert hidden_text(hiding("灯台 à la côte", name)) == "灯台 à la côte"


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_one_is_named(name: str) -> None:
    pixels = np.array(hiding(A1111, name))
    pixels[:, 6 if "rgb" not in name else 2 :] |= 1  # all that comes after the name and the length
    with pytest.raises(MetadataError, match="hidden in the"):
        read(Image.fromarray(pixels))
    cut = np.array(hiding(A1111 * 50, name))[:, :3]
    with pytest.raises(MetadataError, match=r"ends early|damaged"):
        read(Image.fromarray(np.ascontiguousarray(cut)))


@pytest.mark.parametrize("text", ['{"engine": "new"}', json.dumps({"prompt": 3}), '{"prompt": {"1": {"class_type": "X"}}}'])
def test_one_that_is_not_understood_is_named(text: str) -> None:
    with pytest.raises(MetadataError) as error:
        read(hiding(text, NAMES[0]))
    assert error.value.kind == "hidden text"


def test_pictures_that_hide_nothing() -> None:
    for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16"):
        for size in ((1, 1), (3, 2), (200, 100), (1, 4000)):
            assert hidden_text(Image.new(mode, size)) is None
    noise = np.random.default_rng(1).integers(0, 255, (64, 64, 4), np.uint8)
    assert hidden_text(Image.fromarray(noise, "RGBA")) is None


def test_the_texts_of_the_file_come_first() -> None:
    content = png({"parameters": f"a harbour\n{SETTINGS}"}, hiding(A1111, NAMES[0]))
    with Image.open(io.BytesIO(content)) as image:
        found: Any = read(image)
    assert found.prompt == "a harbour"
