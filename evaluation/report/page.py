"""A comparison as one HTML page that needs nothing else: no script, no font, no picture from outside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from typing import Any

from data.errors import MissingExtraError
from data.sources.held_out import HeldOutPictures
from evaluation.comparison import Comparison
from evaluation.report import plain, plots
from evaluation.report.gallery import gallery, main_metric


def page(comparison: Comparison, pictures: HeldOutPictures, *, title: str, about: Mapping[str, Any]) -> str:
    """All text in it is escaped: a prompt with a script tag is shown.

    Raises:
        MissingExtraError: Jinja2 or matplotlib is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise MissingExtraError(f"an HTML report needs the extra 'eval' ({error}): pip install -e '.[eval]'") from error
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("evaluation.report").joinpath("page.html").read_text(encoding="utf-8"))
    return template.render(
        title=title,
        tables=plain.tables(comparison),
        verdicts=plain.verdicts(comparison),
        failures=plain.failures(comparison),
        plots=[(caption, Markup(drawn)) for caption, drawn in _plots(comparison)],
        walls=gallery(comparison, pictures),
        metric=main_metric(comparison.judged[0]) if comparison.judged else "",
        facts=_facts({**about, "captioner": {column.name: asdict(column.about) for column in comparison.columns}}),
    )


def _plots(comparison: Comparison) -> list[tuple[str, str]]:
    judged = {column.name: column.judgement for column in comparison.judged if column.judgement is not None}
    if not judged:
        return []
    metric = main_metric(comparison.judged[0])
    drawn = [(f"{metric} of each captioner", plots.intervals({name: one.estimates[metric] for name, one in judged.items()}, metric))]
    calibrations = {name: one.calibration for name, one in judged.items() if one.calibration is not None}
    if calibrations:
        drawn.append(("Reliability: how often a text is exactly right, by its confidence", plots.reliability(calibrations)))
    trip = comparison.round_trip
    if trip is not None and any(len(drift.image) > 1 for drift in trip.drifts.values()):
        sentence = {name: drift.sentence for name, drift in trip.drifts.items()}
        drawn.append(("Drift of the prompt: similarity to the true one after each round", plots.decays(sentence, "prompt similarity")))
        image = {name: drift.image for name, drift in trip.drifts.items()}
        drawn.append((f"Drift of the picture, by {trip.encoder}", plots.decays(image, "picture similarity")))
    return drawn


def _facts(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Nested settings as rows, "data.fingerprint" and so on."""
    rows: list[tuple[str, str]] = []
    for name, value in about.items():
        if isinstance(value, Mapping) and value:
            rows += [(f"{name}.{inner}", text) for inner, text in _facts(value)]
        else:
            rows.append((name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
    return rows
