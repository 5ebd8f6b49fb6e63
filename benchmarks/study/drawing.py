"""The pictures of the study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from benchmarks.study.looking import Look, shown

COLOURS = {
    "reprompt": "#4269d0",
    "reprompt-vit": "#97bbf5",
    "hf-git": "#efb118",
    "hf-blip": "#3ca951",
    "nearest": "0.45",
    "constant": "0.75",
}
_LABELS = {"other": "second subject"}
_SLOTS = ("subject", "other", "relation", "count", "colour", "background", "style", "weather", "light", "shot")


def draw_learning(curves: Mapping[str, Sequence[Sequence[Mapping[str, float]]]], path: Path) -> None:
    """Exactly right validation prompts against minutes and against pairs shown; a line for each seed."""
    figure, axes = _figure(1, 2, (10, 4))
    for axis, against, label in zip(axes[0], ("minutes", "pairs"), ("minutes of one core", "pairs shown"), strict=True):
        for name, seeds in curves.items():
            for number, curve in enumerate(seeds):
                points = [(point[against], point["exact_match"]) for point in curve if "exact_match" in point]  # none of what is no number
                about = {"label": name} if number == 0 else {}
                axis.plot(*zip(*points, strict=True), marker="o", markersize=3, linewidth=1.4, color=COLOURS[name], **about)
        axis.set(xlabel=label, ylabel="share of validation prompts exactly right", ylim=(0, None))
        axis.legend(frameon=False, fontsize=8)
    _save(figure, path)


def draw_slots(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Share of each slot that is right, with intervals, of every captioner of one comparison's JSON."""
    figure, axes = _figure(1, 1, (10, 4.2))
    axis = axes[0][0]
    names = [name for name in _SLOTS if name in results[0]["slots"]]
    for number, row in enumerate(results):
        if row["name"] == "constant":
            continue
        shift = (number - (len(results) - 2) / 2) * 0.13
        for place, slot in enumerate(names):
            one = row["slots"][slot]
            axis.plot([place + shift] * 2, [one["low"], one["high"]], color=COLOURS[row["name"]], linewidth=2)
            axis.plot([place + shift], [one["mean"]], "o", color=COLOURS[row["name"]], markersize=4, **({"label": row["name"]} if not place else {}))
    axis.set(
        xticks=range(len(names)), xticklabels=[_LABELS.get(name, name) for name in names], ylabel="share of pictures, 95 % intervals", ylim=(0, 1.02)
    )
    axis.legend(frameon=False, fontsize=8, ncols=len(results), loc="upper center", bbox_to_anchor=(0.5, 1.12))
    _save(figure, path)


def draw_drift(trip: Mapping[str, Any], path: Path) -> None:
    """How prompt and picture go on after each round, of a comparison's JSON."""
    figure, axes = _figure(1, 2, (10, 4))
    for axis, what, label in zip(
        axes[0], ("sentence", "image"), ("similarity to the true prompt", "similarity to the original picture"), strict=True
    ):
        for name, drift in trip["drifts"].items():
            rounds = range(1, len(drift[what]) + 1)
            axis.plot(rounds, [one["mean"] for one in drift[what]], marker="o", markersize=4, linewidth=1.4, label=name, color=COLOURS[name])
            axis.fill_between(
                rounds, [one["low"] for one in drift[what]], [one["high"] for one in drift[what]], alpha=0.15, color=COLOURS[name], linewidth=0
            )
        if what == "image":
            for end, style in (("ceiling", "--"), ("floor", ":")):
                axis.axhline(trip[end]["mean"], color="0.5", linewidth=1, linestyle=style)
                axis.annotate(end, (1, trip[end]["mean"]), textcoords="offset points", xytext=(0, 3), fontsize=8, color="0.35")
        axis.set(xlabel="rounds of prompt to picture to prompt", ylabel=label, xticks=list(rounds))
        axis.legend(frameon=False, fontsize=8)
    _save(figure, path)


def draw_attention(images: Mapping[int, Image.Image], found: Mapping[str, Sequence[Look]], slots: Sequence[str], path: Path) -> None:
    """A row for each picture: the picture, then where each network looks for each of the slots.

    Args:
        images: by their place; all have all of `slots`.
        found: of each network.
    """
    columns = 1 + len(found) * len(slots)
    figure, axes = _figure(len(images), columns, (1.25 * columns, 1.45 * len(images)))
    for number, (row, (place, image)) in enumerate(zip(axes, images.items(), strict=True)):
        for axis in row:
            axis.set_axis_off()
        row[0].imshow(image)
        cells = iter(row[1:])
        for name, looks in found.items():
            for slot in slots:
                look = next(look for look in looks if look.place == place and look.slot == slot)
                axis = next(cells)
                axis.imshow(shown(image, look.attention))
                axis.set_title(f"{name}\n{look.word}" if number == 0 else look.word, fontsize=7, pad=2)
    _save(figure, path)


def _figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, Any]:
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.2)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata={"Software": None})
