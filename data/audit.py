"""Looks whether anything leaks from one split into another: every pair of splits, each prompt with all, and not by sampling.

Examples:
    python -m data.audit datasets/mine
    python -m data.audit datasets/mine --threshold 0.7 --json audit.json
    python -m data.audit datasets/mine --sentence-model sentence-transformers/all-MiniLM-L6-v2 --sentence-threshold 0.8

Prompts are compared by the share of common words (shared / in either) and, where the data set was made with a sentence model or one is named, by the
cosine similarity of what they say: the measures of the grouping. A third one, of which the grouping knows nothing, the cosine of how often prompts
have which four neighbouring characters, is shown beside them. Pictures are compared where the data set has their hashes.

The command fails if a group is in two splits, a prompt at a threshold or above, or a picture nearly the same as one of another split. What it says at
the end is what it has checked, and no more: of what the embedded world draws, a group is a scene, and nothing else was promised.
"""

from __future__ import annotations

import json
import signal
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # Ctrl-C from here on ends the process, whatever is being imported
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import tyro

from data.console import begin_command, check_least, read_command_line
from data.groups.nearness import AUTO, NONE, Nearness
from data.splits import SPLITS, Split


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """What to check."""

    directory: tyro.conf.Positional[Path]
    """A data set directory."""
    threshold: float | None = None
    """From which share of common words on two prompts are too near (default: what the data set was made with)."""
    sentence_model: str = AUTO
    """Compares what prompts say: a directory of sentence-transformers, a Hub id, "none", or "auto": the one that the data set was made with."""
    sentence_threshold: float | None = None
    """From which cosine similarity on two prompts are too near (default: what the data set was made with)."""
    picture_distance: int | None = None
    """Up to how many different bits, of 256, two pictures are too near (default: what the data set was made with)."""
    partial: bool = False
    """Look at what is there of a data set that is not finished."""
    examples: int = 10
    """Nearest prompts to show."""
    json: Path | None = None
    """Write the findings to this file."""

    def __post_init__(self) -> None:
        check_least(0, threshold=self.threshold, sentence_threshold=self.sentence_threshold, picture_distance=self.picture_distance)
        check_least(0, examples=self.examples)


if __name__ == "__main__":  # --help, a wrong option and Ctrl-C do not wait for the imports below, which take seconds
    CONFIG = read_command_line(AuditConfig, __doc__)

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from data.embeddings import SentenceEncoder
from data.errors import MissingExtraError, ShardError
from data.files import read_json
from data.groups.characters import nearest_by_characters
from data.groups.pictures import PictureIndex
from data.groups.sentences import comparing, nearest_by_sentences
from data.groups.shares import shares
from data.groups.words import Counted, nearest_by_words
from data.store.directory import DATASET_FILE, check_finished, finished_shards

_BINS = 10
_AGAINST: dict[Split, tuple[Split, ...]] = {"train": ("test", "val"), "test": ("val",)}  # every pair of splits, the smaller one first
_COLUMNS = ("key", "prompt", "prompt_group", "status")
Nearest = Callable[[Sequence[str], Sequence[str]], Iterator[tuple[np.ndarray, np.ndarray]]]


@dataclass(frozen=True)
class Row:
    key: str
    prompt: str
    group: str
    picture: int | None


@dataclass(frozen=True)
class Measure:
    """One way to compare prompts.

    Attributes:
        what: how two prompts are compared, for a heading.
        promise: what is true where nothing is at the threshold or above.
        threshold: where two are too near, None where nothing was promised.
    """

    name: str
    what: str
    nearest: Nearest
    promise: str
    threshold: float | None = None


@dataclass(frozen=True)
class Check:
    """Something that was looked at: what is true if nothing was found, and how much was."""

    promise: str
    leaks: int


def main(config: AuditConfig) -> bool:
    """Whether nothing of what was checked leaks.

    Raises:
        ShardError: no data set, or a damaged or unfinished one.
    """
    about = read_json(config.directory / DATASET_FILE)
    if not config.partial and "generator" in about:  # what made it says how much there is to be
        check_finished(config.directory)
    promised = about.get("near_duplicates") or {}
    counted = Counted(promised.get("ignore_words") or ())
    rows = {split: read_rows(config.directory, split) for split in SPLITS}
    if not rows["train"]:
        raise ShardError(f"{config.directory / 'train'} holds no finished shard")
    measures, not_checked = _measures(config, promised, counted)
    if config.partial:
        not_checked.append("pairs that are not there yet, if there are any")
    print(f"{config.directory}: " + ", ".join(f"{split} {len(rows[split])}" for split in SPLITS))
    groups = shares(((row.prompt, row.group) for some in rows.values() for row in some), counted.ignored)
    print(groups.text)
    if groups.warning is not None:
        print(f"warning: {groups.warning}")
    shared = _shared_groups(rows)
    print(f"groups in two splits: {len(shared)}" + "".join(f"\n  {group}" for group in shared[: config.examples]))
    checks = [Check("no group is in two splits", len(shared))]
    found: dict[str, Any] = {"directory": str(config.directory), "pairs": {split: len(rows[split]) for split in SPLITS}}
    found |= {"groups": groups.groups, "largest_groups": list(groups.largest), "groups_in_two_splits": len(shared)}
    prompts = {split: sorted({row.prompt for row in some}) for split, some in rows.items()}
    for measure in measures:
        compared = _compare(measure, prompts, config.examples)
        found[measure.name] = {"threshold": measure.threshold} | compared
        if measure.threshold is not None:
            checks.append(Check(measure.promise, sum(part["over"] for part in compared.values())))
    distance = config.picture_distance if config.picture_distance is not None else promised.get("picture_distance")
    pictures, check, why_not = _compare_pictures(rows, distance, config.examples)
    found |= {"pictures": pictures, "pictures_in_two_splits": check.leaks if check is not None else None}
    checks += [check] if check is not None else []
    not_checked += [why_not] if why_not is not None else []
    leaks = sum(check.leaks for check in checks)
    found |= {"leaks": leaks, "checked": [vars(check) for check in checks], "not_checked": not_checked}
    if config.json is not None:
        config.json.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print("\n" + _verdict(checks, not_checked))
    return not leaks


def read_rows(directory: Path, split: Split) -> list[Row]:
    """The pairs of a split, from the parquet files beside the tars.

    Raises:
        ShardError: one of them is missing or damaged, or does not hold what it should.
    """
    return [row for tar in finished_shards(directory / split) for row in _shard_rows(tar.with_suffix(".parquet"))]


def _shard_rows(path: Path) -> list[Row]:
    remedy = "Delete its _stats.json and run the command that made the data set again: it makes the shard anew"
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise ShardError(f"{path} is missing or damaged ({error}). {remedy}") from error
    if missing := [name for name in _COLUMNS if name not in table.column_names]:
        raise ShardError(f"{path} has no column {', '.join(missing)}. {remedy}")
    names = [*_COLUMNS, *(("picture",) if "picture" in table.column_names else ())]
    found = []
    for row in table.select(names).to_pylist():
        if row["status"] != "success":
            continue
        try:
            found.append(Row(row["key"], _text(row["prompt"]), _text(row["prompt_group"]), int(row["picture"], 16) if row.get("picture") else None))
        except (TypeError, ValueError) as error:
            raise ShardError(f"{path}: the row of {row['key']} is damaged (its prompt, group or picture hash). {remedy}") from error
    expected = read_json(path.with_name(f"{path.stem}_stats.json")).get("successes")
    if expected is not None and expected != len(found):
        raise ShardError(f"{path} holds {len(found)} pairs, but its stats file says {expected}. {remedy}")
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _measures(config: AuditConfig, promised: Mapping[str, Any], counted: Counted) -> tuple[list[Measure], list[str]]:
    """How prompts are compared, and what is not."""
    threshold = config.threshold if config.threshold is not None else promised.get("prompt_similarity")
    words = f"no prompt shares {100 * (threshold or 0):g} % of its words with one of another split"
    words += f", {len(counted.ignored)} ignored words aside" if counted.ignored else ""
    measures = [Measure("words", "the share of words they have in common with", partial(nearest_by_words, counted=counted), words, threshold)]
    not_checked = [] if threshold is not None else ["prompts by their words: no threshold was promised (give --threshold)"]
    model = Nearness(sentence_model=config.sentence_model).settled(promised).sentence_model
    if model != NONE:
        threshold = config.sentence_threshold if config.sentence_threshold is not None else promised.get("sentence_similarity")
        nearest = partial(nearest_by_sentences, encode=comparing(SentenceEncoder(model), counted))
        promise = f"none that {model} can read is {threshold or 0:g} or more like one of another split in what it says"
        measures.append(Measure("sentences", "how much they say the same as", nearest, promise, threshold))
        not_checked += [] if threshold is not None else ["what prompts say: no threshold was promised (give --sentence-threshold)"]
    elif config.sentence_threshold is not None:
        raise ShardError(f"{config.directory} was made without a sentence model; name one with --sentence-model")
    else:
        not_checked.append("what prompts say: no sentence model was used (give --sentence-model)")
    measures.append(Measure("characters", "the likeness of spelling (four characters at a time, shown only) to", nearest_by_characters, ""))
    return measures, not_checked


def _compare(measure: Measure, prompts: Mapping[Split, Sequence[str]], examples: int) -> dict[str, dict[str, Any]]:
    """For test and validation what their nearest training prompts are, and for validation the nearest test prompts (`val_test`)."""
    found = {}
    for other, splits in _AGAINST.items():
        asked = [prompt for split in splits for prompt in prompts[split]]
        if not asked or not prompts[other]:
            continue
        parts = []
        with tqdm(total=len(asked), desc=f"comparing {measure.name} with {other}", unit="prompt", leave=False) as bar:
            for part in measure.nearest(asked, prompts[other]):
                parts.append(part)
                bar.update(len(part[0]))
        similarity, where = (np.concatenate(column) for column in zip(*parts, strict=True))
        start = 0
        for split in splits:
            own = slice(start, start + len(prompts[split]))
            start = own.stop
            if prompts[split]:
                nearest = [prompts[other][number] for number in where[own]]
                found[_name(split, other)] = _show(measure, (split, other), prompts[split], similarity[own], nearest, examples)
    return found


def _name(split: Split, other: Split) -> str:
    return split if other == "train" else f"{split}_{other}"


def _show(
    measure: Measure, splits: tuple[Split, Split], prompts: Sequence[str], similarity: np.ndarray, nearest: Sequence[str], examples: int
) -> dict[str, Any]:
    split, other = splits
    counts, edges = np.histogram(np.clip(similarity, 0, 1), bins=_BINS, range=(0, 1))
    print(f"\n{len(prompts)} different {split} prompts by {measure.what} their nearest {other} prompt:")
    for count, edge in zip(counts, edges, strict=False):
        print(f"  {edge:.1f} to {edge + 1 / _BINS:.1f}  {count:7d}  {'#' * round(50 * count / max(1, counts.max()))}")
    order = similarity.argsort(kind="stable")[::-1][:examples]
    shown = [{"similarity": round(float(similarity[i]), 3), split: prompts[i], other: nearest[i]} for i in order]
    for one in shown:
        print(f"  {one['similarity']:.2f}  {str(one[split])[:70]!r} / {str(one[other])[:70]!r}")
    over = int((similarity >= measure.threshold).sum()) if measure.threshold is not None else 0
    if measure.threshold is not None:
        print(f"  at {measure.threshold:g} or above: {over}")
    return {"histogram": counts.tolist(), "over": over, "nearest": shown}


def _shared_groups(rows: Mapping[Split, Sequence[Row]]) -> list[str]:
    splits = defaultdict(set)
    for split, some in rows.items():
        for row in some:
            splits[row.group].add(split)
    return sorted(group for group, where in splits.items() if len(where) > 1)


def _compare_pictures(
    rows: Mapping[Split, Sequence[Row]], distance: int | None, examples: int
) -> tuple[dict[str, Any] | None, Check | None, str | None]:
    """What was found in every pair of splits, what was checked by that, and what was not."""
    total = sum(map(len, rows.values()))
    hashed = sum(row.picture is not None for some in rows.values() for row in some)
    if not hashed:
        return None, None, "pictures: they have no hashes, which only imports compute"
    if distance is None:
        return None, None, "pictures: no distance was promised (give --picture-distance)"
    found: dict[str, Any] = {"distance": distance, "hashed": hashed, "of": total}
    near: list[tuple[str, str]] = []
    for other, splits in _AGAINST.items():
        index = PictureIndex(distance)
        for row in rows[other]:
            if row.picture is not None:
                index.add(row.picture, f"{other} {row.key}")
        for split in splits:
            pairs = [(f"{split} {row.key}", min(alike)) for row in rows[split] if row.picture is not None and (alike := index.near(row.picture))]
            found[_name(split, other)] = len(pairs)
            near += pairs
    print(f"\npictures that differ by at most {distance} of 256 bits from one of another split: {len(near)}")
    for one, alike_one in near[:examples]:
        print(f"  {one} / {alike_one}")
    check = Check(f"no picture is within {distance} of 256 bits of one of another split", len(near))
    without = f"{total - hashed} of {total} pictures: they have no hashes" if hashed < total else None
    return found | {"near": near[:examples]}, check, without


def _verdict(checks: Sequence[Check], not_checked: Sequence[str]) -> str:
    """What was found, in words that say what was looked at."""
    broken = [check for check in checks if check.leaks]
    if broken:
        lines = [f"{sum(check.leaks for check in broken)} leaks, against what was to be so:"]
        lines += [f"  {check.leaks} x {check.promise}" for check in broken]
    else:
        lines = ["nothing leaks of what was checked: " + "; ".join(check.promise for check in checks)]
    return "\n".join([*lines, *(f"not checked: {what}" for what in not_checked)])


if __name__ == "__main__":
    begin_command()
    try:
        sys.exit(0 if main(CONFIG) else 1)
    except (MissingExtraError, OSError, ValueError) as error:
        print(f"data.audit: {error}", file=sys.stderr)
        sys.exit(2)
