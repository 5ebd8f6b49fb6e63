"""From a sampler's input back to the texts that it was made of, through ComfyUI's conditionings.

What cannot be followed is named, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data.metadata.comfyui_drawn import GraphError
from data.metadata.comfyui_nodes import (
    BUNDLES,
    CONDITIONINGS,
    DRAWN_AT_RANDOM,
    LOCAL_TEXTS,
    NO_TEXT,
    OUTPUTS,
    POPULATED,
    REPLACED,
    SHOWN,
    SIDES,
    STRINGS,
    TEXT_ENCODERS,
    TWO_SIDED,
)
from data.metadata.comfyui_strings import DEEPEST, RANDOM, Strings, is_link

_OWN_TEXTS = ("text", "prompt", "string", "positive_prompt")
_BUNDLE_INPUTS = ("basic_pipe", "pipe", "sdxl_tuple", "base_ctx", "context", "detailer_pipe")


class Texts(Strings):
    """Reads the texts of both sides of a sampler."""

    def joined(self, values: list[Any], side: str) -> str:
        """The text of one side: those of all conditionings, each once, with commas between."""
        seen: dict[tuple[str, int], bool] = {}
        texts = [text for value in values for text in self._conditioning(value, side, seen)]
        return ", ".join(dict.fromkeys(text.strip() for text in texts if text.strip()))

    def of_sampler(self, name: str, side: str) -> list[Any]:
        """What a sampler has for one side: a link or a text, or nothing."""
        inputs = self.graph[name]["inputs"]
        own = [inputs[key] for key in (*SIDES[side], {"positive": "conditioning", "negative": "neg_conditioning"}[side]) if is_link(inputs.get(key))]
        if own:
            return own[:1]
        for bundle in _BUNDLE_INPUTS:
            if is_link(inputs.get(bundle)) and (found := self.held(inputs[bundle], side)) is not None:
                return [found]
        return []

    def _conditioning(self, link: Any, side: str, seen: dict[tuple[str, int], bool]) -> list[str]:
        """The texts that a conditioning was made from, each node's once. `seen` says of each link whether it is done with."""
        if isinstance(link, str):
            return [self.text(link, "loader")]
        node = self.node_of(link)
        place = (str(link[0]), link[1])
        if place in seen:
            if not seen[place]:
                raise GraphError("conditionings in a circle")
            return []
        seen[place] = False
        if len(seen) > DEEPEST:
            raise GraphError("too many nodes between a sampler and its text")
        texts = self._behind_link(link, node, side, seen)
        seen[place] = True
        return texts

    def _behind_link(self, link: Any, node: Mapping[str, Any], side: str, seen: dict[tuple[str, int], bool]) -> list[str]:
        place, slot, kind, inputs = str(link[0]), link[1], node["class_type"], node["inputs"]
        before = self.chosen(node)
        if before is not None:
            return self._conditioning(before, side, seen)
        if kind in NO_TEXT:
            return []
        if kind in TEXT_ENCODERS or kind in POPULATED:
            added = [inputs["embeds"]] if is_link(inputs.get("embeds")) else []
            return self._encoded(node) + [text for one in added for text in self._conditioning(one, side, seen)]
        if kind in TWO_SIDED:
            names = [key for key in TWO_SIDED[kind].get(slot, ()) if key in inputs]
            if not names:
                raise GraphError(f"output {slot} of a node {kind!r} has no text")
            return [self.text(inputs[key], kind) for key in names]
        given = self.field(kind, slot) or self._output_side(node, slot)
        if given is not None:
            value = self.held_by(place, given, 0)
            if value is None:
                raise GraphError(f"a node {kind!r} has no {given} input")
            if kind not in OUTPUTS and kind not in BUNDLES and self._is_string(value):
                raise GraphError(f"the {side} text comes from a node {kind!r}, which is not known")  # it encodes, and may add to the text
            return self._conditioning(value, side, seen)
        if any(is_link(inputs.get(key)) for key in SIDES["positive"]) and any(is_link(inputs.get(key)) for key in SIDES["negative"]):
            raise GraphError(f"a node {kind!r} hands on positive and negative, and it cannot be told by which outputs")
        parts = [inputs[key] for key in CONDITIONINGS if is_link(inputs.get(key))]
        if parts and kind not in LOCAL_TEXTS and any(inputs.get(key) for key in _OWN_TEXTS):
            raise GraphError(f"a node {kind!r} adds a text to a conditioning in a way that is not known")
        if parts:
            texts = [text for one in parts for text in self._conditioning(one, side, seen)]
            return self._with_local(texts, node)
        if self._is_string(link):
            return [self.text(link, kind)]
        raise GraphError(f"the {side} text comes from a node {kind!r}, which is not known")

    def _is_string(self, link: Any) -> bool:
        if isinstance(link, str):
            return True
        kind = self.behind(link)[1]["class_type"]
        return kind in STRINGS or kind in SHOWN or kind in REPLACED or kind == "StringFunction|pysssss"

    def _encoded(self, node: Mapping[str, Any]) -> list[str]:
        kind, inputs = node["class_type"], node["inputs"]
        if kind in POPULATED:
            return [self.populated(node)]
        self.check_alone(node)
        texts = [self.text(inputs[name], kind) for name in TEXT_ENCODERS[kind] if name in inputs]
        if not texts:
            raise GraphError(f"node {kind!r} has no text")
        if kind in DRAWN_AT_RANDOM and any(RANDOM.search(text) for text in texts):
            raise GraphError(f"the text was drawn at random by a node {kind!r}")
        return texts

    def _with_local(self, texts: list[str], node: Mapping[str, Any]) -> list[str]:
        """With the text for a box of the picture after them, unless they say it already."""
        key = LOCAL_TEXTS.get(node["class_type"])
        if key is None or key not in node["inputs"]:
            return texts
        local = self.text(node["inputs"][key], node["class_type"])
        return texts if any(local.strip().lower() in text.lower() for text in texts) else [*texts, local]

    def _output_side(self, node: Mapping[str, Any], slot: int) -> str | None:
        """Which side an output is, by the names that the workflow gives the outputs, or those that are known of the node."""
        for names in (node.get("outputs") or (), OUTPUTS.get(node["class_type"], ())):
            if 0 <= slot < len(names):
                name = str(names[slot]).strip().lower()
                if name.startswith("refiner"):
                    return "refiner_negative" if name.endswith(("negative", "-")) else "refiner_positive"
                if "negative" in name or name in ("neg", "uncond", "conditioning-", "base_conditioning-"):
                    return "negative"
                if "positive" in name or name in ("pos", "cond", "conditioning+", "base_conditioning+"):
                    return "positive"
        return None
