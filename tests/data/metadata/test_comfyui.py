from typing import Any

import pytest
from graphs import graph, node

from data.metadata.comfyui import read_graph
from data.metadata.comfyui_drawn import GraphError


def texts(content: Any) -> tuple[str, str]:
    found = read_graph(content)
    return found.prompt, found.negative_prompt


def test_the_simplest_graph() -> None:
    found = read_graph(graph())
    assert (found.prompt, found.negative_prompt) == ("a castle", "blurry")
    assert found.parameters == {"seed": 5, "steps": 20, "guidance_scale": 8.0, "sampler": "euler", "model": "sd.safetensors"}


SAMPLER = graph()["3"]["inputs"]
LINKED = node("CLIPTextEncode", text=["20", 0], clip=["4", 1])


@pytest.mark.parametrize(
    ("changes", "prompt"),
    [
        ({"n6": node("CLIPTextEncodeSDXL", text_g="a castle", text_l="a castle", width=1024)}, "a castle"),
        ({"n6": node("CLIPTextEncodeSDXL", text_g="a castle", text_l="stone walls")}, "a castle, stone walls"),
        ({"n6": node("CLIPTextEncodeFlux", clip_l="a castle", t5xxl="a castle on a hill", guidance=3.5)}, "a castle on a hill, a castle"),
        ({"n6": LINKED, "n20": node("PrimitiveStringMultiline", value="from a primitive")}, "from a primitive"),
        ({"n6": LINKED, "n20": node("Reroute", **{"": ["21", 0]}), "n21": node("StringConstant", string="far away")}, "far away"),
        (
            {
                "n6": LINKED,
                "n20": node("Text Concatenate", text_a=["21", 0], text_b="in snow", delimiter=", "),
                "n21": node("Text Multiline", text="a cat"),
            },
            "a cat, in snow",
        ),
        ({"n6": node("ConditioningSetArea", conditioning=["21", 0], x=0), "n21": node("CLIPTextEncode", text="below")}, "below"),
        (
            {
                "n6": node("ConditioningCombine", conditioning_1=["21", 0], conditioning_2=["22", 0]),
                "n21": node("CLIPTextEncode", text="left"),
                "n22": node("CLIPTextEncode", text="right"),
            },
            "left, right",
        ),
        (
            {
                "n3": node("KSampler", **SAMPLER | {"positive": ["21", 0], "negative": ["21", 1]}),
                "n21": node("ControlNetApplyAdvanced", positive=["6", 0], negative=["7", 0], strength=1),
            },
            "a castle",
        ),
        (
            {
                "n3": node("SamplerCustomAdvanced", guider=["21", 0], noise=["22", 0], latent_image=["5", 0]),
                "n21": node("BasicGuider", conditioning=["23", 0], model=["4", 0]),
                "n22": node("RandomNoise", noise_seed=3),
                "n23": node("FluxGuidance", conditioning=["6", 0], guidance=3.5),
                "n7": node("CLIPTextEncode", text=""),
            },
            "a castle",
        ),
        (  # a second pass with the same prompt
            {
                "n8": node("VAEDecode", samples=["21", 0]),
                "n21": node("KSampler", **SAMPLER | {"latent_image": ["22", 0], "seed": 9}),
                "n22": node("LatentUpscale", samples=["3", 0], width=1024),
            },
            "a castle",
        ),
    ],
)
def test_ways_to_the_text(changes: dict[str, Any], prompt: str) -> None:
    assert read_graph(graph(**changes)).prompt == prompt


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n6": LINKED, "n20": node("OllamaGenerate", prompt="write a prompt")}, "node 'OllamaGenerate', which is not known"),
        ({"n6": LINKED, "n20": node("DPRandomGenerator", text="a {cat|dog}")}, "drawn at random"),
        ({"n6": node("SomeEncoder", words="x")}, "node 'SomeEncoder', which is not known"),
        ({"n6": LINKED, "n20": node("Text Multiline", text=["20", 0])}, "in a circle"),
        ({"n6": node("CLIPTextEncode", text=None)}, "has no text"),
        ({"n3": node("KSampler", **SAMPLER | {"positive": ["99", 0]})}, "node 99, which is not there"),
        ({"n3": node("VAEEncode", pixels=["8", 0])}, "no sampler"),
        (
            {"n21": node("KSampler", **SAMPLER | {"positive": ["7", 0]}), "n22": node("SaveImage", images=["21", 0])},
            "several pictures were saved, with different prompts",
        ),
        (
            {"n8": node("VAEDecode", samples=["21", 0]), "n21": node("KSampler", **SAMPLER | {"latent_image": ["3", 0], "positive": ["7", 0]})},
            "different prompts",
        ),
    ],
)
def test_what_cannot_be_followed_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        read_graph(graph(**changes))


@pytest.mark.parametrize(
    "content", [None, 3, [], {}, {"a": 1}, {"nodes": []}, {"nodes": [1, {}], "links": [[]]}, {"nodes": {}}, {"1": {"class_type": 3}}]
)
def test_what_is_no_graph(content: Any) -> None:
    with pytest.raises(GraphError):
        read_graph(content)


def test_conditionings_that_are_doubled_again_and_again_take_no_time() -> None:
    nodes = {f"n{i}": node("ConditioningCombine", conditioning_1=[str(i + 1), 0], conditioning_2=[str(i + 1), 0]) for i in range(100, 160)}
    nodes["n160"] = node("CLIPTextEncode", text="deep")
    nodes["n6"] = node("Reroute", **{"": ["100", 0]})
    assert read_graph(graph(**nodes)).prompt == "deep"
    strings = {f"n{i}": node("Text Concatenate", text_a=[str(i + 1), 0], text_b=[str(i + 1), 0]) for i in range(20, 80)}
    with pytest.raises(GraphError, match="joined too often"):
        read_graph(graph(n6=LINKED, n80=node("Text Multiline", text="x"), **strings))
