"""Files that do not show the picture that their metadata tell of."""

import copy
import io
import json
from typing import Any

import pytest
from graphs import graph, node, png
from PIL import Image

from data.metadata.not_pictures import GRAPH, GRID
from data.metadata.tools import ImageMetadata, NotOnePictureError, read_image_metadata

WORKFLOW: dict[str, Any] = {
    "nodes": [
        {"id": 3, "type": "KSampler", "widgets_values": [5, "fixed", 20, 8, "euler", "normal", 1], "inputs": [
            {"name": "positive", "link": 4}, {"name": "negative", "link": 6}, {"name": "latent_image", "link": 2}]},
        {"id": 5, "type": "EmptyLatentImage", "widgets_values": [512, 768, 1]},
        {"id": 6, "type": "CLIPTextEncode", "widgets_values": ["a castle"]},
        {"id": 7, "type": "CLIPTextEncode", "widgets_values": ["blurry"]},
        {"id": 8, "type": "VAEDecode", "inputs": [{"name": "samples", "link": 7}]},
        {"id": 9, "type": "SaveImage", "inputs": [{"name": "images", "link": 9}]},
    ],
    "links": [[2, 5, 0, 3, 3, "LATENT"], [4, 6, 0, 3, 1, "CONDITIONING"], [6, 7, 0, 3, 2, "CONDITIONING"], [7, 3, 0, 8, 0, "LATENT"],
              [9, 8, 0, 9, 0, "IMAGE"]],
}  # fmt: skip
PROMPT = json.dumps(graph(n5=node("EmptyLatentImage", width=512, height=768)))


def read(texts: dict[str, str], size: tuple[int, int], name: str = "") -> ImageMetadata | None:
    with Image.open(io.BytesIO(png(texts, Image.new("L", size)))) as image:
        return read_image_metadata(image, name=name)


@pytest.mark.parametrize("size", [(1459, 1141), (2324, 800), (800, 601), (513, 760)])
def test_a_picture_of_a_graph(size: tuple[int, int]) -> None:
    with pytest.raises(NotOnePictureError, match="a picture of the graph") as error:
        read({"workflow": json.dumps(WORKFLOW)}, size)
    assert error.value.kind == GRAPH
    assert error.value.metadata is not None
    assert error.value.metadata.prompt == "a castle"


@pytest.mark.parametrize("size", [(512, 768), (1024, 1536), (341, 512), (683, 1024), (512, 512)])
def test_a_picture_that_a_graph_made(size: tuple[int, int]) -> None:
    found = read({"workflow": json.dumps(WORKFLOW)}, size)
    assert found is not None
    assert found.prompt == "a castle"


def test_a_picture_of_a_graph_that_cannot_be_read() -> None:
    workflow = copy.deepcopy(WORKFLOW)
    workflow["nodes"][2]["type"] = "Mystery"
    for texts in ({"workflow": json.dumps(workflow)}, {"workflow": '{"nodes": []}'}):
        with pytest.raises(NotOnePictureError) as error:
            read(texts, (1459, 1141))
        assert error.value.metadata is None


def test_a_picture_of_a_graph_beside_the_executed_one() -> None:
    """The file has both, but it is no picture of the size that the graph makes, nor one of that shape."""
    with pytest.raises(NotOnePictureError, match="not the 512 x 768 that its graph makes"):
        read({"prompt": PROMPT, "workflow": json.dumps(WORKFLOW)}, (2324, 799))
    from_picture = json.dumps(graph(n5=node("VAEEncode", pixels=["10", 0]), n10=node("LoadImage", image="x.png")))
    with pytest.raises(NotOnePictureError, match="no picture that its graph makes"):
        read({"prompt": from_picture, "workflow": json.dumps(WORKFLOW)}, (2478, 1332))
    resized = json.dumps(graph(n9=node("SaveImage", images=["10", 0]), n10=node("SomeResizer", image=["8", 0])))
    for prompt, size in ((PROMPT, (683, 1024)), (from_picture, (640, 480)), (resized, (1001, 333))):
        found = read({"prompt": prompt, "workflow": json.dumps(WORKFLOW)}, size)
        assert found is not None
        assert found.prompt == "a castle"
    assert read({"prompt": PROMPT}, (2324, 799)) is not None  # only the editor's canvas is saved with a workflow


SETTINGS = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 32x48"


@pytest.mark.parametrize(
    ("size", "name", "more"),
    [
        ((64, 96), "grid-0001.png", ""),
        ((64, 96), "", ""),
        ((96, 48), "picture.png", ", Model: x"),
        ((128, 192), "", ", Denoising strength: 0.7"),
        ((70, 110), "grid-0001.png", ""),  # lines between, or a legend
        ((80, 130), "xyz_grid-0003-5.png", ""),
    ],
)
def test_a_grid(size: tuple[int, int], name: str, more: str) -> None:
    with pytest.raises(NotOnePictureError, match="a grid of pictures") as error:
        read({"parameters": f"a castle\n{SETTINGS}{more}"}, size, name)
    assert error.value.kind == GRID
    assert error.value.metadata is not None
    assert error.value.metadata.prompt == "a castle"


@pytest.mark.parametrize(
    ("size", "name", "more"),
    [
        ((32, 48), "grid-0001.png", ""),
        ((64, 96), "", ", Hires upscale: 2, Hires upscaler: Latent"),
        ((64, 96), "", ", Denoising strength: 0.7, First pass size: 0x0"),
        ((64, 96), "", ", Postprocess upscale by: 2, Postprocess upscaler: x"),
        ((64, 96), "", ", SD upscale overlap: 64"),
        ((64, 96), "", ", Ultimate SD upscale upscaler: x"),
        ((70, 110), "picture.png", ""),
        ((31, 47), "grid-0001.png", ""),
        ((64, 96), "", ", Size-2: x, Extras: upscaled"),
    ],
)
def test_one_picture(size: tuple[int, int], name: str, more: str) -> None:
    found = read({"parameters": f"a castle\n{SETTINGS}{more}"}, size, name)
    assert found is not None
    assert found.prompt == "a castle"


def test_a_picture_that_was_enlarged_afterwards_is_no_grid() -> None:
    found = read({"parameters": f"a castle\n{SETTINGS}", "postprocessing": "Upscale: 2"}, (64, 96))
    assert found is not None
    assert found.prompt == "a castle"


def test_a_picture_of_comfyui_is_no_grid() -> None:
    found = read({"parameters": f"a castle\n{SETTINGS}", "prompt": PROMPT}, (64, 96))
    assert found is not None
    assert found.prompt == "a castle"
