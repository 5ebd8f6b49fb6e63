"""The prompt of a ComfyUI graph: from what was saved back to the sampler, from its positive input back to the text.

Two forms of graph are stored: `prompt`, as it was executed ({id: {class_type, inputs}}), and `workflow`, as it was drawn, which
`data.comfyui_workflow` turns into the first. What cannot be followed is named, never guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from data.comfyui_workflow import Graph, GraphError, executed_graph

_DEEPEST = 200  # links followed in a row
_MOST_TEXTS = 1000  # looked at for one picture

# text encoders, with the inputs that hold text
TEXT_ENCODERS: dict[str, tuple[str, ...]] = {
    "CLIPTextEncode": ("text",),
    "CLIPTextEncodeSDXL": ("text_g", "text_l"),
    "CLIPTextEncodeSDXLRefiner": ("text",),
    "CLIPTextEncodeSD3": ("clip_g", "clip_l", "t5xxl"),
    "CLIPTextEncodeFlux": ("t5xxl", "clip_l"),
    "CLIPTextEncodeHunyuanDiT": ("bert", "mt5xl"),
    "CLIPTextEncodePixArtAlpha": ("text",),
    "CLIPTextEncodeLumina2": ("user_prompt",),
    "CLIPTextEncodeHiDream": ("clip_g", "clip_l", "t5xxl", "llama"),
    "CLIPTextEncodeControlnet": ("text",),
    "BNK_CLIPTextEncodeAdvanced": ("text",),
    "BNK_CLIPTextEncodeSDXLAdvanced": ("text_g", "text_l"),
    "smZ CLIPTextEncode": ("text",),
    "TextEncodeQwenImageEdit": ("prompt",),
    "TextEncodeQwenImageEditPlus": ("prompt",),
    "Text to Conditioning": ("text",),
}
# nodes that give a string, with the inputs it is made of, in order
STRINGS: dict[str, tuple[str, ...]] = {
    "PrimitiveNode": ("value",),
    "PrimitiveString": ("value",),
    "PrimitiveStringMultiline": ("value",),
    "StringConstant": ("string",),
    "StringConstantMultiline": ("string",),
    "String Literal": ("string",),
    "SimpleText": ("text",),
    "Simple String": ("string",),
    "JjkText": ("text",),
    "Text": ("text",),
    "Text box": ("text",),
    "Text Multiline": ("text",),
    "Text _O": ("text",),
    "TextInput_": ("text",),
    "CR Text": ("text",),
    "CR Prompt Text": ("prompt",),
    "easy positive": ("positive",),
    "easy negative": ("negative",),
    "easy string": ("value",),
    "ShowText|pysssss": ("text",),
    "String": ("String",),
    "ttN text": ("text",),
    "DPRandomGenerator": ("text",),
    "Text Concatenate": ("text_a", "text_b", "text_c", "text_d"),
    "StringConcatenate": ("string_a", "string_b"),
    "JoinStrings": ("string1", "string2"),
    "CR Text Concatenate": ("text1", "text2"),
}
DRAWN_AT_RANDOM = {"DPRandomGenerator"}  # their text is a template; what was drawn from it is not stored
_DELIMITERS = ("delimiter", "separator")
# one node that loads, encodes both texts and hands them on by these outputs
LOADERS: dict[str, dict[int, str]] = {"Efficient Loader": {1: "positive", 2: "negative"}, "Eff. Loader SDXL": {1: "positive", 2: "negative"}}
_CONDITIONINGS = ("conditioning", "conditioning_to", "conditioning_from", "conditioning_1", "conditioning_2", "cond1", "cond2")
_LATENTS = ("latent_image", "samples", "latent", "optional_latent")


@dataclass(frozen=True, kw_only=True)
class GraphPrompt:
    prompt: str
    negative_prompt: str
    parameters: dict[str, Any] = field(default_factory=dict)


def read_graph(content: Any) -> GraphPrompt:
    """
    Args:
        content: parsed JSON of either form.

    Raises:
        GraphError: neither form, or a prompt that cannot be told.
    """
    if isinstance(content, dict) and isinstance(content.get("nodes"), list):
        names = {kind: inputs[:1] for kind, inputs in (*TEXT_ENCODERS.items(), *STRINGS.items())}
        graph = executed_graph(content, names)
    elif isinstance(content, dict) and content and all(isinstance(node, dict) and "class_type" in node for node in content.values()):
        graph = {str(name): {"class_type": str(node["class_type"]), "inputs": _dict(node.get("inputs"))} for name, node in content.items()}
    else:
        raise GraphError("not a graph of nodes")
    return _Reader(graph).read()


class _Reader:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.texts_left = _MOST_TEXTS

    def read(self) -> GraphPrompt:
        found = [self._of_chain(sampler) for sampler in self._last_samplers()]
        if not found:
            raise GraphError("no sampler")
        if len({(one.prompt, one.negative_prompt) for one in found}) > 1:
            raise GraphError("several pictures were saved, with different prompts")
        return found[0]

    def _last_samplers(self) -> list[str]:
        """The samplers nearest to what was saved; without anything saved, those whose result goes into no other."""
        samplers = [name for name in self.graph if self._is_sampler(name)]
        for sign in ("Save", "Preview"):
            ends = [name for name, node in self.graph.items() if sign in node["class_type"]]
            reached = [sampler for end in ends for sampler in self._samplers_behind(end)]
            if reached:
                return list(dict.fromkeys(reached))
        inner = {before for name in samplers for before in self._samplers_behind(name)}
        return [name for name in samplers if name not in inner]

    def _is_sampler(self, name: str) -> bool:
        node = self.graph[name]
        inputs = node["inputs"]
        latent = any(_is_link(inputs.get(latent)) for latent in _LATENTS)
        return latent and (("positive" in inputs and ("steps" in inputs or "sigmas" in inputs)) or "guider" in inputs)

    def _samplers_behind(self, name: str) -> list[str]:
        """The first samplers on every way back from a node."""
        found, seen, waiting = list[str](), {name}, [name]
        while waiting:
            for before in self._links(waiting.pop()):
                if before in seen:
                    continue
                seen.add(before)
                if self._is_sampler(before):
                    found.append(before)
                else:
                    waiting.append(before)
        return found

    def _links(self, name: str) -> Iterator[str]:
        for value in self.graph[name]["inputs"].values():
            if _is_link(value) and str(value[0]) in self.graph:
                yield str(value[0])

    def _of_chain(self, last: str) -> GraphPrompt:
        """The prompt of a sampler and of those before it, which must be one and the same (a refiner, a second pass)."""
        chain, waiting = dict[str, tuple[str, str]](), [last]
        while waiting:
            name = waiting.pop()
            if name in chain:
                continue
            chain[name] = self._texts(name)
            for latent in _LATENTS:
                value = self.graph[name]["inputs"].get(latent)
                if _is_link(value) and str(value[0]) in self.graph:
                    before = str(value[0])
                    waiting += [before] if self._is_sampler(before) else self._samplers_behind(before)
        if len({positive for positive, _ in chain.values()}) > 1:
            raise GraphError("samplers one after another have different prompts")
        return GraphPrompt(prompt=chain[last][0], negative_prompt=chain[last][1], parameters=self._parameters(list(chain)))

    def _texts(self, sampler: str) -> tuple[str, str]:
        inputs = self.graph[sampler]["inputs"]
        if _is_link(inputs.get("guider")):
            guider = self._node(inputs["guider"])["inputs"]
            positive = [guider[name] for name in ("positive", "conditioning", "cond1", "cond2") if name in guider]
            negative = [guider[name] for name in ("negative",) if name in guider]
        else:
            positive, negative = [inputs.get("positive")], [inputs[name] for name in ("negative",) if name in inputs]
        return self._joined(positive, "positive"), self._joined(negative, "negative")

    def _joined(self, links: list[Any], side: str) -> str:
        seen: set[tuple[str, int]] = set()
        texts = [text for link in links for text in self._conditioning(link, side, seen)]
        return ", ".join(dict.fromkeys(text.strip() for text in texts if text.strip()))

    def _node(self, link: Any) -> Mapping[str, Any]:
        if not _is_link(link):
            raise GraphError("a sampler without a link to its text")
        node = self.graph.get(str(link[0]))
        if node is None:
            raise GraphError(f"a link to node {link[0]}, which is not there")
        return node

    def _conditioning(self, link: Any, side: str, seen: set[tuple[str, int]]) -> list[str]:
        """The texts that a conditioning was made from, each node's once."""
        node = self._node(link)
        kind, inputs = node["class_type"], node["inputs"]
        if (str(link[0]), link[1]) in seen:
            return []
        seen.add((str(link[0]), link[1]))
        if len(seen) > _DEEPEST:
            raise GraphError("too many nodes between a sampler and its text")
        if kind in TEXT_ENCODERS:
            return [self._text(inputs.get(name), kind) for name in TEXT_ENCODERS[kind] if name in inputs]
        if kind in LOADERS:
            return [self._text(inputs.get(LOADERS[kind].get(link[1], side)), kind)]
        if kind == "ConditioningZeroOut":
            return []
        if _is_link(inputs.get("positive")) and _is_link(inputs.get("negative")):  # ControlNetApplyAdvanced and its like hand both on
            return self._conditioning(inputs["negative" if link[1] == 1 else "positive"], side, seen)
        before = [inputs[name] for name in _CONDITIONINGS if _is_link(inputs.get(name))]
        if not before and len(inputs) == 1 and "Reroute" in kind:
            before = list(inputs.values())
        if not before:
            raise GraphError(f"the {side} text comes from a node {kind!r}, which is not known")
        return [text for one in before for text in self._conditioning(one, side, seen)]

    def _text(self, value: Any, owner: str, depth: int = 0) -> str:
        """A text as it stands, or what a string node gives."""
        if isinstance(value, str):
            return value
        if not _is_link(value):
            raise GraphError(f"node {owner!r} has no text")
        node = self._node(value)
        kind, inputs = node["class_type"], node["inputs"]
        self.texts_left -= 1
        if depth > _DEEPEST or self.texts_left < 0:
            raise GraphError("strings that are joined too often, or in a circle")
        if kind in DRAWN_AT_RANDOM:
            raise GraphError(f"the text was drawn at random by a node {kind!r}")
        if "Reroute" in kind and len(inputs) == 1:
            return self._text(next(iter(inputs.values())), kind, depth + 1)
        if kind not in STRINGS:
            raise GraphError(f"the text comes from a node {kind!r}, which is not known")
        parts = [self._text(inputs[name], kind, depth + 1) for name in STRINGS[kind] if inputs.get(name) not in (None, "")]
        delimiter = next((inputs[name] for name in _DELIMITERS if isinstance(inputs.get(name), str)), "")
        return str(delimiter).replace("\\n", "\n").join(parts)

    def _parameters(self, chain: list[str]) -> dict[str, Any]:
        """Of the first sampler that decided them: the one that began from noise."""
        inputs = self.graph[chain[-1]]["inputs"]
        near = [inputs] + [self._node(inputs[name])["inputs"] for name in ("guider", "noise", "sampler", "sigmas") if self._has(inputs, name)]
        names = {"seed": ("seed", "noise_seed"), "steps": ("steps",), "guidance_scale": ("cfg",), "sampler": ("sampler_name",)}
        found: dict[str, Any] = {}
        for ours, theirs in names.items():
            value = next((one[name] for one in near for name in theirs if isinstance(one.get(name), int | float | str)), None)
            if value is not None:
                found[ours] = value
        model = self._model(inputs) or self._model(near[-1])
        return found | ({"model": model} if model else {})

    def _has(self, inputs: Mapping[str, Any], name: str) -> bool:
        return _is_link(inputs.get(name)) and str(inputs[name][0]) in self.graph

    def _model(self, inputs: Mapping[str, Any]) -> str | None:
        """The checkpoint's file, where the way to it has no fork."""
        for _ in range(_DEEPEST):
            for name in ("ckpt_name", "unet_name"):
                if isinstance(inputs.get(name), str):
                    return str(inputs[name])
            if not self._has(inputs, "model"):
                return None
            inputs = self.graph[str(inputs["model"][0])]["inputs"]
        return None


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int) and isinstance(value[1], int)


def _dict(value: Any) -> dict[str, Any]:
    return {str(name): content for name, content in value.items()} if isinstance(value, dict) else {}
