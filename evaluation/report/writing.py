"""The files of a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from data.files import write_json, write_lines, write_text
from data.sources.held_out import HeldOutPictures
from evaluation.comparison import Comparison
from evaluation.report.page import page
from evaluation.report.plain import as_json, markdown

ContactSheet = Callable[[Sequence[Image.Image], Sequence[str]], Image.Image]
_SHOWN = 32


def write_report(
    directory: Path,
    comparison: Comparison,
    pictures: HeldOutPictures,
    *,
    title: str,
    about: Mapping[str, Any],
    contact_sheet: ContactSheet | None = None,
) -> None:
    """`report.html`, `report.md`, `results.json`, `predictions.jsonl` (every picture, every captioner) and, where something draws a contact
    sheet of the first pictures, `samples.png`."""
    directory.mkdir(parents=True, exist_ok=True)
    write_text(directory / "report.md", f"# {title}\n\n{markdown(comparison)}\n")
    write_text(directory / "report.html", page(comparison, pictures, title=title, about=about))
    write_json(directory / "results.json", as_json(comparison, about))
    write_lines(
        directory / "predictions.jsonl",
        (
            {"key": key, "prompts": list(prompts)} | {column.name: _prediction(column, place) for column in comparison.judged}
            for place, (key, prompts) in enumerate(zip(pictures.keys, pictures.references, strict=True))
        ),
    )
    if contact_sheet is not None and comparison.judged:
        first = comparison.judged[0]
        images = pictures.images(0, _SHOWN)
        texts = zip(pictures.references, first.captioned.captions, strict=True)  # type: ignore[union-attr]
        lines = [f"true: {prompts[0]} / {first.name}: {caption.text}" for _, (prompts, caption) in zip(images, texts, strict=False)]
        contact_sheet(images, lines).save(directory / "samples.png")


def _prediction(column: Any, place: int) -> dict[str, Any]:
    caption = column.captioned.captions[place]
    scores = {name: float(values[place]) for name, values in column.judgement.scores.items() if values[place] == values[place]}
    return {"text": caption.text, "confidence": caption.confidence, "scores": scores}
