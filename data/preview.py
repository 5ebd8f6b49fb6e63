"""A data set on one page: pictures with their prompts, how long the prompts are, which words they use, where the pairs come from, what was skipped.

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
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import tyro
from PIL import Image
from tqdm import tqdm

from data.images import ImageError
from data.pairs import ArchivePairs, Pair, PairError
from data.shards import DATASET_FILE, ShardError, explained, finished_shards, index_shard, read_json
from data.splits import SPLITS, Split, words_of

_WORDS = 60
_BINS = 24
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


def main(config: PreviewConfig) -> None:
    about = read_json(config.directory / DATASET_FILE)
    tars = {split: finished_shards(config.directory / split) for split in SPLITS}
    rows = {split: _rows(some) for split, some in tars.items()}
    if not any(rows.values()):
        raise ShardError(f"{config.directory} holds no finished shard")
    chosen = [tar for split, some in tars.items() if config.split in (None, split) for tar in some]
    if not chosen:
        raise ShardError(f"{config.directory}: no finished shard in {config.split}")
    pairs = ArchivePairs([location for tar in chosen for location in index_shard(tar)])
    numbers = random.Random(config.seed).sample(range(len(pairs)), min(config.images, len(pairs)))
    figures, unreadable = [], Counter[str]()
    for number in tqdm(sorted(numbers), "small copies", unit="image", leave=False):
        try:
            figures.append(_figure(pairs[number], config.side))
        except (ImageError, PairError) as error:
            unreadable[error.kind] += 1
    page = _page(config, about, rows, figures, unreadable)
    temporary = Path(f"{config.out}.{os.getpid()}.tmp")
    try:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(page, encoding="utf-8", errors="replace")
        os.replace(temporary, config.out)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise explained(error, config.out) from error
    print(f"{config.out}: {len(figures)} of {len(pairs)} pairs, {config.out.stat().st_size / 1e6:.1f} MB")


def _rows(tars: Sequence[Path]) -> list[dict[str, Any]]:
    return [row for tar in tars for row in pq.read_table(tar.with_suffix(".parquet")).to_pylist()]


def _page(
    config: PreviewConfig, about: dict[str, Any], rows: dict[Split, list[dict[str, Any]]], figures: Sequence[str], unreadable: Counter[str]
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
    lengths = [len(prompt.split()) for prompt in prompts]
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
<h2>Words in a prompt</h2>{_histogram(lengths)}
<h2>Most common words</h2><p class="words">{_cloud(words.most_common(_WORDS), len(prompts))}</p>
<h2>{len(figures)} pairs drawn at random{f" from {config.split}" if config.split else ""}</h2><div class="sheet">{"".join(figures)}</div>
</body></html>
"""


def _table(rows: Iterable[tuple[str, int]]) -> str:
    return "<table>" + "".join(f"<tr><td>{html.escape(name)}</td><td>{count:,}</td></tr>" for name, count in rows) + "</table>"


def _histogram(lengths: Sequence[int]) -> str:
    """Bars of equal width; the few longest prompts are in the last."""
    if not lengths:
        return ""
    end = max(int(np.percentile(lengths, 99)) + 1, _BINS)
    counts, edges = np.histogram(np.minimum(lengths, end - 1), bins=_BINS, range=(0, end))
    bars = "".join(
        f'<div style="height:{100 * count / counts.max():.1f}%" title="{edges[i]:.0f} to {edges[i + 1]:.0f}: {count}"></div>'
        for i, count in enumerate(counts)
    )
    middle = f"median {np.median(lengths):.0f}, longest {max(lengths)}"
    return f'<div class="bars">{bars}</div><div class="axis"><span>0</span><span>{middle}</span><span>{end} and more</span></div>'


def _cloud(words: Sequence[tuple[str, int]], prompts: int) -> str:
    return "".join(f"<span>{html.escape(word)} <small>{100 * count / prompts:.0f} %</small></span>" for word, count in words)


def _figure(pair: Pair, side: int) -> str:
    small = pair.image
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=80)
    data = base64.b64encode(buffer.getvalue()).decode()
    settings = {name: pair.metadata[name] for name in ("tool", "model", "steps", "guidance_scale", "seed") if pair.metadata.get(name) is not None}
    title = html.escape(f"{pair.key}: {json.dumps(settings, ensure_ascii=False)}")
    return f'<figure title="{title}"><img alt="" src="data:image/webp;base64,{data}"><figcaption>{html.escape(pair.prompt)}</figcaption></figure>'


if __name__ == "__main__":
    try:
        main(tyro.cli(PreviewConfig, description=__doc__))
    except (OSError, ShardError) as error:
        sys.exit(f"data.preview: {error}")
