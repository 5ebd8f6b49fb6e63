"""The prompt of a ComfyUI graph: from what was saved back to the sampler, from its positive input back to the text.

Two forms of graph are stored: `prompt`, as it was executed ({id: {class_type, inputs}}), and `workflow`, as it was drawn, which
`data.metadata.comfyui_drawn` turns into the first. What cannot be told is named, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from data.metadata.comfyui_drawn import Graph, GraphError, drawn_nodes, executed_graph
from data.metadata.comfyui_nodes import BUNDLE_SAMPLERS, KEPT, LATENTS, RETOUCHING, SIDES, STRINGS, TEXT_ENCODERS
from data.metadata.comfyui_saves import Saves, Size, links
from data.metadata.comfyui_strings import is_link
from data.metadata.comfyui_texts import Texts
from data.metadata.lenient import number

_DEEPEST = 200  # models behind each other
_MOST_SAMPLERS = 500  # looked at for one picture
_STAGE_C = "StableCascade_StageB_Conditioning"


@dataclass(frozen=True, kw_only=True)
class GraphPrompt:
    """`size` is that of the saved picture, (width, height) in pixels, where the graph says it; `is_decoded` where its sides are multiples of 8."""

    prompt: str
    negative_prompt: str
    parameters: dict[str, Any] = field(default_factory=dict)
    size: Size | None = field(default=None, compare=False)
    is_decoded: bool = field(default=False, compare=False)


def read_graph(
    content: Any, workflow: Mapping[str, Any] | None = None, *, size: Size | None = None, name: str = "", moving: bool = False
) -> GraphPrompt:
    """
    Args:
        content: parsed JSON of either form.
        workflow: the drawn form, where `content` is the executed one and the file has both: it names the outputs, and keeps what was shown.
        size: of the file, (width, height) in pixels, by which several saves are told.
        name: of the file, for the same.
        moving: the file has several frames.

    Raises:
        GraphError: neither form, or a prompt that cannot be told.
    """
    if isinstance(content, dict) and isinstance(content.get("nodes"), list):
        names = {kind: inputs[:1] for kind, inputs in (*TEXT_ENCODERS.items(), *STRINGS.items()) if inputs}
        graph, drawn, workflow = executed_graph(content, names), True, content
    else:
        graph, drawn = _executed(content, workflow), False
    shown = dict(_shown(graph, workflow)) if workflow else {}
    return _Reader(graph, Texts(graph, shown, drawn)).read(size, name, moving)


def is_graph(content: Any) -> bool:
    """Whether parsed JSON looks like an executed graph: there is a node among its entries."""
    return isinstance(content, dict) and any(isinstance(node, dict) and "class_type" in node for node in content.values())


def _executed(content: Any, workflow: Mapping[str, Any] | None) -> Graph:
    """The nodes among the entries: some tools add others, and one that is damaged does not make the rest unreadable."""
    nodes = content.items() if isinstance(content, dict) else ()
    outputs = {name: names for name, names, _ in drawn_nodes(workflow)} if workflow else {}
    graph = {
        str(name): {"class_type": str(node["class_type"]), "inputs": _dict(node.get("inputs")), "outputs": outputs.get(str(name), ())}
        for name, node in nodes
        if isinstance(node, dict) and "class_type" in node
    }
    if not graph:
        raise GraphError("not a graph of nodes")
    return graph


def _shown(graph: Graph, workflow: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What nodes showed that show a text: the workflow is stored with it, the executed graph with what they showed the time before."""
    found = []
    for name, _, values in drawn_nodes(workflow):
        if name in graph and graph[name]["class_type"] in KEPT:
            while isinstance(values, list) and len(values) == 1:
                values = values[0]
            if isinstance(values, str) and values.strip():
                found.append((name, values))
    return found


class _Reader:
    def __init__(self, graph: Graph, texts: Texts) -> None:
        self.graph = graph
        self.texts = texts
        self.saves = Saves(texts)

    def read(self, size: Size | None, name: str, moving: bool) -> GraphPrompt:
        ends, last = self._last_samplers(size, name, moving)
        if not last:
            raise GraphError("no sampler")
        if len(last) > _MOST_SAMPLERS:
            raise GraphError(f"more than {_MOST_SAMPLERS} samplers")
        found = [self._of_chain(sampler) for sampler in last]
        if len({(one.prompt, one.negative_prompt) for one in found}) > 1:
            raise GraphError("several pictures were saved, with different prompts")
        sizes = {self.saves.size(end) for end in ends}
        return GraphPrompt(
            prompt=found[0].prompt,
            negative_prompt=found[0].negative_prompt,
            parameters=found[0].parameters,
            size=sizes.pop() if len(sizes) == 1 else None,
            is_decoded=bool(ends) and all(self.saves.is_decoded(end) for end in ends),
        )

    def _last_samplers(self, size: Size | None, name: str, moving: bool) -> tuple[list[str], list[str]]:
        """What the file was saved by, and the samplers nearest to it; without anything saved, those whose result goes into no other."""
        samplers = [place for place in self.graph if self._is_sampler(place)]
        signs = ("Preview", "Save") if name.startswith("ComfyUI_temp_") else ("Save", "Preview")
        for sign in signs:
            ends = [end for end in self.saves.ends(sign) if self._is_sampler(end) or self._samplers_behind(end)]
            ends = self.saves.of_file(ends, size, name, moving)
            reached = [sampler for end in ends for sampler in ([end] if self._is_sampler(end) else self._samplers_behind(end))]
            if reached:
                return ends, list(dict.fromkeys(reached))
        inner = {before for place in samplers for before in self._samplers_behind(place)}
        return [], [place for place in samplers if place not in inner]

    def _is_sampler(self, name: str) -> bool:
        node = self.graph[name]
        kind, inputs = node["class_type"], node["inputs"]
        if kind in BUNDLE_SAMPLERS:
            return True
        if any(sign in kind for sign in RETOUCHING):
            return False
        samples = "steps" in inputs or "sigmas" in inputs
        positive = any(key in inputs for key in (*SIDES["positive"], "conditioning"))
        if any(is_link(inputs.get(latent)) for latent in LATENTS):
            return (positive and samples) or "guider" in inputs
        seeded = "seed" in inputs or "noise_seed" in inputs
        return positive and samples and seeded and "sampler_name" in inputs and not any(is_link(inputs.get(key)) for key in ("image", "images"))

    def _samplers_behind(self, name: str) -> list[str]:
        """The first samplers on every way back from a node."""
        found, seen, waiting = list[str](), {name}, [name]
        while waiting:
            for before in links(self.graph, self.texts, waiting.pop()):
                if before in seen:
                    continue
                seen.add(before)
                if self._is_sampler(before):
                    found.append(before)
                else:
                    waiting.append(before)
        return found

    def _of_chain(self, last: str) -> GraphPrompt:
        """The prompt of a sampler and of those before it, which must be one and the same (a refiner, a second pass). One without a text of its own,
        like the second stage of Stable Cascade, says nothing."""
        chain, waiting = dict[str, tuple[str, str]](), [last]
        while waiting and len(chain) < _MOST_SAMPLERS:
            name = waiting.pop()
            if name in chain:
                continue
            chain[name] = self._sides(name)
            inputs = self.graph[name]["inputs"]
            for value in [inputs.get(latent) for latent in LATENTS] + [self._stage_c(inputs)]:
                if is_link(value) and str(value[0]) in self.graph:
                    before = str(value[0])
                    waiting += [before] if self._is_sampler(before) else self._samplers_behind(before)
        prompts = dict.fromkeys(positive for positive, _ in chain.values() if positive)
        if len(prompts) > 1:
            raise GraphError("samplers one after another have different prompts")
        told = [negative for positive, negative in chain.values() if positive or not prompts]
        negative = next((one for one in told if one), "")
        return GraphPrompt(prompt=next(iter(prompts), ""), negative_prompt=negative, parameters=self._parameters(list(chain)))

    def _stage_c(self, inputs: Mapping[str, Any]) -> Any:
        positive = inputs.get("positive")
        node = self.graph.get(str(positive[0])) if isinstance(positive, list) and is_link(positive) else None
        return node["inputs"].get("stage_c") if node is not None and node["class_type"] == _STAGE_C else None

    def _sides(self, sampler: str) -> tuple[str, str]:
        inputs = self.graph[sampler]["inputs"]
        if not is_link(inputs.get("guider")):
            positive = self.texts.of_sampler(sampler, "positive")
            if not positive:
                raise GraphError("a sampler without a link to its text")
            return self.texts.joined(positive, "positive"), self.texts.joined(self.texts.of_sampler(sampler, "negative"), "negative")
        _, guider = self.texts.behind(inputs["guider"])
        positive = [guider["inputs"][key] for key in ("positive", "conditioning", "cond1") if key in guider["inputs"]]
        if not positive:
            raise GraphError(f"a guider {guider['class_type']!r}, which is not known")
        prompt = self.texts.joined(positive[:1], "positive")
        # the second condition of DualCFGGuider has the picture to change, and the negative text or none
        texts = [self.texts.joined([guider["inputs"][key]], "negative") for key in ("negative", "cond2") if key in guider["inputs"]]
        negative = list(dict.fromkeys(text for text in texts if text and text != prompt))
        if len(negative) > 1:
            raise GraphError(f"a guider {guider['class_type']!r} with three texts")
        return prompt, "".join(negative)

    def _parameters(self, chain: list[str]) -> dict[str, Any]:
        """Of the first sampler that decided them: the one that began from noise. What is no number, or no text, is left out."""
        inputs = self.graph[chain[-1]]["inputs"]
        near = [inputs] + [self.graph[str(inputs[name][0])]["inputs"] for name in ("guider", "noise", "sampler", "sigmas") if self._has(inputs, name)]
        names = {"seed": ("seed", "noise_seed"), "steps": ("steps",), "guidance_scale": ("cfg", "cfg_conds"), "sampler": ("sampler_name",)}
        found: dict[str, Any] = {}
        for ours, theirs in names.items():
            values = [self.texts.scalar(one[name]) for one in near for name in theirs if name in one]
            usable = [value for value in values if (isinstance(value, str) if ours == "sampler" else number(value) is not None)]
            if usable:
                found[ours] = usable[0] if ours == "sampler" else number(usable[0])
        model = self._model(inputs) or self._model(near[-1])
        return found | ({"model": model} if model else {})

    def _has(self, inputs: Mapping[str, Any], name: str) -> bool:
        return is_link(inputs.get(name)) and str(inputs[name][0]) in self.graph

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


def _dict(value: Any) -> dict[str, Any]:
    return {str(name): content for name, content in value.items()} if isinstance(value, dict) else {}
