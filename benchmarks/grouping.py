"""Grouping prompts by their words: prompts a second and bytes a prompt, of prompts that share a tail, and of any list.

    python benchmarks/grouping.py
    python benchmarks/grouping.py --counts 500000 --tails 20
    python benchmarks/grouping.py --prompts prompts.txt

Each made prompt has a few words of its own, drawn from a vocabulary, and a tail that all of them have ("..., masterpiece, best quality, 8k"). What is
near shares 80 % of its words. Sentences and pictures are not compared. Memory is what Python's own allocator has handed out for the index.
"""

from __future__ import annotations

import random
import sys
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from rounds import report

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data.groups.groups import Groups
from data.groups.nearness import NONE, Nearness
from data.groups.shares import shares
from synthesis.prompts import read_prompts


@dataclass(frozen=True, kw_only=True)
class GroupingConfig:
    """What to measure."""

    counts: tuple[int, ...] = (2_000, 50_000)
    """Prompts to make."""
    tails: tuple[int, ...] = (12, 20, 40)
    """Words of the tail; with 40, four words of one's own are not enough to be another group."""
    own: int = 4
    """Words of each prompt's own."""
    vocabulary: int = 4_000
    """Words that these are drawn from."""
    prompts: Path | None = None
    """A list of prompts instead: a text file with one a line, or a table."""
    similarity: float = 0.8
    memory: bool = True
    """Measure the bytes too, in a second round, since that is slow."""
    json: Path | None = None


def made(count: int, tail: int, config: GroupingConfig) -> list[str]:
    draw = random.Random(0)
    words, end = [f"word{i}" for i in range(config.vocabulary)], ", ".join(f"tail{i}" for i in range(tail))
    return [f"{' '.join(draw.sample(words, config.own))}, {end}" for _ in range(count)]


def listed(path: Path) -> list[str]:
    return list(read_prompts(str(path)).prompts)


def measured(prompts: Sequence[str], config: GroupingConfig) -> dict[str, Any]:
    nearness = Nearness(sentence_model=NONE, prompt_similarity=config.similarity)
    start = time.perf_counter()
    found = list(Groups(nearness).assign((prompt, None) for prompt in prompts))
    seconds = time.perf_counter() - start
    kept = shares((prompt, group) for prompt, group in zip(prompts, found, strict=True) if isinstance(group, str))
    row: dict[str, Any] = {"seconds": seconds, "prompts/s": len(prompts) / seconds}
    if config.memory:
        del found
        row["bytes/prompt"] = round(_bytes(prompts, nearness) / len(prompts))
    largest = f"{100 * kept.largest[0] / kept.pairs:.2f} %"
    return row | {"groups": kept.groups, "largest": largest, "left out": len(prompts) - kept.pairs}


def _bytes(prompts: Sequence[str], nearness: Nearness) -> int:
    tracemalloc.start()
    groups = Groups(nearness)
    for _ in groups.assign((prompt, None) for prompt in prompts):  # what comes out is not kept
        pass
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held


def main(config: GroupingConfig) -> None:
    if config.prompts is not None:
        prompts = listed(config.prompts)
        rows = [{"prompts": len(prompts), "from": config.prompts.name} | measured(prompts, config)]
    else:
        rows = []
        for count in config.counts:
            for tail in config.tails:
                rows.append({"prompts": count, "tail": tail} | measured(made(count, tail, config), config))
                print(rows[-1], flush=True)
    report(f"prompts grouped by words, {config.similarity:g} alike or more", rows, torch.device("cpu"), config.json)


if __name__ == "__main__":
    main(tyro.cli(GroupingConfig, description=__doc__))
