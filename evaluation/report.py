"""The outcome of a comparison as numbers, as a table and as a picture."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from data.files import write_lines, write_text
from data.sources.held_out import HeldOutPairs
from diffusion.contact_sheet import contact_sheet
from diffusion.mini.world import read_slots
from evaluation import metrics
from evaluation.statistics import Estimate, bootstrap_mean

Similarity = Callable[[Sequence[str], Sequence[str]], metrics.Scores]


@dataclass(frozen=True)
class Result:
    """One captioner on one set of pairs."""

    name: str
    metrics: Mapping[str, Estimate]
    slots: Mapping[str, Estimate]
    images_per_second: float
    predictions: Sequence[str]


def timed_captions(
    caption: Callable[[Sequence[Image.Image]], list[str]], pairs: HeldOutPairs, *, batch_size: int, progress: Callable[[int], Any]
) -> tuple[list[str], float]:
    """Caption the pictures of `pairs` in batches; returns the texts and images per second, reading the files not counted (the first batch warms up
    and counts too)."""
    texts: list[str] = []
    seconds = 0.0
    for first in range(0, len(pairs), batch_size):
        batch = pairs.images(first, batch_size)
        start = time.perf_counter()
        texts += caption(batch)
        seconds += time.perf_counter() - start
        progress(len(batch))
    return texts, len(pairs) / max(seconds, 1e-9)


def score(name: str, pairs: HeldOutPairs, predictions: Sequence[str], images_per_second: float, *, similarity: Similarity | None) -> Result:
    """Judge `predictions` by every metric; per-slot accuracy where the pairs know their slots. Without a sentence model there is no similarity."""
    prompts = pairs.prompts
    per_pair = {} if similarity is None else {"similarity": similarity(prompts, predictions)}
    per_pair |= {
        "cider_d": metrics.cider_d(prompts, predictions),
        "rouge_l": metrics.rouge_l(prompts, predictions),
        "token_f1": metrics.token_f1(prompts, predictions),
        "exact_match": metrics.exact_match(prompts, predictions),
    }
    estimates = {metric: bootstrap_mean(scores) for metric, scores in per_pair.items()}
    bleu, interval = metrics.bleu_4(prompts, predictions)
    estimates["bleu_4"] = Estimate(bleu, *interval, len(prompts))
    known = [(truth, read_slots(guess)) for truth, guess in zip(pairs.slots, predictions, strict=True) if truth]
    found = metrics.slot_accuracy([truth for truth, _ in known], [guess for _, guess in known])
    return Result(name, estimates, {slot: bootstrap_mean(scores) for slot, scores in found.items()}, images_per_second, list(predictions))


def as_json(results: Sequence[Result], **about: Any) -> dict[str, Any]:
    """Everything but the predictions themselves."""
    rows = [{"name": r.name, "images_per_second": r.images_per_second, "metrics": _plain(r.metrics), "slots": _plain(r.slots)} for r in results]
    return about | {"results": rows}


def _plain(estimates: Mapping[str, Estimate]) -> dict[str, dict[str, float]]:
    return {name: asdict(estimate) for name, estimate in estimates.items()}


def markdown_table(results: Sequence[Result]) -> str:
    """Two tables, metrics and slots, with 95 % intervals."""
    tables = []
    for title, of in (("metric", lambda r: r.metrics), ("slot accuracy", lambda r: r.slots)):
        names = list(dict.fromkeys(name for result in results for name in of(result)))
        if not names:
            continue
        lines = ["| " + " | ".join([title, *(r.name for r in results)]) + " |", "|---" * (len(results) + 1) + "|"]
        for name in names:
            cells = [str(of(r)[name]) if name in of(r) else "" for r in results]
            lines.append("| " + " | ".join([name, *cells]) + " |")
        if title == "metric":
            lines.append("| " + " | ".join(["images/s", *(f"{r.images_per_second:.1f}" for r in results)]) + " |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def write_report(directory: Path, results: Sequence[Result], pairs: HeldOutPairs, *, heading: str) -> None:
    """`report.md`, `predictions.jsonl` (every pair, every captioner) and `samples.png` (a contact sheet of the first pairs)."""
    directory.mkdir(parents=True, exist_ok=True)
    write_text(directory / "report.md", f"{heading}\n\n{markdown_table(results)}\n")
    rows = enumerate(zip(pairs.keys, pairs.prompts, strict=True))
    write_lines(
        directory / "predictions.jsonl",
        ({"key": key, "prompt": prompt} | {result.name: result.predictions[i] for result in results} for i, (key, prompt) in rows),
    )
    images = pairs.images(0, 32)
    captions = [f"true: {pairs.prompts[i]} / {results[0].name}: {results[0].predictions[i]}" for i in range(len(images))]
    contact_sheet(images, captions, columns=8, cell=192, lines=7).save(directory / "samples.png")
