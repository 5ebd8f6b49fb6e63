import copy
import json
import random
from typing import Any

import pytest
from graphs import graph, node

from data.metadata.comfyui import GraphPrompt, read_graph
from data.metadata.comfyui_drawn import GraphError

EXPECTED = GraphPrompt(
    prompt="a castle",
    negative_prompt="blurry",
    parameters={"seed": 5, "steps": 20, "guidance_scale": 8, "sampler": "euler", "model": "sd.safetensors"},
)


def texts(content: Any) -> tuple[str, str]:
    found = read_graph(content)
    return found.prompt, found.negative_prompt


WORKFLOW: dict[str, Any] = {
    "nodes": [
        {"id": 3, "type": "KSampler", "mode": 0, "widgets_values": [5, "randomize", 20, 8, "euler", "normal", 1], "inputs": [
            {"name": "model", "type": "MODEL", "link": 1}, {"name": "positive", "type": "CONDITIONING", "link": 4},
            {"name": "negative", "type": "CONDITIONING", "link": 6}, {"name": "latent_image", "type": "LATENT", "link": 2}]},
        {"id": 4, "type": "CheckpointLoaderSimple", "widgets_values": ["sd.safetensors"]},
        {"id": 5, "type": "EmptyLatentImage", "widgets_values": [512, 512, 1]},
        {"id": 6, "type": "CLIPTextEncode", "widgets_values": ["a castle"], "inputs": [{"name": "clip", "type": "CLIP", "link": 3}]},
        {"id": 7, "type": "CLIPTextEncode", "widgets_values": ["blurry"], "inputs": [{"name": "clip", "type": "CLIP", "link": 5}]},
        {"id": 8, "type": "VAEDecode", "inputs": [{"name": "samples", "type": "LATENT", "link": 7}]},
        {"id": 9, "type": "SaveImage", "widgets_values": ["ComfyUI"], "inputs": [{"name": "images", "type": "IMAGE", "link": 9}]},
    ],
    "links": [[1, 4, 0, 3, 0, "MODEL"], [2, 5, 0, 3, 3, "LATENT"], [3, 4, 1, 6, 0, "CLIP"], [4, 6, 0, 3, 1, "CONDITIONING"],
              [5, 4, 1, 7, 0, "CLIP"], [6, 7, 0, 3, 2, "CONDITIONING"], [7, 3, 0, 8, 0, "LATENT"], [9, 8, 0, 9, 0, "IMAGE"]],
}  # fmt: skip


def test_a_drawn_graph_is_read_like_an_executed_one() -> None:
    assert read_graph(WORKFLOW) == EXPECTED


def test_a_drawn_graph_with_a_primitive_a_bypassed_and_a_muted_node() -> None:
    drawn = copy.deepcopy(WORKFLOW)
    drawn["nodes"][3]["inputs"].append({"name": "text", "type": "STRING", "link": 20, "widget": {"name": "text"}})
    drawn["nodes"][0]["inputs"][1]["link"] = 21
    drawn["nodes"] += [
        {"id": 20, "type": "PrimitiveNode", "widgets_values": ["from the primitive"]},
        {"id": 21, "type": "ConditioningZeroOut", "mode": 4, "inputs": [{"name": "conditioning", "type": "CONDITIONING", "link": 4}],
         "outputs": [{"name": "CONDITIONING", "type": "CONDITIONING"}]},
        {"id": 22, "type": "SaveImage", "mode": 2, "inputs": [{"name": "images", "type": "IMAGE", "link": 9}]},
    ]  # fmt: skip
    drawn["links"] += [
        [20, 20, 0, 6, 1, "STRING"],
        {"id": 21, "origin_id": 21, "origin_slot": 0, "target_id": 3, "target_slot": 1, "type": "CONDITIONING"},
    ]
    assert texts(drawn) == ("from the primitive", "blurry")
    assert json.loads(json.dumps(drawn)) == drawn


def with_subgraph(*, proxies: list[list[str]] | None, values: list[Any], text_input: bool = True, link: int | None = None) -> dict[str, Any]:
    """The same graph with all but loader, latent and saving inside a node 10, as the editor saves it: four inputs, one output."""
    nodes = {node["id"]: copy.deepcopy(node) for node in WORKFLOW["nodes"]}
    nodes[6]["inputs"].append({"name": "text", "type": "STRING", "widget": {"name": "text"}, "link": 14 if text_input else None})
    for place, slot, number in ((3, 0, 10), (3, 3, 12), (6, 0, 11), (7, 0, 13)):
        nodes[place]["inputs"][slot]["link"] = number
    definition = {
        "id": "2f5c0a7e-0000-4000-8000-000000000001",
        "name": "Text to latent",
        "inputs": [{"name": name} for name in ("model", "clip", "latent", "text")],
        "outputs": [{"name": "LATENT"}],
        "nodes": [nodes[3], nodes[6], nodes[7]],
        "links": [
            {"id": number, "origin_id": origin, "origin_slot": slot, "target_id": target, "target_slot": to}
            for number, origin, slot, target, to in (
                (10, -10, 0, 3, 0), (11, -10, 1, 6, 0), (12, -10, 2, 3, 3), (13, -10, 1, 7, 0), (14, -10, 3, 6, 1),
                (4, 6, 0, 3, 1), (6, 7, 0, 3, 2), (15, 3, 0, -20, 0),
            )
        ],
    }  # fmt: skip
    instance: dict[str, Any] = {
        "id": 10,
        "type": definition["id"],
        "mode": 0,
        "inputs": [
            {"name": "clip", "type": "CLIP", "link": 3},  # in another order than in the definition
            {"name": "model", "type": "MODEL", "link": 1},
            {"name": "latent", "type": "LATENT", "link": 2},
            {"name": "text", "type": "STRING", "widget": {"name": "text"}, "link": link},
        ],
        "widgets_values": values,
    }
    if proxies is not None:
        instance["properties"] = {"proxyWidgets": proxies}
    links = [[1, 4, 0, 10, 1, "MODEL"], [2, 5, 0, 10, 2, "LATENT"], [3, 4, 1, 10, 0, "CLIP"], [7, 10, 0, 8, 0, "LATENT"], [9, 8, 0, 9, 0, "IMAGE"]]
    return {"nodes": [instance, *(nodes[i] for i in (4, 5, 8, 9))], "links": links, "definitions": {"subgraphs": [definition]}}


def test_a_subgraph_whose_values_are_inside() -> None:
    assert read_graph(with_subgraph(proxies=[["6", "text"], ["3", "seed"]], values=[])) == EXPECTED
    assert read_graph(with_subgraph(proxies=None, values=[], text_input=False)) == EXPECTED


@pytest.mark.parametrize(
    ("proxies", "values"),
    [
        (None, ["a harbour"]),
        ([["-1", "text"]], ["a harbour"]),
        ([["3", "seed"], ["-1", "text"]], [9, "a harbour"]),
        ([["-1", "text"], ["3", "steps"], ["-1", "$$canvas-image-preview"]], ["a harbour", None]),  # those of its own alone
    ],
)
def test_a_subgraph_with_the_text_on_it(proxies: list[list[str]] | None, values: list[Any]) -> None:
    found = read_graph(with_subgraph(proxies=proxies, values=values))
    assert (found.prompt, found.negative_prompt) == ("a harbour", "blurry")
    assert found.parameters["seed"] == (9 if 9 in values else 5)


def test_a_subgraph_with_a_value_on_it_for_a_node_inside() -> None:
    assert texts(with_subgraph(proxies=[["6", "text"], ["7", "text"]], values=["a harbour", "grey"], text_input=False)) == ("a harbour", "grey")


def test_a_subgraph_whose_text_comes_from_outside_or_through_another() -> None:
    drawn = with_subgraph(proxies=[["-1", "text"]], values=["not this"], link=30)
    drawn["nodes"].append({"id": 30, "type": "PrimitiveStringMultiline", "widgets_values": ["from outside"]})
    drawn["links"].append([30, 30, 0, 10, 3, "STRING"])
    assert texts(drawn) == ("from outside", "blurry")
    # the text now passes through a subgraph that does nothing
    through = {
        "id": "through", "inputs": [{"name": "a"}], "outputs": [{"name": "a"}], "nodes": [],
        "links": [{"id": 1, "origin_id": -10, "origin_slot": 0, "target_id": -20, "target_slot": 0}],
    }  # fmt: skip
    drawn["definitions"]["subgraphs"].append(through)
    drawn["nodes"].append({"id": 31, "type": "through", "inputs": [{"name": "a", "type": "STRING", "link": 31}]})
    drawn["links"][-1] = [30, 31, 0, 10, 3, "STRING"]
    drawn["links"].append([31, 30, 0, 31, 0, "STRING"])
    assert texts(drawn) == ("from outside", "blurry")


def test_what_cannot_be_told_of_a_subgraph_is_named() -> None:
    drawn = with_subgraph(proxies=[["-1", "text"], ["3", "steps"], ["-1", "clip"]], values=["one of four?", 2, 3, 4])
    with pytest.raises(GraphError, match="'widget of a subgraph', which is not known"):
        read_graph(drawn)
    drawn = with_subgraph(proxies=None, values=[])
    inside = drawn["definitions"]["subgraphs"][0]
    inside["nodes"].append({"id": 99, "type": inside["id"]})
    with pytest.raises(GraphError, match="hold themselves"):
        read_graph(drawn)
    inside["nodes"] += [{"id": i, "type": inside["id"]} for i in range(100, 200)]
    with pytest.raises(GraphError, match="hold themselves"):
        read_graph(drawn)
    slots = [{"inputs": [{"name": "a", "type": "A", "link": i}], "outputs": [{"type": "A"}]} for i in (1, 2)]
    circle: dict[str, Any] = {"nodes": [{"id": i, "type": "x", "mode": 4} | both for i, both in enumerate(slots, 1)]}
    circle["nodes"] += [{"id": 3, "type": "KSampler", "inputs": [{"name": "latent_image", "link": 1}]}]
    with pytest.raises(GraphError, match="in a circle"):
        read_graph(circle | {"links": [[1, 2, 0, 1, 0], [2, 1, 0, 2, 0]]})


def test_subgraphs_that_multiply_take_no_time() -> None:
    many = [{"id": str(level), "nodes": [{"id": i, "type": str(level + 1)} for i in range(50)]} for level in range(20)]
    with pytest.raises(GraphError, match="more than 20,000 nodes"):
        read_graph({"nodes": [{"id": 1, "type": "0"}], "links": [], "definitions": {"subgraphs": many}})


GRAPHS = [
    WORKFLOW,
    with_subgraph(proxies=[["3", "seed"], ["-1", "text"]], values=[9, "a harbour"]),
    graph(n6=node("CLIPTextEncodeSDXL", text_g=["20", 0], text_l="b"), n20=node("Text Concatenate", text_a="c", text_b=["20", 0])),
    graph(n3=node("SamplerCustomAdvanced", guider=["21", 0], latent_image=["5", 0]), n21=node("CFGGuider", positive=["6", 0], negative=["7", 0])),
]
LEAVES = [
    None,
    True,
    -1,
    0,
    1,
    3,
    1.5,
    "",
    "3",
    "6",
    "-10",
    "text",
    [],
    {},
    ["3", 0],
    ["6", 0],
    [6, 0],
    "KSampler",
    "CLIPTextEncode",
    "CheckpointLoader",
]


def _places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [path, *(place for key, value in items for place in _places(value, (*path, key)))]


def _mixed(draw: random.Random) -> Any:
    """A graph in which some parts have been exchanged for others, or for anything."""
    content, other = copy.deepcopy(draw.choice(GRAPHS)), draw.choice(GRAPHS)
    for _ in range(draw.randint(1, 4)):
        *way, last = draw.choice(_places(content)[1:] or [(0,)])
        holder = content
        for key in way:
            holder = holder[key]
        new: Any = draw.choice(LEAVES)
        if draw.random() < 0.5:
            new = other
            for key in draw.choice(_places(other)):
                new = new[key]
        if holder:
            holder[last] = copy.deepcopy(new)
    return content


def _survives(count: int, seed: int) -> None:
    draw, read = random.Random(seed), 0
    for _ in range(count):
        content = _mixed(draw)
        try:
            found = read_graph(content)
        except GraphError as error:
            assert str(error)
        else:
            assert isinstance(found.prompt, str)
            read += 1
    assert read > count / 10  # the changes do not all break the graph at once


def test_mixed_graphs_raise_nothing_else() -> None:
    _survives(2000, 1)


@pytest.mark.slow
def test_a_hundred_thousand_mixed_graphs_raise_nothing_else() -> None:
    _survives(100_000, 2)


def link_text_to(drawn: dict[str, Any], *nodes: dict[str, Any], links: list[list[Any]] | None = None) -> dict[str, Any]:
    """The workflow with the text of node 6 coming from node 20."""
    drawn = copy.deepcopy(drawn)
    drawn["nodes"][3]["inputs"].append({"name": "text", "type": "STRING", "link": 20, "widget": {"name": "text"}})
    drawn["nodes"] += nodes
    drawn["links"] += [[20, 20, 0, 6, 1, "STRING"], *(links or [])]
    return drawn


def test_nodes_that_get_what_another_has_set() -> None:
    drawn = link_text_to(
        WORKFLOW,
        {"id": 20, "type": "GetNode", "widgets_values": ["words"]},
        {"id": 21, "type": "SetNode", "widgets_values": ["words"], "inputs": [{"name": "STRING", "type": "STRING", "link": 21}]},
        {"id": 22, "type": "SetNode", "widgets_values": ["others"], "inputs": [{"name": "STRING", "type": "STRING", "link": 22}]},
        {"id": 23, "type": "Text Multiline", "widgets_values": ["from far away"]},
        {"id": 24, "type": "Text Multiline", "widgets_values": ["not this"]},
        links=[[21, 23, 0, 21, 0, "STRING"], [22, 24, 0, 22, 0, "STRING"]],
    )
    assert texts(drawn) == ("from far away", "blurry")
    drawn["nodes"][-4]["widgets_values"] = ["renamed"]
    with pytest.raises(GraphError, match="GetNode"):
        read_graph(drawn)


def test_inputs_that_have_no_widget_have_no_value_among_those_of_widgets() -> None:
    slots = [{"name": name, "type": "STRING", "link": link} for name, link in (("text1", 21), ("text2", 22))]
    joined = {"id": 20, "type": "CR Text Concatenate", "widgets_values": [" + "], "inputs": slots}
    drawn = link_text_to(
        WORKFLOW,
        joined,
        {"id": 21, "type": "CR Text", "widgets_values": ["one"]},
        {"id": 22, "type": "CR Text", "widgets_values": ["two"]},
        links=[[21, 21, 0, 20, 0, "STRING"], [22, 22, 0, 20, 1, "STRING"]],
    )
    assert texts(drawn)[0] == "one + two"
    joined["widgets_values"], joined["inputs"] = ["one", "two", " + "], []
    assert texts(link_text_to(WORKFLOW, joined))[0] == "one + two"


def test_names_of_widgets_and_the_widget_after_a_seed() -> None:
    """Newer workflows name the widgets; what says how a seed changes has no name."""
    drawn = copy.deepcopy(WORKFLOW)
    drawn["nodes"][0]["type"] = "KSampler of a pack"
    names = ("seed", "steps", "cfg", "sampler_name", "scheduler", "denoise")
    drawn["nodes"][0]["inputs"] += [{"name": name, "widget": {"name": name}, "link": None} for name in names]
    assert read_graph(drawn) == EXPECTED


def test_a_text_that_is_chosen_when_the_graph_is_sent_off_is_not_known() -> None:
    drawn = copy.deepcopy(WORKFLOW)
    drawn["nodes"][3]["widgets_values"] = ["a {red|blue} castle"]
    with pytest.raises(GraphError, match="drawn at random"):
        read_graph(drawn)
    assert read_graph(graph(n6=node("CLIPTextEncode", text="a {red|blue} castle"))).prompt == "a {red|blue} castle"  # sent off as it stands


def test_outputs_are_named_in_a_workflow_alone_too() -> None:
    drawn = copy.deepcopy(WORKFLOW)
    drawn["nodes"][0]["inputs"][1]["link"], drawn["nodes"][0]["inputs"][2]["link"] = 31, 32
    outputs = [{"name": name, "type": "CONDITIONING"} for name in ("negative", "positive")]
    inputs = [{"name": "positive", "type": "CONDITIONING", "link": 4}, {"name": "negative", "type": "CONDITIONING", "link": 6}]
    drawn["nodes"].append({"id": 30, "type": "SomeApply", "inputs": inputs, "outputs": outputs})
    drawn["links"] += [[31, 30, 1, 3, 1, "CONDITIONING"], [32, 30, 0, 3, 2, "CONDITIONING"]]
    assert texts(drawn) == ("a castle", "blurry")
    for output in outputs:
        output["name"] = "CONDITIONING"
    with pytest.raises(GraphError, match="cannot be told by which outputs"):
        read_graph(drawn)
