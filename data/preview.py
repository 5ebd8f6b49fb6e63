"""A data set on one page: pictures with their prompts, how long the prompts are, which words they use, where the pairs come from, what was skipped,
and, where score.py has been, how well they fit.

Examples:
    python -m data.preview datasets/mine --out page.html
    python -m data.preview datasets/mine --out page.html --images 200 --split test

The page is one file without links to others; its pictures are small copies.
"""

from __future__ import annotations

import base64
import html
import io
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # Ctrl-C from here on ends the process, whatever is being imported
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import tyro

from data.console import begin_command, check_least, read_command_line
from data.splits import SPLITS, Split, words_of


@dataclass(frozen=True, kw_only=True)
class PreviewConfig:
    """What to show."""

    directory: tyro.conf.Positional[Path]
    """A data set directory."""
    out: Path = Path("preview.html")
    images: int = 120
    """Pairs to show, drawn at random."""
    split: Split | None = None
    """Show pairs of one split alone."""
    side: int = 192
    """Pixels of the longer side of a small copy."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_least(1, images=self.images, side=self.side)


if __name__ == "__main__":  # --help, a wrong option and Ctrl-C do not wait for the imports below, which take seconds
    CONFIG = read_command_line(PreviewConfig, __doc__)

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from tqdm import tqdm

from data.errors import ImageError, PairError, ShardError
from data.files import explained, read_json
from data.store.archive import PairLocation
from data.store.columns import FIT_COLUMNS
from data.store.directory import DATASET_FILE, finished_shards, index_shard
from data.store.pairs import ArchivePairs, Pair

_WORDS = 60
_BINS = 24
_WORST = 24  # pairs shown that fit worst
FITS = {column: measure for measure, column in FIT_COLUMNS.items()}
_COLUMNS = {"key", "status", "error_kind", "prompt", "prompt_group", "tool", "model", "width", "height", *FITS}
_COMMON = frozenset(["a", "an", "and", "at", "by", "for", "from", "in", "is", "it", "of", "on", "or", "the", "to", "with"])
_STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 20%, transparent); --bar: #4c78a8; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1200px; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .6rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(260px, 1fr)); gap: 1.5rem 2.5rem; }
table { border-collapse: collapse; width: 100%; } td { padding: .15rem .4rem .15rem 0; vertical-align: top; }
td:last-child { text-align: right; font-variant-numeric: tabular-nums; }
.bars { display: flex; align-items: flex-end; gap: 2px; height: 120px; border-bottom: 1px solid var(--line); }
.bars div { flex: 1; background: var(--bar); min-height: 1px; } .axis { display: flex; justify-content: space-between; font-size: .8rem; }
.words span { display: inline-block; margin: .1rem .5rem .1rem 0; } .words small, .muted { opacity: .65; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(180px, 1fr)); gap: 1rem; }
figure { margin: 0; } img { width: 100%; border-radius: 4px; background: #8883; image-rendering: auto; }
figcaption { font-size: .8rem; line-height: 1.35; overflow-wrap: anywhere; }
"""


def main(config: PreviewConfig) -> None:
    about = read_json(config.directory / DATASET_FILE)
    rows = {split: [row for tar in finished_shards(config.directory / split) for row in _rows(tar)] for split in SPLITS}
    if not any(rows.values()):
        raise ShardError(f"{config.directory} holds no finished shard")
    pairs = [row for split, some in rows.items() if config.split in (None, split) for row in some if row["status"] == "success"]
    if not pairs:
        raise ShardError(f"{config.directory}: no pair in {config.split or 'any split'}")
    unreadable = Counter[str]()
    drawn = random.Random(config.seed).sample(pairs, min(config.images, len(pairs)))
    sheets = {f"{len(drawn)} pairs drawn at random{f' from {config.split}' if config.split else ''}": _figures(drawn, config.side, unreadable)}
    for column, name in FITS.items():
        scored = sorted((row for row in pairs if row.get(column) is not None), key=lambda row: row[column])
        if scored:
            sheets[f"Those that fit worst, by {name}"] = _figures(scored[:_WORST], config.side, unreadable)
    page = _page(config, about, rows, sheets, unreadable)
    temporary = Path(f"{config.out}.{os.getpid()}.tmp")
    try:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(page, encoding="utf-8", errors="replace")
        os.replace(temporary, config.out)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise explained(error, config.out) from error
    print(f"{config.out}: {len(drawn)} of {len(pairs)} pairs, {config.out.stat().st_size / 1e6:.1f} MB")


def _rows(tar: Path) -> list[dict[str, Any]]:
    parquet = tar.with_suffix(".parquet")
    columns = [name for name in pq.read_schema(parquet).names if name in _COLUMNS]
    return [row | {"tar": tar} for row in pq.read_table(parquet, columns=columns).to_pylist()]


def _figures(rows: Sequence[dict[str, Any]], side: int, unreadable: Counter[str]) -> list[str]:
    """In the order of the rows; each tar is searched once."""
    figures, places = [], dict[Path, dict[str, PairLocation]]()
    for row in tqdm(rows, "small copies", unit="image", leave=False):
        if row["tar"] not in places:
            places[row["tar"]] = {location.key: location for location in index_shard(row["tar"])}
        try:
            figures.append(_figure(ArchivePairs([places[row["tar"]][row["key"]]])[0], side, row))
        except (ImageError, PairError) as error:
            unreadable[error.kind] += 1
    return figures


def _page(
    config: PreviewConfig,
    about: dict[str, Any],
    rows: dict[Split, list[dict[str, Any]]],
    sheets: Mapping[str, Sequence[str]],
    unreadable: Counter[str],
) -> str:
    every = [row for some in rows.values() for row in some]
    done = [row for row in every if row["status"] == "success"]
    prompts = [row["prompt"] for row in done]
    failed = Counter(row.get("error_kind") or "failed" for row in every if row["status"] != "success")
    skipped = Counter(about.get("skipped", {})) + failed + unreadable
    sources = Counter(str(row.get("tool") or row.get("model") or "unknown") for row in done)
    sizes = Counter(f"{row.get('width')} x {row.get('height')}" for row in done)
    words = Counter(word for prompt in prompts for word in words_of(prompt) - _COMMON)
    groups = len({row["prompt_group"] for row in done})
    facts = [("pairs", len(done)), ("groups of prompts", groups), ("different prompts", len(set(prompts)))]
    facts += [(split, sum(row["status"] == "success" for row in some)) for split, some in rows.items()]
    name = html.escape(config.directory.name)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{name}</title>
<style>{_STYLE}</style></head><body>
<h1>{name}</h1><p class="muted">{html.escape(str(about.get("generator", "")))}</p>
<div class="facts">
<section><h2>Pairs</h2>{_table(facts)}</section>
<section><h2>Where they come from</h2>{_table(sources.most_common(12))}</section>
<section><h2>Sizes</h2>{_table(sizes.most_common(8))}</section>
<section><h2>Skipped</h2>{_table(skipped.most_common(12)) if skipped else "<p>nothing</p>"}</section>
</div>
<h2>Words in a prompt</h2>{_lengths([len(prompt.split()) for prompt in prompts])}
{"".join(_fits(name, [row[column] for row in done if row.get(column) is not None]) for column, name in FITS.items())}
<h2>Most common words</h2><p class="words">{_cloud(words.most_common(_WORDS), len(prompts))}</p>
{"".join(f'<h2>{html.escape(title)}</h2><div class="sheet">{"".join(figures)}</div>' for title, figures in sheets.items())}
</body></html>
"""


def _table(rows: Iterable[tuple[str, int]]) -> str:
    return "<table>" + "".join(f"<tr><td>{html.escape(name)}</td><td>{count:,}</td></tr>" for name, count in rows) + "</table>"


def _lengths(lengths: Sequence[int]) -> str:
    """The few longest prompts are in the last bar."""
    if not lengths:
        return ""
    end = max(int(np.percentile(lengths, 99)) + 1, _BINS)
    return _histogram(np.minimum(lengths, end - 1), 0, end, f"median {np.median(lengths):.0f}, longest {max(lengths)}", f"{end} and more")


def _fits(name: str, scores: Sequence[float]) -> str:
    if not scores:
        return ""
    low, high = min(scores), max(scores)
    return f"<h2>Fit of prompt and image, by {name}</h2>" + _histogram(np.array(scores), low, high, f"median {np.median(scores):.2f}", f"{high:.2f}")


def _histogram(values: np.ndarray, low: float, high: float, middle: str, right: str) -> str:
    """Bars of equal width."""
    counts, edges = np.histogram(values, bins=_BINS, range=(low, high))
    bars = "".join(
        f'<div style="height:{100 * count / counts.max():.1f}%" title="{edges[i]:.4g} to {edges[i + 1]:.4g}: {count}"></div>'
        for i, count in enumerate(counts)
    )
    return f'<div class="bars">{bars}</div><div class="axis"><span>{low:.3g}</span><span>{middle}</span><span>{right}</span></div>'


def _cloud(words: Sequence[tuple[str, int]], prompts: int) -> str:
    return "".join(f"<span>{html.escape(word)} <small>{100 * count / prompts:.0f} %</small></span>" for word, count in words)


def _figure(pair: Pair, side: int, row: Mapping[str, Any]) -> str:
    small = pair.image
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=80)
    data = base64.b64encode(buffer.getvalue()).decode()
    settings = {name: pair.metadata[name] for name in ("tool", "model", "steps", "guidance_scale", "seed") if pair.metadata.get(name) is not None}
    settings |= {name: round(row[name], 3) for name in FITS if row.get(name) is not None}
    title = html.escape(f"{pair.key}: {json.dumps(settings, ensure_ascii=False)}")
    return f'<figure title="{title}"><img alt="" src="data:image/webp;base64,{data}"><figcaption>{html.escape(pair.prompt)}</figcaption></figure>'


if __name__ == "__main__":
    begin_command()
    try:
        main(CONFIG)
    except (OSError, ShardError) as error:
        sys.exit(f"data.preview: {error}")
