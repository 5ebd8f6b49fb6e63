"""Files that carry a prompt, but do not show the picture that was made from it: pictures of ComfyUI's graph, and grids of several pictures."""

from __future__ import annotations

import re

from data.metadata.comfyui import GraphPrompt
from data.metadata.found import ImageMetadata, NotOnePictureError

GRAPH, GRID = "picture of a node graph", "grid of pictures"
_STEP = 8  # sides of pictures that were decoded from a latent are multiples of it
_ENLARGED = re.compile(r"hires|upscale|first pass|extras|postprocess|resize|tiled|outpaint|mask|init image|second pass", re.IGNORECASE)
_GRID_NAME = re.compile(r"(?:xyz?_)?grid\b|(?:xyz?_)?grid[-_ ]?\d", re.IGNORECASE)
_MOST_IN_GRID = 400


def check_picture_of_graph(size: tuple[int, int], graph: GraphPrompt | None, metadata: ImageMetadata | None, *, is_drawn_alone: bool) -> None:
    """
    Args:
        size: of the file, (width, height) in pixels.
        graph: what the graph in it says, or None where that cannot be told.
        is_drawn_alone: there is a workflow, and no graph as it was executed, as when the editor's canvas is saved.

    Raises:
        NotOnePictureError: its sides are no latent's, and nothing that the graph says explains them.
    """
    if all(side % _STEP == 0 for side in size):
        return
    made = graph.size if graph is not None else None
    if made is not None and _same_shape(size, made):
        return  # as the graph made it, or the same picture larger or smaller
    if is_drawn_alone or made is not None or (graph is not None and graph.is_decoded):
        width, height = size
        says = "no picture that its graph makes" if made is None else f"not the {made[0]} x {made[1]} that its graph makes"
        raise NotOnePictureError(f"ComfyUI: a picture of the graph, it seems: {width} x {height} pixels are {says}", GRAPH, metadata)


def _same_shape(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether one is the other, larger or smaller, but for rounding to whole pixels."""
    return abs(size[0] * other[1] / other[0] - size[1]) <= 1 or abs(size[1] * other[0] / other[1] - size[0]) <= 1


def check_grid(size: tuple[int, int], metadata: ImageMetadata, name: str) -> None:
    """
    Args:
        size: of the file, (width, height) in pixels.
        name: of the file, without folders; may be empty.

    Raises:
        NotOnePictureError: it is several times as large as its settings say, and they speak of no enlarging.
    """
    made = (metadata.parameters.get("width"), metadata.parameters.get("height"))
    if not (isinstance(made[0], int) and isinstance(made[1], int) and made[0] > 0 and made[1] > 0) or any(map(_ENLARGED.search, metadata.others)):
        return
    (across, over), (down, under) = divmod(size[0], made[0]), divmod(size[1], made[1])
    multiple = not over and not under and 1 < across * down <= _MOST_IN_GRID
    named = _GRID_NAME.match(name) is not None and min(across, down) >= 1 and across * down > 1
    if multiple or named:
        message = f"{metadata.tool}: a grid of pictures: {size[0]} x {size[1]} pixels, of pictures of {made[0]} x {made[1]}"
        raise NotOnePictureError(message, GRID, metadata)
