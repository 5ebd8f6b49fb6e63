"""What filtering is worth: a share of the training prompts is exchanged between images on purpose, a network is trained on that, its own likelihood
says which pairs fit, and another is trained on those alone.

    python benchmarks/filtering.py --data datasets/mini
    python benchmarks/filtering.py --data datasets/mini --share 0.2 --max-steps 1300 --json filtering.json

Validation and test pairs stay as they are. Prints how many of the wrong pairs a threshold catches, how many good ones it costs, and the test
metrics of a network trained on all pairs and of one trained on those that are left.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from rounds import machine, markdown

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data.fitting import FIT_COLUMN
from data.pairs import PairDataset
from data.shards import DATASET_FILE, ShardWriter, finished_shards, read_column, read_member
from data.splits import SPLITS

ROOT = Path(__file__).resolve().parents[1]
METRICS = ("similarity", "cider_d", "exact_match")


@dataclass(frozen=True, kw_only=True)
class FilteringConfig:
    """What to try."""

    data: Path
    """A data set directory with true pairs."""
    share: float = 0.2
    """Of the training prompts that change places."""
    max_steps: int = 1300
    min_fit: float = 0.2
    """Of the pairs that the second network is trained on."""
    work: Path | None = None
    """Where the noisy data and the runs go (default: a temporary directory)."""
    json: Path | None = None


def exchange_prompts(source: Path, target: Path, share: float) -> set[str]:
    """A copy of a data set in which a share of the training prompts stands beside other images; the keys of those pairs."""
    target.mkdir(parents=True)
    shutil.copy(source / DATASET_FILE, target / DATASET_FILE)
    for split in SPLITS[1:]:
        shutil.copytree(source / split, target / split)
    pairs = PairDataset(source, "train")
    draw = random.Random(0)
    moved = draw.sample(range(len(pairs)), round(share * len(pairs)))
    takes = dict(zip(moved, [*moved[1:], moved[0]], strict=True))  # each the next one's: none keeps its own
    for number, start in enumerate(range(0, len(pairs), 500)):
        with ShardWriter(target / "train", number) as writer:
            for index in range(start, min(start + 500, len(pairs))):
                location = pairs.locations[index]
                metadata = pairs.metadata(takes.get(index, index))
                writer.add_encoded(location.key, read_member(location.tar, location.image), ".png", metadata)
    return {pairs.locations[index].key for index in moved if pairs.prompt(takes[index]) != pairs.prompt(index)}


def command(script: str, *arguments: object) -> None:
    print("+", script, *arguments, flush=True)
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    subprocess.run([sys.executable, str(ROOT / script), *map(str, arguments)], check=True, env=environment, stdout=subprocess.DEVNULL)


def trained(name: str, data: Path, work: Path, max_steps: int, *more: object) -> dict[str, Any]:
    """The test figures of a network trained on some data."""
    command("train.py", "mini", "--data", data, "--out", work / name, "--max-steps", max_steps, "--evaluate-every", max_steps // 2, *more)
    found = json.loads((work / name / "report" / "results.json").read_text(encoding="utf-8"))
    ours = next(result for result in found["results"] if result["name"] == "reprompt")
    return {metric: ours["metrics"][metric]["mean"] for metric in METRICS}


def main(config: FilteringConfig) -> None:
    with tempfile.TemporaryDirectory() as directory:
        work = config.work if config.work is not None else Path(directory)
        wrong = exchange_prompts(config.data, work / "noisy", config.share)
        noisy = trained("noisy-run", work / "noisy", work, config.max_steps)
        command("score.py", "--data", work / "noisy", "--checkpoint", work / "noisy-run" / "model")
        scores: dict[str, float] = {}
        for tar in finished_shards(work / "noisy" / "train"):
            scores |= read_column(tar, FIT_COLUMN) or {}
        right = set(scores) - wrong
        found = [
            {"below": least}
            | {name: sum(scores[key] < least for key in keys) / len(keys) for name, keys in (("of the wrong pairs", wrong), ("of the good", right))}
            for least in (0.0, 0.1, 0.2, 0.3)
        ]
        print(f"\n{len(wrong)} wrong pairs, {len(right)} good ones\n\n{markdown(found)}\n", flush=True)
        rows = [{"trained on": "all pairs", **noisy}]
        print(rows[0], flush=True)
        for label, name, data, more in (
            (f"those that fit, --min-fit {config.min_fit:g}", "filtered", work / "noisy", ("--min-fit", config.min_fit)),
            ("easy to noisy, --curriculum", "curriculum", work / "noisy", ("--curriculum",)),
            ("true pairs alone", "clean", config.data, ()),
        ):
            rows.append({"trained on": label, **trained(name, data, work, config.max_steps, *more)})
            print(rows[-1], flush=True)
    print(f"\n{config.share:.0%} of the training prompts exchanged, {config.max_steps} steps; test pairs")
    print(f"{machine(torch.device('cpu'))}\n\n{markdown(rows)}")
    if config.json is not None:
        content = {"machine": machine(torch.device("cpu")), "share": config.share, "thresholds": found, "results": rows}
        config.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(FilteringConfig, description=__doc__))
