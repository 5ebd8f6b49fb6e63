"""ComfyUI's `workflow`, a graph as it was drawn, in the form of one as it is executed: what the editor does before it sends a graph off.

Drawn, a node has the values of its widgets by position and a list of links, may be muted or bypassed, and may stand for a whole subgraph: its type is
then the id of a definition, inside which node -10 stands for the inputs and node -20 for the outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Graph = Mapping[str, Mapping[str, Any]]
_MUTED, _BYPASSED = 2, 4  # modes of a node
_INPUTS, _OUTPUTS = "-10", "-20"
_OWN = "-1"  # among a subgraph's widgets: one of its own inputs, not of a node inside
_MOST_NODES = 20_000
_DEEPEST = 30  # subgraphs in subgraphs, nodes that only hand on

# of a workflow, whose values have positions in the place of names (None: a widget that is no input)
WIDGETS: dict[str, tuple[str | None, ...]] = {
    "KSampler": ("seed", None, "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "KSamplerAdvanced": ("add_noise", "noise_seed", None, "steps", "cfg", "sampler_name", "scheduler"),
    "SamplerCustom": ("add_noise", "noise_seed", None, "cfg"),
    "CFGGuider": ("cfg",),
    "RandomNoise": ("noise_seed", None),
    "KSamplerSelect": ("sampler_name",),
    "BasicScheduler": ("scheduler", "steps", "denoise"),
    "EmptyLatentImage": ("width", "height", "batch_size"),
    "EmptySD3LatentImage": ("width", "height", "batch_size"),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "UNETLoader": ("unet_name",),
    "CLIPTextEncodeSDXL": ("width", "height", "crop_w", "crop_h", "target_width", "target_height", "text_g", "text_l"),
    "CLIPTextEncodeSDXLRefiner": ("ascore", "width", "height", "text"),
    "CLIPTextEncodeSD3": ("clip_l", "clip_g", "t5xxl", "empty_padding"),
    "CLIPTextEncodeFlux": ("clip_l", "t5xxl", "guidance"),
    "Text Concatenate": ("delimiter", "clean_whitespace"),
    "StringConcatenate": ("string_a", "string_b", "delimiter"),
    "ConditioningZeroOut": (),
    "KSampler (Efficient)": ("seed", None, "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "Efficient Loader": (
        "ckpt_name", "vae_name", "clip_skip", "lora_name", "lora_model_strength", "lora_clip_strength", "positive", "negative",
        "token_normalization", "weight_interpretation", "empty_latent_width", "empty_latent_height", "batch_size",
    ),
    "ImpactWildcardProcessor": ("wildcard_text", "populated_text", "mode", "seed"),
    "ImpactWildcardEncode": ("wildcard_text", "populated_text", "mode"),
    "ImpactSwitch": ("select", "sel_mode"),
    "SeargePromptCombiner": ("prompt1", "separator", "prompt2"),
    "Text Find and Replace": ("find", "replace"),
    "StringReplace": ("string", "find", "replace"),
    "StringFunction|pysssss": ("action", "tidy_tags", "text_a", "text_b", "text_c"),
    "CR Text Concatenate": ("text1", "text2", "separator"),
    "JoinStrings": ("string1", "string2", "delimiter"),
    "JoinStringMulti": ("inputcount", "delimiter", "return_list"),
    "TextEncodeQwenImageEdit": ("prompt",),
    "EllaTextEncode": ("text", "text_clip"),
    "GLIGENTextBoxApply": ("text", "width", "height", "x", "y"),
    "LatentUpscale": ("upscale_method", "width", "height", "crop"),
    "LatentUpscaleBy": ("upscale_method", "scale_by"),
    "ImageScale": ("upscale_method", "width", "height", "crop"),
    "ImageScaleBy": ("upscale_method", "scale_by"),
    "UpscaleModelLoader": ("model_name",),
    "SaveImage": ("filename_prefix",),
    "PrimitiveInt": ("value", None),
    "PrimitiveBoolean": ("value",),
    "CLIPTextEncodeLumina2": ("system_prompt", "user_prompt"),
    "StableCascade_EmptyLatentImage": ("width", "height", "compression", "batch_size"),
}  # fmt: skip
_DRAWS = ("fixed", "randomize", "increment", "decrement")  # a widget without a name after each seed


class GraphError(ValueError):
    """A graph whose prompt cannot be told; names the node."""


class _Link(NamedTuple):
    node: str
    slot: Any


class _Nothing:
    """What a slot hands on that nothing goes into."""


_UNKNOWN = _Link("unknown", 0)  # a value that is set on a subgraph, but it cannot be told which it is


@dataclass
class _Node:
    kind: str
    values: dict[str, Any]  # of its widgets, by the names of their inputs
    links: dict[str, _Link] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()


def executed_graph(workflow: Mapping[str, Any], first_widgets: Mapping[str, tuple[str, ...]]) -> Graph:
    """
    Args:
        workflow: with a list `nodes`.
        first_widgets: for kinds of node that `WIDGETS` does not know, the names of their first widgets.

    Raises:
        GraphError: it has too many nodes, or subgraphs that hold themselves.
    """
    drawn = _Drawn(workflow, first_widgets)
    drawn.expand(workflow, "", 0)
    graph: dict[str, dict[str, Any]] = {_UNKNOWN.node: {"class_type": "widget of a subgraph", "inputs": {}}}
    for name, node in drawn.nodes.items():
        inputs = {key: list(value) if isinstance(value, _Link) else value for key, value in node.values.items()}
        for key, link in node.links.items():
            found = drawn.behind(link)
            if not isinstance(found, _Nothing):
                inputs[key] = list(found) if isinstance(found, _Link) else found
        graph[name] = {"class_type": node.kind, "inputs": inputs, "outputs": node.outputs}
    return graph


def drawn_nodes(workflow: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, tuple[str, ...], Any]]:
    """Of every node of a workflow, those in subgraphs too: its id in the executed graph, the names of its outputs, the values of its widgets."""
    definitions = workflow.get("definitions")
    subgraphs = {str(one.get("id")): one for one in _dicts(definitions.get("subgraphs"))} if isinstance(definitions, dict) else {}
    waiting = [(workflow, prefix, depth)]
    count = 0
    while waiting:
        content, before, level = waiting.pop()
        for node in _dicts(content.get("nodes")):
            count += 1
            if count > _MOST_NODES:
                return
            name = f"{before}{node.get('id')}"
            yield name, _output_names(node), node.get("widgets_values")
            if str(node.get("type")) in subgraphs and level < _DEEPEST:
                waiting.append((subgraphs[str(node.get("type"))], f"{name}:", level + 1))


def _output_names(node: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(output.get("name")) for output in _dicts(node.get("outputs")))


class _Drawn:
    def __init__(self, workflow: Mapping[str, Any], first_widgets: Mapping[str, tuple[str, ...]]) -> None:
        definitions = workflow.get("definitions")
        subgraphs = definitions.get("subgraphs") if isinstance(definitions, dict) else None
        self.subgraphs = {str(one["id"]): one for one in _dicts(subgraphs) if isinstance(one.get("nodes"), list) and "id" in one}
        self.first_widgets = first_widgets
        self.nodes: dict[str, _Node] = {}
        self.passed: dict[str, dict[Any, Any]] = {}  # of nodes that only hand on: what, by their slots

    def behind(self, link: _Link) -> Any:
        """What a link leads to past the nodes that only hand on: a link to a real one, a value, or `_Nothing`."""
        found: Any = link
        for _ in range(_DEEPEST * 2):
            if not isinstance(found, _Link) or found.node not in self.passed:
                return found
            found = self.passed[found.node].get(_key(found.slot), _Nothing())
        raise GraphError("nodes that hand on in a circle, or too many")

    def expand(self, content: Mapping[str, Any], prefix: str, depth: int) -> None:
        """Take in the nodes of a graph, and of the subgraphs in it."""
        if depth > _DEEPEST:
            raise GraphError("subgraphs that hold themselves, or too many in each other")
        links = dict(_links(content, prefix))
        for node in _dicts(content["nodes"]):
            if node.get("mode") == _MUTED:
                continue
            if len(self.nodes) + len(self.passed) > _MOST_NODES:
                raise GraphError(f"more than {_MOST_NODES:,} nodes")
            name, slots = f"{prefix}{node.get('id')}", _dicts(node.get("inputs"))
            linked = {str(slot.get("name")): links[number] for slot in slots if (number := _key(slot.get("link"))) in links}
            definition = self.subgraphs.get(str(node.get("type")))
            if node.get("mode") == _BYPASSED:
                self.passed[name] = _bypassed(node, linked)
            elif definition is not None:
                self._expand_subgraph(node, definition, name, linked, depth)
            else:
                self.nodes[name] = _Node(str(node.get("type")), self._values(node, slots), linked, _output_names(node))
        self._connect_by_name(content, prefix)

    def _connect_by_name(self, content: Mapping[str, Any], prefix: str) -> None:
        """Nodes that get what another has set under a name, which only the editor knows of."""
        named: dict[str, _Link] = {}
        for node in _dicts(content["nodes"]):
            name = f"{prefix}{node.get('id')}"
            if str(node.get("type")) == "SetNode" and name in self.nodes and self.nodes[name].links:
                link = next(iter(self.nodes[name].links.values()))
                named[_first_value(node)] = link
                self.passed[name] = {0: link}
        for node in _dicts(content["nodes"]):
            name = f"{prefix}{node.get('id')}"
            if str(node.get("type")) == "GetNode" and name in self.nodes and _first_value(node) in named:
                self.passed[name] = {0: named[_first_value(node)]}

    def _expand_subgraph(self, node: Mapping[str, Any], definition: Mapping[str, Any], name: str, linked: Mapping[str, _Link], depth: int) -> None:
        own, inner = _set_on_subgraph(node)
        inputs = [str(slot.get("name")) for slot in _dicts(definition.get("inputs"))]
        given: dict[str, Any] = own | dict(linked)
        self.passed[f"{name}:{_INPUTS}"] = {number: given[key] for number, key in enumerate(inputs) if key in given}
        self.expand(definition, f"{name}:", depth + 1)
        for (node_id, key), value in inner.items():
            if f"{name}:{node_id}" in self.nodes:
                self.nodes[f"{name}:{node_id}"].values[key] = value
        self.passed[name] = {_key(slot): link for target, slot, link in _ends(definition, f"{name}:") if target == _OUTPUTS}

    def _values(self, node: Mapping[str, Any], slots: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        values = node.get("widgets_values")
        if isinstance(values, dict):
            return {str(name): value for name, value in values.items()}
        if not isinstance(values, list):
            return {}
        kind = str(node.get("type"))
        first, named = self.first_widgets.get(kind), _widget_names(slots)  # newer versions name them: an input with a widget
        if kind in WIDGETS:
            names: Sequence[str | None] = WIDGETS[kind]
        elif first is not None and not set(first) <= set(named):
            names = first
        else:
            names = _with_draws(named, values)
        links_only = {str(slot.get("name")) for slot in slots if not isinstance(slot.get("widget"), dict)}
        names = [name for name in names if name not in links_only]  # such an input has no widget, and no value among these
        return {name: value for name, value in zip(names, values, strict=False) if name is not None}


def _set_on_subgraph(node: Mapping[str, Any]) -> tuple[dict[str, Any], dict[tuple[str, str], Any]]:
    """Values of the widgets on a node that stands for a subgraph: of its own inputs by name, and of nodes inside by (id, name). There are none where
    those inside hold; where it cannot be told which value is whose, they are unknown."""
    properties, values = node.get("properties"), node.get("widgets_values")
    if not isinstance(values, list) or not values:
        return {}, {}
    listed = properties.get("proxyWidgets") if isinstance(properties, dict) else None
    places = [(str(place[0]), str(place[1])) for place in _list(listed) if isinstance(place, list) and len(place) >= 2]
    if not places:
        places = [(_OWN, name) for name in _widget_names(_dicts(node.get("inputs")))]
    own = [place for place in places if place[0] == _OWN]
    if len(values) == len(places):
        found = dict(zip(places, values, strict=True))
    elif len(values) == len(own):
        found = dict(zip(own, values, strict=True))
    else:
        found = dict.fromkeys(places, _UNKNOWN)
    return {name: value for (where, name), value in found.items() if where == _OWN}, {place: v for place, v in found.items() if place[0] != _OWN}


def _widget_names(slots: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(str(slot["widget"].get("name")) for slot in slots if isinstance(slot.get("widget"), dict))


def _with_draws(names: Sequence[str], values: Sequence[Any]) -> list[str | None]:
    """The names with a place for each widget that says how the seed before it changes."""
    placed: list[str | None] = []
    for name in names:
        placed.append(name)
        if name in ("seed", "noise_seed", "value") and len(placed) < len(values) and values[len(placed)] in _DRAWS and len(names) < len(values):
            placed.append(None)
    return placed


def _first_value(node: Mapping[str, Any]) -> str:
    values = node.get("widgets_values")
    return str(values[0]) if isinstance(values, list) and values else ""


def _bypassed(node: Mapping[str, Any], linked: Mapping[str, _Link]) -> dict[Any, Any]:
    """What each output of a bypassed node hands on: the first input of its type."""
    passed = {}
    for number, output in enumerate(_dicts(node.get("outputs"))):
        for slot in _dicts(node.get("inputs")):
            if slot.get("type") == output.get("type") and str(slot.get("name")) in linked:
                passed[number] = linked[str(slot.get("name"))]
                break
    return passed


def _links(content: Mapping[str, Any], prefix: str) -> Iterator[tuple[Any, _Link]]:
    """Where each link comes from, by its id."""
    for link in _list(content.get("links")):
        if isinstance(link, list) and len(link) >= 3:
            yield _key(link[0]), _Link(f"{prefix}{link[1]}", link[2])
        elif isinstance(link, dict):
            yield _key(link.get("id")), _Link(f"{prefix}{link.get('origin_id')}", link.get("origin_slot"))


def _ends(content: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any, _Link]]:
    """Where each link goes to, node and slot, and where it comes from."""
    for link in _list(content.get("links")):
        if isinstance(link, list) and len(link) >= 5:
            yield str(link[3]), link[4], _Link(f"{prefix}{link[1]}", link[2])
        elif isinstance(link, dict):
            yield str(link.get("target_id")), link.get("target_slot"), _Link(f"{prefix}{link.get('origin_id')}", link.get("origin_slot"))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in _list(value) if isinstance(one, dict)]


def _key(value: Any) -> Any:
    """What can be a key."""
    return value if isinstance(value, str | int) else None
