"""ComfyUI's strings, switches and bundles: what a link to one of them stands for.

What cannot be told is named, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from data.metadata.comfyui_drawn import Graph, GraphError
from data.metadata.comfyui_nodes import (
    BESIDE,
    BUNDLES,
    DELIMITER_INPUTS,
    DELIMITERS,
    DRAWN_AT_RANDOM,
    FIRST_BUNDLE,
    FIRST_OF,
    OUTPUTS,
    POPULATED,
    REPLACED,
    SCALARS,
    SHOWN,
    SIDES,
    STRINGS,
    SWITCHES,
    TEXT_ENCODERS,
    WILDCARD_LOADERS,
    WORDED_DELIMITERS,
    Switch,
)
from data.metadata.lenient import number

DEEPEST = 200  # links followed in a row
_MOST_TEXTS = 1000  # looked at for one picture
RANDOM = re.compile(r"\{[^{}]*\|[^{}]*\}|__[\w/\-*]+__|\$\$|\$\{")  # {one|other}, __wildcard__, ${variable}
_CHOICE = re.compile(r"\{[^{}]*\|[^{}]*\}")  # the editor itself draws one of these when it sends a graph off
_PATTERN_SIGNS = re.compile(r"[.^$*+?{}\[\]\\|()]")


class Strings:
    """Reads the strings of a graph.

    Args:
        shown: texts that nodes showed when the picture was made, by their ids.
        drawn: the graph is one as it was drawn, in which the editor has not yet chosen between {one|other}.
    """

    def __init__(self, graph: Graph, shown: Mapping[str, str], drawn: bool) -> None:
        self.graph = graph
        self.shown = shown
        self.drawn = drawn
        self.texts_left = _MOST_TEXTS

    def text(self, value: Any, owner: str, depth: int = 0) -> str:
        """A text as it stands, or what a string node gives."""
        if isinstance(value, str):
            if self.drawn and _CHOICE.search(value):
                raise GraphError("the text was drawn at random when the graph was sent off")
            return value
        if not is_link(value):
            raise GraphError(f"node {owner!r} has no text")
        node = self.node_of(value)
        kind = node["class_type"]
        self.texts_left -= 1
        if depth > DEEPEST or self.texts_left < 0:
            raise GraphError("strings that are joined too often, or in a circle")
        before = self.chosen(node)
        if before is not None:
            return self.text(before, kind, depth + 1)
        try:
            return self._string(node, value, depth)
        except GraphError:
            if (shown := self._shown(value)) is not None:
                return shown
            raise

    def chosen(self, node: Mapping[str, Any]) -> Any:
        """What a node hands on that hands on one of its inputs; None where it is no such node.

        Raises:
            GraphError: it cannot be told which.
        """
        kind, inputs = node["class_type"], node["inputs"]
        if kind in FIRST_OF:
            found = next((inputs[key] for key in FIRST_OF[kind] if key in inputs), None)
            if found is None:
                raise GraphError(f"nothing goes into a node {kind!r}")
            return found
        switch = SWITCHES.get(kind)
        if switch is None and "on_true" in inputs and "on_false" in inputs:
            by = [key for key in ("boolean", "switch", "condition") if key in inputs]
            switch = Switch(by[0], ("on_true", "on_false")) if len(by) == 1 else None
        if switch is not None:
            key = switch.names[self._index(inputs.get(switch.by), switch, kind)]
            if key not in inputs:
                raise GraphError(f"a node {kind!r} hands on an input {key!r} that nothing goes into")
            return inputs[key]
        if "Reroute" in kind and len(inputs) == 1:
            return next(iter(inputs.values()))
        return None

    def scalar(self, value: Any, depth: int = 0) -> Any:
        """A number, a truth or a word, as it stands or from a node that holds it; None where it cannot be told."""
        if not is_link(value):
            return value
        node = self.graph.get(str(value[0]))
        if node is None or depth > DEEPEST:
            return None
        if node["class_type"] in SCALARS:
            return self.scalar(node["inputs"].get(SCALARS[node["class_type"]]), depth + 1)
        if "Reroute" in node["class_type"] and len(node["inputs"]) == 1:
            return self.scalar(next(iter(node["inputs"].values())), depth + 1)
        return None

    def node_of(self, link: Any) -> Mapping[str, Any]:
        if not is_link(link):
            raise GraphError("a sampler without a link to its text")
        node = self.graph.get(str(link[0]))
        if node is None:
            raise GraphError(f"a link to node {link[0]}, which is not there")
        return node

    def behind(self, link: Any) -> tuple[str, Mapping[str, Any]]:
        """The node behind a link, past those that only hand on."""
        for _ in range(DEEPEST):
            node = self.node_of(link)
            before = self.chosen(node)
            if before is None:
                return str(link[0]), node
            link = before
        raise GraphError("nodes that hand on in a circle, or too many")

    def held(self, link: Any, name: str, depth: int = 0) -> Any:
        """What a bundle holds under a name: a link, a text, or None."""
        place, node = self.behind(link)
        kind = node["class_type"]
        if kind not in BUNDLES or depth > DEEPEST:
            raise GraphError(f"the {name} text comes from a node {kind!r}, which is not known")
        return self.held_by(place, name, depth)

    def held_by(self, place: str, name: str, depth: int) -> Any:
        """What a node keeps itself under a name, or the bundle that it adds to."""
        inputs = self.graph[place]["inputs"]
        kind = self.graph[place]["class_type"]
        for key in SIDES.get(name, (name,)):
            value = inputs.get(key)
            if is_link(value):
                return value
            if isinstance(value, str) and kind in BUNDLES:
                if kind in WILDCARD_LOADERS and RANDOM.search(value):
                    raise GraphError(f"the text was drawn at random by a node {kind!r}")
                return value
        for key in BUNDLES.get(kind, ()):
            if not is_link(inputs.get(key)):
                continue
            found = self.held(inputs[key], name, depth + 1)
            if found is not None or kind in FIRST_BUNDLE:
                return found
        return None

    def field(self, kind: str, slot: int) -> str | None:
        """What an output of a bundle is called that gives any text or any value."""
        names = OUTPUTS.get(kind, ()) if kind in BUNDLES else ()
        return names[slot] if 0 <= slot < len(names) and names[slot].startswith(("text_", "any_")) else None

    def populated(self, node: Mapping[str, Any]) -> str:
        """The text that was drawn from a template, where the node keeps it."""
        kind, inputs = node["class_type"], node["inputs"]
        drawn, template = (inputs.get(name) for name in POPULATED[kind])
        if isinstance(drawn, str) and drawn.strip() and not _CHOICE.search(drawn):
            return drawn
        text = self.text(template if template is not None else "", kind)
        if RANDOM.search(text) or (is_link(template) and self.drawn):
            raise GraphError(f"the text was drawn at random by a node {kind!r}")
        return text

    def check_alone(self, node: Mapping[str, Any]) -> None:
        for name in BESIDE.get(node["class_type"], ()):
            if node["inputs"].get(name) not in (None, ""):
                raise GraphError(f"a node {node['class_type']!r} adds to its text by {name!r} in a way that is not known")

    def _index(self, value: Any, switch: Switch, kind: str) -> int:
        found = self.scalar(value)
        if isinstance(found, str) and found.lower() in ("true", "false"):
            found = found.lower() == "true"
        if isinstance(found, bool) and len(switch.names) == 2:
            return 0 if found else 1
        place = number(found, int)
        if place is None or isinstance(found, bool) or not 0 <= place - switch.first < len(switch.names):
            raise GraphError(f"it cannot be told which of its inputs a node {kind!r} hands on")
        return int(place) - switch.first

    def _string(self, node: Mapping[str, Any], link: Any, depth: int) -> str:
        kind, inputs = node["class_type"], node["inputs"]
        if kind in POPULATED:
            return self.populated(node)
        if kind in SHOWN:
            return self.text(inputs.get(SHOWN[kind]), kind, depth + 1)
        if kind in REPLACED:
            text, what, by = (self.text(inputs.get(name), kind, depth + 1) for name in REPLACED[kind])
            if kind == "Text Find and Replace" and _PATTERN_SIGNS.search(what + by):
                raise GraphError(f"a node {kind!r} replaces by a pattern")
            return text.replace(what, by) if what else text
        if kind == "StringFunction|pysssss":
            return self._string_function(inputs, depth)
        name = self.field(kind, link[1])
        if name is not None:
            return self.text(self.held_by(str(link[0]), name, 0), kind, depth + 1)
        self.check_alone(node)
        names = STRINGS.get(kind) or TEXT_ENCODERS.get(kind)
        if names is None:
            raise GraphError(f"the text comes from a node {kind!r}, which is not known")
        if not any(name in inputs for name in names):
            raise GraphError(f"node {kind!r} has no text")
        parts = [self.text(inputs[name], kind, depth + 1) for name in names if inputs.get(name) not in (None, "")]
        if kind == "Text Multiline":  # lines that begin so are comments
            parts = ["\n".join(line for line in part.split("\n") if not line.lstrip().startswith("#")) for part in parts]
        if inputs.get("clean_whitespace") in ("true", True):
            parts = [part.strip() for part in parts]
        text = self._delimiter(kind, inputs, len(parts)).join(part for part in parts if part)
        if kind in DRAWN_AT_RANDOM and RANDOM.search(text):
            raise GraphError(f"the text was drawn at random by a node {kind!r}")
        return text

    def _delimiter(self, kind: str, inputs: Mapping[str, Any], count: int) -> str:
        if count < 2:
            return ""
        if "linebreak_addition" in inputs:
            return "\n" if self.scalar(inputs["linebreak_addition"]) in ("true", True) else ""
        for name in DELIMITER_INPUTS:
            if name in inputs:
                found = self.text(inputs[name], kind)
                found = WORDED_DELIMITERS.get(kind, {}).get(found, found)
                return "\n" if found == "\\n" else found.replace("\\n", "\n")
        return DELIMITERS.get(kind, "")

    def _string_function(self, inputs: Mapping[str, Any], depth: int) -> str:
        parts = [self.text(inputs[name], "StringFunction", depth + 1) if name in inputs else "" for name in ("text_a", "text_b", "text_c")]
        tidy = inputs.get("tidy_tags") == "yes"
        if inputs.get("action") == "append":
            text = (", " if tidy else "").join(part for part in parts if part)
        elif inputs.get("action") == "replace" and not (parts[1].startswith("/") and parts[1].endswith("/")):
            text = parts[0].replace(parts[1], parts[2]) if parts[1] else parts[0]
        else:
            raise GraphError("a node 'StringFunction|pysssss' replaces by a pattern")
        if tidy:
            text = re.sub(r",{2,}", ",", re.sub(r"\s{2,}", " ", text).replace(" ,", ",")).strip()
        return text

    def _shown(self, link: Any) -> str | None:
        """What a node showed of a link, or of what goes into it, when the picture was made."""
        if str(link[0]) in self.shown:
            return self.shown[str(link[0])]
        for name, text in self.shown.items():
            node = self.graph.get(name)
            shown = node["inputs"].get(SHOWN.get(node["class_type"], "")) if node is not None else None
            if isinstance(shown, list) and is_link(shown) and [str(shown[0]), shown[1]] == [str(link[0]), link[1]]:
                return text
        return None


def is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int) and type(value[1]) is int
