"""Which of the pictures that a graph saves a file is."""

from typing import Any

import pytest
from graphs import graph, node, sampler

from data.metadata.comfyui import read_graph
from data.metadata.comfyui_drawn import GraphError

SECOND = {
    "n20": node("CLIPTextEncode", text="a photograph"),
    "n22": sampler(positive=["20", 0], latent_image=["21", 0]),
    "n21": node("EmptyLatentImage", width=768, height=512, batch_size=1),
    "n23": node("VAEDecode", samples=["22", 0]),
    "n24": node("SaveImage", images=["23", 0], filename_prefix="second"),
}


def prompt(content: dict[str, Any], **file: Any) -> str:
    return read_graph(content, **file).prompt


def two(**changes: Any) -> dict[str, Any]:
    """Two pictures of two prompts: 512 x 512 and 768 x 512."""
    return graph(**SECOND | changes)


def test_by_size() -> None:
    assert prompt(two(), size=(512, 512)) == "a castle"
    assert prompt(two(), size=(768, 512)) == "a photograph"
    with pytest.raises(GraphError, match="several pictures"):
        prompt(two(), size=(640, 640))
    with pytest.raises(GraphError, match="several pictures"):
        prompt(two())
    with pytest.raises(GraphError, match="several pictures"):  # both have the file's size
        prompt(two(n21=node("EmptyLatentImage", width=512, height=512)), size=(512, 512))


@pytest.mark.parametrize(
    ("nodes", "size"),
    [
        ({"n21": node("LatentUpscale", samples=["3", 0], width=1024, height=1024)}, (1024, 1024)),
        ({"n21": node("LatentUpscaleBy", samples=["3", 0], scale_by=1.5)}, (768, 768)),
        ({"n24": node("SaveImage", images=["25", 0]), "n25": node("ImageScale", image=["23", 0], width=1000, height=700)}, (1000, 700)),
        ({"n24": node("SaveImage", images=["25", 0]), "n25": node("ImageScaleBy", image=["23", 0], scale_by=0.5)}, (384, 256)),
        (
            {"n24": node("SaveImage", images=["25", 0]), "n25": node("ImageUpscaleWithModel", image=["23", 0], upscale_model=["26", 0]),
             "n26": node("UpscaleModelLoader", model_name="4x-UltraSharp.pth")},
            (3072, 2048),
        ),
        (
            {"n24": node("SaveImage", images=["25", 0]), "n25": node("ImageUpscaleWithModel", image=["23", 0], upscale_model=["26", 0]),
             "n26": node("UpscaleModelLoader", model_name="RealESRGAN_x2plus.pth")},
            (1536, 1024),
        ),
        ({"n21": node("EmptySD3LatentImage", width=["27", 0], height=640), "n27": node("PrimitiveInt", value=832)}, (832, 640)),
    ],
)  # fmt: skip
def test_sizes_that_a_graph_makes(nodes: dict[str, Any], size: tuple[int, int]) -> None:
    content = two(**nodes)
    if "3" in str(content["21"]["inputs"].get("samples")):  # made from the first picture, so that its prompt must be the same
        content["20"] = content["6"]
        assert read_graph(content, size=size).size == size
        return
    assert prompt(content, size=size) == "a photograph"
    assert prompt(content, size=(512, 512)) == "a castle"


def test_a_size_that_the_graph_does_not_say_may_be_the_files() -> None:
    content = two(n24=node("SaveImage", images=["25", 0]), n25=node("SomeResizer", image=["23", 0]))
    with pytest.raises(GraphError, match="several pictures"):
        prompt(content, size=(512, 512))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("second_00001_.png", "a photograph"),
        ("first_00012_.png", "a castle"),
        ("second.png", "a photograph"),
        ("first (1).png", "a castle"),
        ("folder/second_00001_.webp", "a photograph"),
        ("renamed.png", None),
        ("secondary.png", None),
        ("", None),
    ],
)
def test_by_name(name: str, expected: str | None) -> None:
    content = two(n9=node("SaveImage", images=["8", 0], filename_prefix="out/first"))
    if expected is None:
        with pytest.raises(GraphError, match="several pictures"):
            prompt(content, name=name.rpartition("/")[2])
    else:
        assert prompt(content, name=name.rpartition("/")[2]) == expected


def test_prefixes_that_begin_alike_and_hold_dates() -> None:
    alike = two(n9=node("SaveImage", images=["8", 0], filename_prefix="x"), n24=node("SaveImage", images=["23", 0], filename_prefix="x_up"))
    assert prompt(alike, name="x_up_00001_.png") == "a photograph"
    assert prompt(alike, name="x_00001_.png") == "a castle"
    dated = two(n9=node("SaveImage", images=["8", 0], filename_prefix="%date:yyyy-MM-dd%/%date:hhmm%_raw"))
    assert prompt(dated, name="1200_raw_00001_.png") == "a castle"


def test_where_size_and_name_say_different_things_it_is_named() -> None:
    with pytest.raises(GraphError, match="several pictures"):
        prompt(two(), size=(512, 512), name="second_00001_.png")


@pytest.mark.parametrize(
    "saving",
    [
        node("SaveVideo", video=["25", 0], filename_prefix="v"),
        node("VHS_VideoCombine", images=["23", 0], filename_prefix="v"),
        node("SaveAnimatedWEBP", images=["23", 0], filename_prefix="v"),
        node("SaveAnimatedPNG", images=["23", 0], filename_prefix="v"),
        node("SaveWEBM", images=["23", 0], filename_prefix="v"),
    ],
)
def test_a_node_that_saves_video_writes_no_picture(saving: dict[str, Any]) -> None:
    content = two(n24=saving, n25=node("CreateVideo", images=["23", 0]), n21=node("Wan22ImageToVideoLatent", start_image=["8", 0]))
    assert prompt(content) == "a castle"
    content["20"] = content["6"]
    assert prompt(content, moving=True) == "a castle"


def test_a_moving_file_is_from_a_node_that_saves_video() -> None:
    content = two(n24=node("SaveAnimatedWEBP", images=["23", 0], filename_prefix="v"))
    assert prompt(content, moving=True) == "a photograph"
    assert prompt({k: v for k, v in content.items() if k != "9"}) == "a photograph"  # the only one there is


def test_previews_latents_and_pictures_that_no_sampler_made() -> None:
    assert prompt(two(n24=node("PreviewImage", images=["23", 0]))) == "a castle"
    assert prompt(two(n24=node("PreviewImage", images=["23", 0])), name="ComfyUI_temp_abcde_00001_.png") == "a photograph"
    assert prompt(two(n24=node("SaveLatent", samples=["22", 0]))) == "a castle"
    assert prompt(two(n24=node("SaveImage", images=["25", 0]), n25=node("LoadImage", image="x.png"))) == "a castle"
    assert prompt(two(n24=node("Save Text File", text=["20", 0]))) == "a castle"


def test_a_switch_leads_only_where_it_stands() -> None:
    content = two(n9=node("SaveImage", images=["s", 0]), ns=node("ImpactSwitch", select=1, input1=["8", 0], input2=["23", 0]))
    del content["24"]
    assert prompt(content) == "a castle"
    content["s"]["inputs"]["select"] = 2
    assert prompt(content) == "a photograph"


def test_retouching_does_not_change_the_prompt() -> None:
    detail = node("FaceDetailer", image=["8", 0], positive=["20", 0], negative=["7", 0], steps=9, seed=1, sampler_name="euler")
    assert prompt(graph(n9=node("SaveImage", images=["d", 0]), nd=detail, n20=SECOND["n20"])) == "a castle"
    larger = node("UltimateSDUpscale", image=["8", 0], positive=["20", 0], negative=["7", 0], steps=9, seed=1, upscale_by=2, sampler_name="euler")
    found = read_graph(graph(n9=node("SaveImage", images=["d", 0]), nd=larger, n20=SECOND["n20"]))
    assert (found.prompt, found.size) == ("a castle", (1024, 1024))


@pytest.mark.parametrize(
    ("width", "scale"), [(0, 2), (4, 2), (512, 0.0001), (512, -1), (512, 1e300), (10**50, 2), (-8, 2), (float("nan"), 2), ("wide", "x"), (None, None)]
)
def test_sizes_that_are_none(width: Any, scale: Any) -> None:
    scaled = {f"n{i}": node("ImageScaleBy", image=[str(i + 1), 0], scale_by=scale) for i in range(50, 60)}
    content = graph(n5=node("EmptyLatentImage", width=width, height=512), n9=node("SaveImage", images=["50", 0]), n60=graph()["8"], **scaled)
    found = read_graph(content, size=(512, 512))
    assert (found.prompt, found.size) == ("a castle", None)
