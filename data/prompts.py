"""Where prompts come from: a text file, a column of a table or of a data set on the Hub, standard input, or any iterable."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from data.groups import Groups
from data.normalise import storable
from data.pairs import PROMPT_NAMES
from data.shards import ShardError, write_lines
from data.sources import load_hub

STANDARD_INPUT = "-"
PROMPTS_FILE = "prompts.jsonl"  # in a data set directory: which prompt is in which group


class PromptError(ValueError):
    """A prompt source that cannot be used; names the file and the remedy."""


@dataclass(frozen=True, kw_only=True)
class PromptRecord:
    """A prompt to render. `group` decides its split; `slots` are the parts it was made from, where they are known."""

    prompt: str
    group: str
    slots: Mapping[str, str] = field(default_factory=dict)


def read_prompts(source: str, column: str | None = None) -> list[str]:
    """
    Args:
        source: a text file with one prompt a line; a .csv, .tsv, .parquet or .jsonl; the id of a data set on the Hub; "-" for standard input, one
            prompt a line.
        column: of a table, by default prompt, text or caption.

    Raises:
        PromptError: no such file, not readable, no such column, or no prompt in it.
    """
    path = Path(source)
    try:
        if source == STANDARD_INPUT:
            found: Iterable[Any] = sys.stdin
        elif not path.exists() and source.count("/") == 1 and not path.parent.is_dir() and path.suffix not in _READERS:
            found = _hub(source, column)
        elif not path.is_file():
            raise PromptError(f"the prompt file {path} does not exist")
        else:
            found = _READERS.get(path.suffix.lower(), _text)(path, column)
        prompts = [storable(text.strip()) for text in found if isinstance(text, str) and text.strip()]
    except UnicodeDecodeError as error:
        raise PromptError(f"{source} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8 with one prompt a line") from error
    except (csv.Error, pa.ArrowException) as error:
        raise PromptError(f"{source} cannot be read ({error})") from error
    if not prompts:
        raise PromptError(f"{source} holds no prompt; write one a line")
    return prompts


@dataclass(frozen=True)
class GroupedPrompts:
    """Prompts to render, each in its group, and those that can be in no split: (prompt, reason in few words)."""

    records: Sequence[PromptRecord]
    left_out: Sequence[tuple[str, str]] = ()

    @property
    def kinds(self) -> dict[str, int]:
        return dict(Counter(kind for _, kind in self.left_out).most_common())


def grouped(prompts: Iterable[str], groups: Groups) -> GroupedPrompts:
    """Near prompts come into one group."""
    texts = list(prompts)
    records, left_out = [], []
    found = groups.assign((text, None) for text in texts)
    for text, group in tqdm(zip(texts, found, strict=True), "finding near-duplicates", total=len(texts), unit="prompt", leave=False):
        if isinstance(group, str):
            records.append(PromptRecord(prompt=text, group=group))
        else:
            left_out.append((text, group.kind))
    return GroupedPrompts(records, left_out)


def write_grouped(path: Path, prompts: GroupedPrompts) -> None:
    """A line of JSON for each prompt; under a temporary name first."""
    rows = [{"prompt": record.prompt, "group": record.group} for record in prompts.records]
    rows += [{"prompt": prompt, "left_out": kind} for prompt, kind in prompts.left_out]
    write_lines(path, rows)


def read_grouped(path: Path) -> GroupedPrompts:
    """
    Raises:
        PromptError: damaged.
    """
    records, left_out = [], []
    try:
        with open(path, encoding="utf-8") as lines:
            for row in map(json.loads, lines):
                if "group" in row:
                    records.append(PromptRecord(prompt=row["prompt"], group=row["group"]))
                else:
                    left_out.append((row["prompt"], row["left_out"]))
    except (ValueError, KeyError, TypeError) as error:
        raise PromptError(f"{path} is damaged ({error}); it says which prompt is in which group. Name another --out") from error
    return GroupedPrompts(records, left_out)


def _text(path: Path, column: str | None) -> list[str]:
    return path.read_text(encoding="utf-8-sig").splitlines()


def _table(path: Path, column: str | None) -> Iterator[Any]:
    with open(path, newline="", encoding="utf-8-sig") as lines:
        rows = csv.DictReader(lines, delimiter="," if path.suffix.lower() == ".csv" else "\t")
        name = _column(str(path), rows.fieldnames or (), column)
        for row in rows:
            yield row[name]


def _parquet(path: Path, column: str | None) -> Iterator[Any]:
    name = _column(str(path), pq.read_schema(path).names, column)
    for batch in pq.ParquetFile(path).iter_batches(columns=[name]):
        yield from batch.column(0).to_pylist()


def _json_lines(path: Path, column: str | None) -> Iterator[Any]:
    with open(path, encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise PromptError(f"{path}, line {number}, is not JSON ({error})") from error
            if not isinstance(row, dict):
                raise PromptError(f'{path}, line {number}, is not like {{"prompt": "a cat"}}')
            yield row[_column(f"{path}, line {number}", list(row), column)]


def _hub(name: str, column: str | None) -> Iterator[Any]:
    try:
        loaded = load_hub(name, streaming=False)
    except ShardError as error:
        raise PromptError(f"{error}. For prompts of your own, name a file") from error
    rows = loaded["train"] if "train" in loaded else loaded[next(iter(loaded))]
    chosen = _column(name, rows.column_names, column)
    for row in rows.select_columns([chosen]):
        yield row[chosen]


def _column(source: str, columns: Iterable[str], asked: str | None) -> str:
    there = list(columns)
    names = (asked,) if asked is not None else PROMPT_NAMES
    found = next((name for name in names if name in there), None)
    if found is None:
        raise PromptError(f"{source} has no column {' or '.join(names)}; give --prompt-column, one of: {', '.join(map(str, there)) or 'none'}")
    return found


_READERS = {".csv": _table, ".tsv": _table, ".parquet": _parquet, ".jsonl": _json_lines}
