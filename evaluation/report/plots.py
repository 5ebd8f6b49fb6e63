"""Plots of a report, as SVG text."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from data.errors import MissingExtraError
from evaluation.calibration import Calibration
from evaluation.statistics import Estimate


def reliability(calibrations: Mapping[str, Calibration]) -> str:
    """How often predictions are right, by the confidence they came with; a point's area says how many they are."""
    figure, axes = _figure(5.2, 4.4)
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--", label="as confident as right")
    for name, one in calibrations.items():
        total = sum(part.count for part in one.bins)
        points = [(part.confidence, part.right) for part in one.bins]
        (line,) = axes.plot(*zip(*points, strict=True), linewidth=1.5, label=f"{_label(name)} (error {one.error:.3f})")
        axes.scatter(*zip(*points, strict=True), s=[8 + 150 * part.count / total for part in one.bins], color=line.get_color())
    axes.set(xlabel="confidence", ylabel="share that is exactly right", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def _label(name: str) -> str:
    """As it is: what stands between dollar signs is no mathematics."""
    return name.replace("$", r"\$")


def intervals(estimates: Mapping[str, Estimate], label: str) -> str:
    """A number of several captioners with its 95 % interval."""
    figure, axes = _figure(5.2, 0.8 + 0.36 * len(estimates))
    for place, one in enumerate(estimates.values()):
        axes.plot([one.low, one.high], [-place] * 2, color="#4269d0", linewidth=2)
        axes.plot([one.mean], [-place], "o", color="#4269d0", markersize=6)
    axes.set(xlabel=f"{label}, 95 % intervals", yticks=[-place for place in range(len(estimates))], yticklabels=list(map(_label, estimates)))
    axes.set_ylim(0.5 - len(estimates), 0.5)
    return _svg(figure)


def decays(series: Mapping[str, Sequence[Estimate]], label: str) -> str:
    """A number after each round, with its interval, of several captioners."""
    figure, axes = _figure(5.2, 3.6)
    for name, values in series.items():
        rounds = range(1, len(values) + 1)
        axes.plot(rounds, [one.mean for one in values], marker="o", linewidth=1.5, label=_label(name))
        axes.fill_between(rounds, [one.low for one in values], [one.high for one in values], alpha=0.15)
    axes.set(xlabel="rounds of prompt to picture to prompt", ylabel=label, xticks=list(range(1, 1 + max(map(len, series.values())))))
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(f"plots need the extra 'eval' ({error}): pip install -e '.[eval]'") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)
    return figure, axes


def _svg(figure: Any) -> str:
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "reprompt", "font.family": "sans-serif"}):  # text stays text, and the file the same
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
