"""A comparison as JSON, and as Markdown tables that can be read in a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evaluation.captioners import Captioned
from evaluation.comparison import Column, Comparison
from evaluation.overlap import INVENTED
from evaluation.round_trip import RoundTrip
from evaluation.statistics import Estimate

HEADLINE = ("similarity", "cider_d", "bleu_4", "token_f1", "exact_match")


def as_json(comparison: Comparison, about: Mapping[str, Any]) -> dict[str, Any]:
    """Everything but the predictions themselves."""
    return {
        **about,
        "range": {name: {"another_prompt": low, "true_prompt": high} for name, (low, high) in comparison.extremes.items()},
        "results": [_column(column) for column in comparison.columns],
        "unpainted": comparison.unpainted,
        "round_trip": None if comparison.round_trip is None else _round_trip(comparison.round_trip),
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


def _round_trip(trip: RoundTrip) -> dict[str, Any]:
    drifts = {
        name: {"sentence": [_numbers(one) for one in drift.sentence], "image": [_numbers(one) for one in drift.image]}
        for name, drift in trip.drifts.items()
    }
    return {
        "failed": dict(trip.failed),
        "painter": trip.painter,
        "encoder": trip.encoder,
        "ceiling": _numbers(trip.ceiling),
        "floor": _numbers(trip.floor),
        "recovery": _plain(trip.recovery),
        "drifts": drifts,
    }


def _plain(estimates: Mapping[str, Estimate]) -> dict[str, dict[str, float | None]]:
    return {name: _numbers(estimate) for name, estimate in estimates.items()}


def _numbers(estimate: Estimate) -> dict[str, float | None]:
    """JSON has no infinity."""
    return {name: value if math.isfinite(value) else None for name, value in asdict(estimate).items()}


@dataclass(frozen=True)
class Table:
    """Rows of text under a head; `title` is for where tables have one."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        """Markdown; a bar in a cell is escaped."""
        lines = [self.head, ["---"] * len(self.head), *self.rows]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines)


@dataclass(frozen=True)
class Verdicts:
    """What the differences establish, in words: a line for each of the other captioners."""

    note: str
    lines: Sequence[str]


def markdown(comparison: Comparison) -> str:
    """Metrics, slots, slices, what is established in words, and what failed."""
    sections = [str(table) for table in tables(comparison)]
    if found := verdicts(comparison):
        sections.append(found.note + "\n\n" + "\n".join(f"- {line}" for line in found.lines))
    sections += [f"{name} failed: {why}" for name, why in failures(comparison)]
    return "\n\n".join(sections)


def failures(comparison: Comparison) -> list[tuple[str, str]]:
    """Which captioners failed, and why: of all pictures, or of a later round."""
    trip = comparison.round_trip
    found = [(column.name, column.failed) for column in comparison.failed]
    found += trip.failed.items() if trip is not None else []
    return [*found, ("round trip", comparison.unpainted)] if comparison.unpainted else found


def tables(comparison: Comparison) -> list[Table]:
    """Metrics, slots and slices; those that have rows."""
    found = [_metrics(comparison), _slots(comparison), _slices(comparison), *_round_trips(comparison.round_trip), _differences(comparison)]
    return [table for table in found if table.rows]


def _metrics(comparison: Comparison) -> Table:
    """Every metric of every captioner, what it can be on these pictures, and what captioning took."""
    columns = comparison.columns
    names = dict.fromkeys(name for column in columns if column.judgement is not None for name in column.judgement.estimates)
    rows = []
    for name in names:
        low, high = comparison.extremes.get(name, (math.nan, math.nan))
        span = f"{low:.3f} to {high:.3f}" if math.isfinite(low) else ""
        rows.append([name, *(_estimate(column, name) for column in columns), span])
    for label, text in _MEASURED.items():
        cells = [text(column) for column in columns]
        if any(cells):
            rows.append([label, *cells, ""])
    return Table("Captioners", ["metric", *(column.name for column in columns), "another's prompt to the true one"], rows)


def _estimate(column: Column, name: str) -> str:
    if column.judgement is None:
        return "failed" if column.failed else ""
    return str(column.judgement.estimates[name]) if name in column.judgement.estimates else ""


def _error(column: Column) -> str:
    judged = column.judgement
    return f"{judged.calibration.error:.3f}" if judged is not None and judged.calibration is not None else ""


def _looked(column: Column, text: Callable[[Captioned], str]) -> str:
    return text(column.captioned) if column.captioned is not None and not column.about.blind else ""


_MEASURED: dict[str, Callable[[Column], str]] = {
    "calibration error": _error,
    "vocabulary": lambda column: str(column.judgement.vocabulary) if column.judgement is not None else "",
    "words": lambda column: f"{column.judgement.mean_length:.1f}" if column.judgement is not None else "",
    "images/s": lambda column: _looked(column, lambda taken: f"{taken.images_per_second:.1f}"),
    "ms an image, p50 / p95": lambda column: _looked(column, lambda taken: f"{1000 * taken.latency(0.5):.0f} / {1000 * taken.latency(0.95):.0f}"),
    "memory, MB": lambda column: _looked(column, lambda taken: "" if taken.memory is None else f"{taken.memory / 1e6:.0f}"),
    "parameters, M": lambda column: f"{column.about.parameters / 1e6:.1f}" if column.about.parameters else "",
    "precision": lambda column: column.about.precision,
    "cost, $": lambda column: f"{column.about.cost:.2f}" if column.about.cost else "",
}


def _slots(comparison: Comparison) -> Table:
    names = dict.fromkeys(name for column in comparison.columns if column.judgement is not None for name in column.judgement.slots)
    rows = []
    for name in sorted(names, key=lambda name: name == INVENTED):
        found = [column.judgement.slots.get(name) if column.judgement is not None else None for column in comparison.columns]
        asked = max(one.count for one in found if one is not None)
        rows.append([name, str(asked), *("" if one is None else str(one) for one in found)])
    return Table("Parts of the scene", ["slot recovered", "pictures asked of", *(column.name for column in comparison.columns)], rows)


def _slices(comparison: Comparison) -> Table:
    rows = []
    for one in comparison.slices:
        count = max(estimate.count for estimate in one.estimates.values())
        rows.append([one.trait, one.value, str(count), *(str(one.estimates.get(column.name, "")) for column in comparison.columns)])
    metric = comparison.slices[0].metric if comparison.slices else ""
    head = [f"{metric} by", "", "pictures", *(column.name for column in comparison.columns)]
    return Table(f"{metric} by parts of the data".capitalize(), head, rows)


def _round_trips(trip: RoundTrip | None) -> list[Table]:
    """How well prompts make their pictures again, and how both drift over rounds."""
    if trip is None:
        return []
    ends = [["the true prompt, other seeds", str(trip.ceiling), "1"], ["another picture's prompt", str(trip.floor), "0"]]
    rows = [[name, str(drift.image[0]), str(trip.recovery[name])] for name, drift in trip.drifts.items()]
    found = [Table(f"Painted again by {trip.painter}, compared by {trip.encoder}", ["painted from", "picture similarity", "recovery"], rows + ends)]
    if any(len(drift.image) > 1 for drift in trip.drifts.values()):
        drifted = [
            [name, str(number), str(sentence), str(image)]
            for name, drift in trip.drifts.items()
            for number, (sentence, image) in enumerate(zip(drift.sentence, drift.image, strict=True), 1)
        ]
        found.append(Table("Drift", ["captioner", "round", "prompt similarity", "picture similarity"], drifted))
    return found


def _differences(comparison: Comparison) -> Table:
    """All paired differences, where there are several others."""
    others = [column for column in comparison.columns if column.differences]
    names = dict.fromkeys(name for column in others for name in column.differences)
    rows = [[name, *(_signed(column.differences[name]) if name in column.differences else "" for column in others)] for name in names]
    first = comparison.columns[0].name if comparison.columns else ""
    return Table("Paired differences", [f"{first} less", *(column.name for column in others)], rows)


def verdicts(comparison: Comparison) -> Verdicts | None:
    """Against each other captioner, which differences of the headline metrics are established and which are not."""
    lines, total = [], 0
    first = comparison.columns[0].name if comparison.columns else ""
    for column in comparison.columns:
        shown = {name: column.differences[name] for name in HEADLINE if name in column.differences}
        if not shown:
            continue
        total += len(shown)
        better = [f"{name} {_signed(one)}" for name, one in shown.items() if one.low > 0]
        worse = [f"{name} {_signed(one)}" for name, one in shown.items() if one.high < 0]
        neither = [f"{name} {_signed(one)}" for name, one in shown.items() if not one.established]
        said = [f"established that {first} is better: {'; '.join(better)}" if better else ""]
        said.append(f"established that {first} is worse: {'; '.join(worse)}" if worse else "")
        said.append(f"not established either way: {'; '.join(neither)}" if neither else "")
        lines.append(f"{first} beside {column.name}: " + ". ".join(part for part in said if part) + ".")
    if not lines:
        return None
    note = (
        f"Differences picture by picture ({first} less the other), 95 % intervals, groups of prompts as the units; established: the interval "
        f"does not hold 0. Of {total} such statements one in twenty may be chance's."
    )
    return Verdicts(note, lines)


def _signed(one: Estimate) -> str:
    if not math.isfinite(one.high - one.low):
        return f"{one.mean:+.3f} (one group: no interval)"
    return f"{one.mean:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"
