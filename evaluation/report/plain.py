"""A comparison as JSON, and as Markdown tables that can be read in a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from evaluation.comparison import Column, Comparison
from evaluation.statistics import Estimate

HEADLINE = ("similarity", "cider_d", "bleu_4", "token_f1", "exact_match")
_FEWER_IS_BETTER = ("degenerate",)


def as_json(comparison: Comparison, about: Mapping[str, Any]) -> dict[str, Any]:
    """Everything but the predictions themselves."""
    return {
        **about,
        "range": {name: {"another_prompt": low, "true_prompt": high} for name, (low, high) in comparison.extremes.items()},
        "results": [_column(column) for column in comparison.columns],
        "slices": [{"trait": one.trait, "value": one.value, "metric": one.metric, "estimates": _plain(one.estimates)} for one in comparison.slices],
    }


def _column(column: Column) -> dict[str, Any]:
    found: dict[str, Any] = {"name": column.name, **asdict(column.about)}
    if column.failed:
        found["failed"] = column.failed
    if column.captioned is not None:
        found |= {
            "images_per_second": column.captioned.images_per_second,
            "seconds_per_image": {"p50": column.captioned.latency(0.5), "p95": column.captioned.latency(0.95)},
            "peak_memory_bytes": column.captioned.memory,
            "captioned_before": column.captioned.kept,
        }
    if column.judgement is not None:
        judgement = column.judgement
        found |= {"metrics": _plain(judgement.estimates), "slots": _plain(judgement.slots), "vocabulary": judgement.vocabulary}
        found["mean_length"] = judgement.mean_length
        if judgement.calibration is not None:
            found["calibration"] = asdict(judgement.calibration)
    if column.differences:
        found["first_minus_this"] = {name: _numbers(one) | {"established": one.established} for name, one in column.differences.items()}
    return found


def _plain(estimates: Mapping[str, Estimate]) -> dict[str, dict[str, float | None]]:
    return {name: _numbers(estimate) for name, estimate in estimates.items()}


def _numbers(estimate: Estimate) -> dict[str, float | None]:
    """JSON has no infinity."""
    return {name: value if math.isfinite(value) else None for name, value in asdict(estimate).items()}


def markdown(comparison: Comparison) -> str:
    """Metrics, slots, slices, and what is established, in words."""
    sections = [summary_table(comparison)]
    if table := _slots(comparison):
        sections.append(table)
    sections += [_slices(comparison), _in_words(comparison), _failures(comparison)]
    return "\n\n".join(section for section in sections if section)


def summary_table(comparison: Comparison) -> str:
    """Every metric of every captioner, what it can be on these pictures, and what captioning took."""
    columns = comparison.columns
    names = list(dict.fromkeys(name for column in comparison.judged for name in column.judgement.estimates))  # type: ignore[union-attr]
    rows = []
    for name in names:
        low, high = comparison.extremes.get(name, (None, None))
        span = f"{low:.3f} to {high:.3f}" if low is not None else ""
        rows.append([name, *_cells(columns, lambda column, name=name: _estimate(column, name)), span])  # type: ignore[misc]
    for label, text in _MEASURED.items():
        cells = _cells(columns, text)
        if any(cells):
            rows.append([label, *cells, ""])
    return table(["metric", *(column.name for column in columns), "another's prompt to the true one"], rows)


def _estimate(column: Column, name: str) -> str:
    if column.judgement is None:
        return "failed" if column.failed else ""
    return str(column.judgement.estimates[name]) if name in column.judgement.estimates else ""


def _cells(columns: Sequence[Column], text: Callable[[Column], str]) -> list[str]:
    return [text(column) for column in columns]


def _error(column: Column) -> str:
    judged = column.judgement
    return f"{judged.calibration.error:.3f}" if judged is not None and judged.calibration is not None else ""


def _taken(column: Column, what: str) -> str:
    taken = column.captioned
    if taken is None:
        return ""
    return {
        "speed": f"{taken.images_per_second:.1f}" if not column.about.blind else "",
        "latency": f"{1000 * taken.latency(0.5):.0f} / {1000 * taken.latency(0.95):.0f}" if not column.about.blind else "",
        "memory": f"{taken.memory / 1e6:.0f}",
    }[what]


_MEASURED: dict[str, Callable[[Column], str]] = {
    "calibration error": _error,
    "vocabulary": lambda column: str(column.judgement.vocabulary) if column.judgement is not None else "",
    "words": lambda column: f"{column.judgement.mean_length:.1f}" if column.judgement is not None else "",
    "images/s": lambda column: _taken(column, "speed"),
    "ms an image, p50 / p95": lambda column: _taken(column, "latency"),
    "memory, MB": lambda column: _taken(column, "memory"),
    "parameters, M": lambda column: f"{column.about.parameters / 1e6:.1f}" if column.about.parameters else "",
    "precision": lambda column: column.about.precision,
    "cost, $": lambda column: f"{column.about.cost:.2f}" if column.about.cost else "",
}


def _slots(comparison: Comparison) -> str:
    names = list(dict.fromkeys(name for column in comparison.judged for name in column.judgement.slots))  # type: ignore[union-attr]
    if not names:
        return ""
    rows = []
    for name in names:
        found = [column.judgement.slots.get(name) if column.judgement is not None else None for column in comparison.columns]
        asked = max(one.count for one in found if one is not None)
        rows.append([name, str(asked), *("" if one is None else str(one) for one in found)])
    rows.sort(key=lambda row: row[0] == "invented")
    return table(["slot recovered", "pictures asked of", *(column.name for column in comparison.columns)], rows)


def _slices(comparison: Comparison) -> str:
    if not comparison.slices:
        return ""
    rows = []
    for one in comparison.slices:
        count = max(estimate.count for estimate in one.estimates.values())
        rows.append([one.trait, one.value, str(count), *(str(one.estimates.get(column.name, "")) for column in comparison.columns)])
    return table([f"{comparison.slices[0].metric} by", "", "pictures", *(column.name for column in comparison.columns)], rows)


def _in_words(comparison: Comparison) -> str:
    """Against each baseline, which differences of the headline metrics are established and which are not."""
    if not comparison.judged or not any(column.differences for column in comparison.columns):
        return ""
    first = comparison.columns[0].name
    lines = []
    for column in comparison.columns[1:]:
        shown = {name: column.differences[name] for name in HEADLINE if name in column.differences}
        if not shown:
            continue
        better = [f"{name} {_signed(one)}" for name, one in shown.items() if one.low > 0]
        worse = [f"{name} {_signed(one)}" for name, one in shown.items() if one.high < 0]
        open_ones = [f"{name} {_signed(one)}" for name, one in shown.items() if not one.established]
        said = [f"established that {first} is better: {'; '.join(better)}" if better else ""]
        said.append(f"established that {first} is worse: {'; '.join(worse)}" if worse else "")
        said.append(f"not established either way: {'; '.join(open_ones)}" if open_ones else "")
        lines.append(f"- {first} beside {column.name}: " + ". ".join(part for part in said if part) + ".")
    total = sum(len([name for name in HEADLINE if name in column.differences]) for column in comparison.columns)
    note = (
        f"Differences picture by picture ({first} less the other), 95 % intervals by a bootstrap over groups of prompts; established: the interval "
        f"does not hold 0. Of {total} such statements one in twenty may be chance's."
    )
    return f"{note}\n\n" + "\n".join(lines)


def _signed(one: Estimate) -> str:
    return f"{one.mean:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"


def _failures(comparison: Comparison) -> str:
    return "\n\n".join(f"{column.name} failed: {column.failed}" for column in comparison.failed)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown; a bar in a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines)
