"""Measure a checkpoint on held-out pairs beside other captioners: the same images, the same metrics, 95 % intervals.

Examples:
    python evaluate.py --data datasets/mini                                     the model in the box
    python evaluate.py --checkpoint runs/mini/model --data datasets/mini --baseline nearest constant
    python evaluate.py --data datasets/mini --baseline blip git=downloads/git-base-coco --json out.json --report reports/all
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

if __name__ == "__main__":  # Ctrl-C from here on ends the process, whatever is being imported
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from data.console import begin_command, check_finite, check_least, read_command_line
from inference import DEFAULT_CHECKPOINT


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What to measure, on what, beside what."""

    data: str
    """A data set directory made by generate_data.py, or what else train.py takes: tars, an image folder, a data set of the Hub."""
    checkpoint: str = str(DEFAULT_CHECKPOINT)
    """A checkpoint directory or Hub id; the model in the box by default."""
    revision: str | None = None
    """Of a Hub id: a branch, a tag or a commit."""
    baseline: tuple[str, ...] = ()
    """Any of: constant, nearest, blip, git; blip=DIR and git=DIR take a downloaded directory or another Hub id."""
    split: Literal["train", "val", "test"] = "test"
    partial: bool = False
    """Measure on what is there of a data set directory that is not finished."""
    limit: int = 1000
    """Pairs to measure on, at most."""
    num_beams: int = 4
    """Hypotheses that each captioner keeps while searching."""
    length_penalty: float = 1.0
    """Of the checkpoint's search: above 1 favours longer prompts, below 1 shorter ones."""
    max_new_tokens: int = 40
    """Tokens that BLIP and GIT write at most."""
    batch_size: int = 32
    """Pictures that go through a network together."""
    json: Path | None = None
    """Write every figure to this file."""
    report: Path | None = None
    """Write a Markdown table, all predictions and a contact sheet into this directory."""

    def __post_init__(self) -> None:
        check_least(1, limit=self.limit, num_beams=self.num_beams, max_new_tokens=self.max_new_tokens, batch_size=self.batch_size)
        check_finite(length_penalty=self.length_penalty)


if __name__ == "__main__":  # --help, a wrong option and Ctrl-C do not wait for the imports below, which take seconds
    CONFIG = read_command_line(EvaluateConfig, __doc__)

from PIL import Image
from tqdm import tqdm

from data.errors import ImageError, MissingExtraError, PairError, ShardError
from data.files import check_writable, write_json
from data.sources.held_out import HeldOutPairs
from data.sources.opening import open_splits
from evaluation.baselines import BaselineError, build_baseline, known_pairs
from evaluation.metrics import SentenceSimilarity, check_libraries
from evaluation.report import Result, as_json, markdown_table, score, timed_captions, write_report
from inference import PromptInverter
from model import CheckpointError


def main(config: EvaluateConfig) -> None:
    splits = open_splits(config.data, partial=config.partial)
    source = splits[config.split]
    if config.split in splits.missing:
        print(splits, file=sys.stderr)
    for option, path in (("--json", config.json), ("--report", config.report and config.report / "report.md")):
        if path is not None:
            try:
                check_writable(path)
            except OSError as error:
                raise OSError(f"{option} {path} cannot be written: {error}") from error
    check_libraries()
    similarity = SentenceSimilarity.if_there(lambda said: print(said, file=sys.stderr))
    inverter = PromptInverter.from_pretrained(config.checkpoint, revision=config.revision)

    def reprompt(some: Sequence[Image.Image]) -> list[str]:
        found = inverter.predict(some, num_beams=config.num_beams, length_penalty=config.length_penalty, batch_size=config.batch_size)
        return [prediction.prompt for prediction in found]

    captioners = {"reprompt": reprompt}
    for spec in config.baseline:
        if spec in captioners:
            raise ValueError(f"--baseline {spec} is named twice")
        captioners[spec] = build_baseline(
            spec,
            training_pairs=lambda: known_pairs(splits["train"]),
            num_beams=config.num_beams,
            max_new_tokens=config.max_new_tokens,
            device=inverter.model.device,
        ).caption
    pairs = HeldOutPairs.of(source, config.limit)
    if pairs.unread:
        print(f"{pairs.unread} of {len(source)} pairs could not be read and are left out", file=sys.stderr)
    if not len(pairs):
        raise ShardError(f"no pair of {config.data} ({config.split}) can be read")
    if config.split == "train" and "nearest" in captioners:
        print("nearest finds each picture of --split train among what it knows, and so looks its own prompt up", file=sys.stderr)
    results: list[Result] = []
    for name, caption in captioners.items():
        with tqdm(total=len(pairs), desc=name, unit="image") as bar:
            texts, rate = timed_captions(caption, pairs, batch_size=config.batch_size, progress=bar.update)
        results.append(score(name, pairs, texts, rate, similarity=similarity))
    print(f"\n{len(pairs)} pairs of {config.data} ({config.split}), 95 % bootstrap intervals\n\n{markdown_table(results)}")
    if config.json is not None:
        about = {"checkpoint": config.checkpoint, "data": config.data, "split": config.split, "pairs": len(pairs)}
        search = {"num_beams": config.num_beams, "length_penalty": config.length_penalty}
        write_json(config.json, as_json(results, **about, **search))
    if config.report is not None:
        heading = f"# {config.checkpoint}\n\n{len(pairs)} pairs of {config.data} ({config.split}); 95 % bootstrap intervals."
        write_report(config.report, results, pairs, heading=heading)
        print(f"\nreport: {config.report / 'report.md'}, {config.report / 'samples.png'}, {config.report / 'predictions.jsonl'}")


if __name__ == "__main__":
    begin_command()
    try:
        main(CONFIG)
    except (BaselineError, CheckpointError, ImageError, MissingExtraError, OSError, PairError, ShardError, ValueError) as error:
        sys.exit(f"evaluate.py: {error}")
    except KeyboardInterrupt:
        sys.exit("\nevaluate.py: stopped; nothing was written")
