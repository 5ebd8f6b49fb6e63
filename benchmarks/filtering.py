"""What filtering is worth: a share of the training prompts is exchanged between images on purpose, a network is trained on that, its own likelihood
says which pairs fit, and others are trained on that.

    python benchmarks/filtering.py --data datasets/mini
    python benchmarks/filtering.py --data datasets/mini --share 0.2 --max-steps 1300 --json filtering.json

Validation and test pairs stay as they are. Prints how many of the wrong pairs a threshold catches, how many good ones it costs, and the test
metrics of networks trained on all pairs, on those that are left, on pairs drawn as often as they are likely to fit, from easy to noisy, and on true
pairs alone.
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
from data.loading.fit import two_hills
from data.splits import SPLITS
from data.store.archive import read_member
from data.store.columns import FIT_COLUMNS, read_column
from data.store.directory import DATASET_FILE, finished_shards
from data.store.pairs import PairDataset
from data.store.writer import ShardWriter

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
    min_fit: float | None = None
    """Of the pairs that the second network is trained on (default: where score.py's two hills meet)."""
    work: Path | None = None
    """Where the noisy data and the runs go; those that are there already are not made again (default: a temporary directory)."""
    json: Path | None = None


def exchange_prompts(source: Path, target: Path, share: float) -> set[str]:
    """A copy of a data set in which a share of the training prompts stands beside other images; the keys of those pairs."""
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(source / DATASET_FILE, target / DATASET_FILE)
    for split in SPLITS[1:]:
        shutil.copytree(source / split, target / split, dirs_exist_ok=True)
    pairs = PairDataset(source, "train")
    draw = random.Random(0)
    moved = draw.sample(range(len(pairs)), round(share * len(pairs)))
    takes = dict(zip(moved, [*moved[1:], moved[0]], strict=True))  # each the next one's: none keeps its own
    for number, start in enumerate(range(0, len(pairs), 500)):
        if ShardWriter(target / "train", number).is_done:
            continue
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
    """The test figures of a network trained on some data; of one that an earlier call with the same --work has trained, those it had."""
    if not (work / name / "report" / "results.json").exists():
        command("train.py", "mini", "--data", data, "--out", work / name, "--max-steps", max_steps, "--evaluate-every", max_steps // 2, *more)
    found = json.loads((work / name / "report" / "results.json").read_text(encoding="utf-8"))
    ours = next(result for result in found["results"] if result["name"] == "reprompt")
    return {metric: ours["metrics"][metric]["mean"] for metric in METRICS}


def _scores(directory: Path) -> dict[str, float]:
    columns = (read_column(tar, FIT_COLUMNS["likelihood"]) or {} for tar in finished_shards(directory))
    return {key: value for column in columns for key, value in column.items() if value is not None}


def main(config: FilteringConfig) -> None:
    with tempfile.TemporaryDirectory() as directory:
        work = config.work if config.work is not None else Path(directory)
        wrong = exchange_prompts(config.data, work / "noisy", config.share)
        noisy = trained("noisy-run", work / "noisy", work, config.max_steps)
        command("score.py", "--data", work / "noisy", "--checkpoint", work / "noisy-run" / "model")
        scores = {split: _scores(work / "noisy" / split) for split in SPLITS}
        hills = two_hills([value for some in scores.values() for value in some.values()])
        least = config.min_fit if config.min_fit is not None else hills.threshold if hills is not None else 0.0
        right = set(scores["train"]) - wrong
        found = [
            {"below": round(fit, 3)}
            | {name: sum(scores["train"][key] < fit for key in keys) / len(keys) for name, keys in (("of the wrong", wrong), ("of the good", right))}
            for fit in sorted({0.0, 0.1, 0.2, 0.3, 0.4, 0.5, least})
        ]
        print(f"\n{len(wrong)} wrong pairs, {len(right)} good ones; the hills meet at {least:.3f}\n\n{markdown(found)}\n", flush=True)
        rows = [{"trained on": "all pairs", **noisy}]
        print(rows[0], flush=True)
        for label, name, data, more in (
            (f"those that fit, --min-fit {least:.2f}", "filtered", work / "noisy", ("--min-fit", least)),
            ("as often as they fit, --weigh", "weighed", work / "noisy", ("--weigh",)),
            ("true pairs alone", "clean", config.data, ()),
            ("easy to noisy, --curriculum", "curriculum", work / "noisy", ("--curriculum",)),
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
