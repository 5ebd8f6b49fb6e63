"""Which of the pictures that a ComfyUI graph saves a file is: told by the kind of file, by the sizes that the graph gives its pictures, and by the
prefixes that it gives their names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from data.metadata.comfyui_nodes import LATENTS
from data.metadata.comfyui_strings import is_link
from data.metadata.comfyui_texts import Texts
from data.metadata.lenient import number

Size = tuple[int, int]
_DEEPEST = 200  # nodes between a save and the latent it was made from
_LONGEST_SIDE = 1_000_000  # pixels
_VIDEO = re.compile(r"video|webm|animated|vhs_|gif|mp4", re.IGNORECASE)
_NO_PICTURE = re.compile(r"latent|checkpoint|audio|lora|modelsave|conditioning|glb|3d|mesh", re.IGNORECASE)
_IMAGE_INPUTS = ("images", "image", "IMAGE", "pixels", "samples")
_FACTOR = re.compile(r"(?<![0-9a-z])(?:(\d)x|x(\d))(?![0-9])|(?<=[_\-])x(\d)", re.IGNORECASE)
_TOKENS = re.compile(r"%[^%]*%|\[[^\]]*\]")  # dates and the like in a prefix
_COUNTED = re.compile(r"[_\- ]*\d{1,8}[_\- ]*(?:\(\d+\))?[_\- ]*$")  # what follows it


class Saves:
    """The nodes of a graph that save or show pictures."""

    def __init__(self, texts: Texts) -> None:
        self.texts = texts
        self.graph = texts.graph

    def ends(self, sign: str) -> list[str]:
        """Nodes whose name has a sign ("Save", "Preview") and into which a picture goes, and samplers that save by themselves."""
        found = []
        for name, node in self.graph.items():
            kind, inputs = node["class_type"], node["inputs"]
            itself = sign == "Save" and isinstance(inputs.get("image_output"), str) and "Save" in inputs["image_output"]
            if itself or ((sign in kind or (sign == "Save" and _VIDEO.search(kind) and "Combine" in kind)) and self._shows_a_picture(kind, inputs)):
                found.append(name)
        return found

    def of_file(self, ends: list[str], size: Size | None, name: str, moving: bool) -> list[str]:
        """Those that the file can be from: all where nothing speaks against any.

        Args:
            size: of the file, pixels; None where it is not known.
            name: the file's name, without folders; may be empty.
            moving: it has several frames.
        """
        kept = [end for end in ends if bool(_VIDEO.search(self.graph[end]["class_type"])) == moving] or ends
        if len(kept) < 2:
            return kept
        by_size = kept
        if size is not None:
            sizes = {end: self.size(end) for end in kept}
            if size in sizes.values():
                by_size = [end for end in kept if sizes[end] in (size, None)]
        by_name = self._by_name(kept, name)
        both = [end for end in by_size if end in by_name]
        return both or kept  # what the size and the name say of it may not agree

    def size(self, end: str) -> Size | None:
        """Of the picture that a node saves, in pixels; None where the graph does not say."""
        inputs = self.graph[end]["inputs"]
        link = next((inputs[key] for key in _IMAGE_INPUTS if is_link(inputs.get(key))), None)
        return self._size(link, 0) if link is not None else None

    def is_decoded(self, end: str) -> bool:
        """Whether what is saved comes from the decoder as it is, so that its sides are multiples of eight."""
        inputs = self.graph[end]["inputs"]
        link = next((inputs[key] for key in _IMAGE_INPUTS if is_link(inputs.get(key))), None)
        node = self.graph.get(str(link[0])) if isinstance(link, list) else None
        return node is not None and node["class_type"].startswith("VAEDecode")

    def _shows_a_picture(self, kind: str, inputs: Mapping[str, Any]) -> bool:
        if any(is_link(inputs.get(key)) for key in ("images", "image")):
            return True
        return not _NO_PICTURE.search(kind) and any(is_link(value) for value in inputs.values()) and "Text" not in kind and "Any" not in kind

    def _by_name(self, ends: list[str], name: str) -> list[str]:
        stem = re.sub(r"\.[A-Za-z0-9]{2,5}$", "", name.replace("\\", "/").rpartition("/")[2])
        if not stem:
            return ends
        told: dict[str, list[str]] = {"exactly": [], "begins": []}
        longest = 0
        for end in ends:
            prefix = self._prefix(end)
            if not prefix:
                continue
            pattern = ".*?".join(re.escape(part) for part in _TOKENS.split(prefix))
            if (match := re.match(pattern, stem)) is None:
                continue
            rest = stem[match.end() :]
            if _COUNTED.fullmatch(rest):
                told["exactly"].append(end)
            if not rest[:1].isalnum():
                if len(prefix) > longest:
                    longest, told["begins"] = len(prefix), []
                if len(prefix) == longest:
                    told["begins"].append(end)
        return told["exactly"] or told["begins"] or ends

    def _prefix(self, end: str) -> str:
        inputs = self.graph[end]["inputs"]
        for key in ("filename_prefix", "filename", "save_prefix", "prefix"):
            if isinstance(inputs.get(key), str):
                return str(inputs[key]).replace("\\", "/").rpartition("/")[2]
        return ""

    def _size(self, link: Any, depth: int) -> Size | None:
        found = self._size_behind(link, depth)
        return found if found is not None and all(0 < side < _LONGEST_SIDE for side in found) else None

    def _size_behind(self, link: Any, depth: int) -> Size | None:
        node = self.graph.get(str(link[0])) if is_link(link) else None
        if node is None or depth > _DEEPEST:
            return None
        kind, inputs = node["class_type"], node["inputs"]
        try:
            before = self.texts.chosen(node)
        except ValueError:
            return None
        if before is not None:
            return self._size(before, depth + 1)
        sides = [number(self.texts.scalar(inputs.get(key)), int) for key in ("width", "height")]
        own = (int(sides[0]), int(sides[1])) if sides[0] and sides[1] else None
        source = next((inputs[key] for key in (*_IMAGE_INPUTS, *LATENTS) if is_link(inputs.get(key))), None)
        if kind.startswith("Empty") or kind == "StableCascade_EmptyLatentImage":
            return (own[0] // 8 * 8, own[1] // 8 * 8) if own else None
        if kind in ("LatentUpscale", "ImageScale"):
            return own if kind == "ImageScale" or own is None else (own[0] // 8 * 8, own[1] // 8 * 8)
        inner = self._size(source, depth + 1) if source is not None else None
        if inner is None:
            return None
        if kind in ("LatentUpscaleBy", "ImageScaleBy", "UltimateSDUpscale", "UltimateSDUpscaleNoUpscale", "ImageUpscaleWithModel"):
            return _scaled(inner, self._factor(kind, inputs), 8 if kind == "LatentUpscaleBy" else 1)
        kept = kind.startswith("VAEDecode") or (any(is_link(inputs.get(key)) for key in LATENTS) and ("steps" in inputs or "guider" in inputs))
        return inner if kept or kind.startswith(("Reroute", "FaceDetailer", "Save", "Preview")) else None

    def _factor(self, kind: str, inputs: Mapping[str, Any]) -> float | None:
        if kind == "UltimateSDUpscaleNoUpscale":
            return 1
        if kind != "ImageUpscaleWithModel":
            return number(self.texts.scalar(inputs.get("scale_by", inputs.get("upscale_by"))))
        model = self.graph.get(str(inputs["upscale_model"][0])) if is_link(inputs.get("upscale_model")) else None
        named = _FACTOR.search(str(model["inputs"].get("model_name", ""))) if model is not None else None
        return float(next(group for group in named.groups() if group)) if named else None


def _scaled(size: Size, factor: float | None, step: int) -> Size | None:
    if factor is None or not 0 < factor < 100:
        return None
    return round(size[0] / step * factor) * step, round(size[1] / step * factor) * step


def links(graph: Mapping[str, Mapping[str, Any]], texts: Texts, name: str) -> Iterator[str]:
    """The nodes that go into a node; of a switch, only the one that is chosen."""
    node = graph[name]
    try:
        chosen = texts.chosen(node)
    except ValueError:
        chosen = None
    for value in node["inputs"].values() if chosen is None else [chosen]:
        if is_link(value) and str(value[0]) in graph:
            yield str(value[0])
