"""Where prompts come from: a text file, a column of a table or of a data set on the Hub, standard input, or any iterable."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.errors import ShardError, TableError
from data.files import write_lines
from data.groups.groups import Groups
from data.rows import TABLE_SUFFIXES, Malformed, open_table
from data.sources.hub import load_hub
from data.text import cleaned, encoding_of, prompt_column, prompts_of
from synthesis.long_prompts import ReadPrompt

STANDARD_INPUT = "-"
PROMPTS_FILE = "prompts.jsonl"  # in a data set directory: which prompt is in which group


@dataclass(frozen=True, kw_only=True)
class PromptRecord:
    """A prompt to render. `group` decides its split; `slots` are the parts it was made from, where they are known. `prompt_tokens` are what the text
    encoder counts, `truncated` whether it reads less than all of them, `original_prompt` what the prompt was before it was cut."""

    prompt: str
    group: str
    slots: Mapping[str, str] = field(default_factory=dict)
    prompt_tokens: int | None = None
    truncated: bool = False
    original_prompt: str | None = None


@dataclass(frozen=True)
class PromptList:
    """Prompts in order, and what of the source could not be read: (place and reason, kind)."""

    prompts: Sequence[str]
    left_out: Sequence[tuple[str, str]] = ()
    notice: str = ""


def read_prompts(source: str, column: str | None = None, *, delimiter: str | None = None, encoding: str | None = None) -> PromptList:
    """
    Args:
        source: a text file with one prompt a line; a table (.csv, .tsv, .parquet, .jsonl, .json); the id of a data set on the Hub; "-" for standard
            input, one prompt a line.
        column: of a table, by default prompt, text or caption.
        delimiter, encoding: as `data.rows.open_table`.

    Raises:
        TableError: no such file, not readable, no such column, or no prompt in it.
    """
    path = Path(source)
    suffix = path.suffix.lower()
    if source == STANDARD_INPUT:
        found = _lines(getattr(sys.stdin, "buffer", sys.stdin).read(), "standard input", encoding)
    elif not path.exists() and source.count("/") == 1 and not path.parent.is_dir() and suffix not in TABLE_SUFFIXES:
        found = PromptList(_hub(source, column))
    elif not path.is_file():
        raise TableError(f"the prompt file {path} does not exist")
    elif suffix in TABLE_SUFFIXES:
        found = _table(path, column, delimiter, encoding)
    else:
        try:
            found = _lines(path.read_bytes(), str(path), encoding)
        except OSError as error:
            raise TableError(f"{path} cannot be read ({error})") from error
    prompts = [prompt for prompt in map(cleaned, found.prompts) if prompt]
    if not prompts:
        reasons = f"; {len(found.left_out)} rows could not be read, the first: {found.left_out[0][0]}" if found.left_out else "; write one a line"
        raise TableError(f"{source} holds no prompt{reasons}")
    return PromptList(prompts, found.left_out, found.notice)


def _lines(content: bytes | str, source: str, encoding: str | None) -> PromptList:
    """Lines end where files end them, and not at each sign that Unicode calls a line's end."""
    notice = ""
    if isinstance(content, bytes):
        try:
            name = encoding or encoding_of(content)
            notice = f"{source} is not UTF-8; it was read as {name}. --encoding says otherwise" if encoding is None and name == "cp1252" else ""
            content = content.decode(name)
        except UnicodeDecodeError as error:
            line = bytes(error.object).count(b"\n", 0, error.start) + 1
            raise TableError(f"{source}, line {line}, is not UTF-8 text ({error.reason}); name its --encoding, or save it as UTF-8") from error
        except LookupError as error:
            raise TableError(f"there is no encoding {encoding!r}; utf-8, utf-16, cp1252 and latin-1 are the usual ones") from error
    return PromptList(content.replace("\r\n", "\n").replace("\r", "\n").split("\n"), notice=notice)


def _table(path: Path, column: str | None, delimiter: str | None, encoding: str | None) -> PromptList:
    table = open_table(path, delimiter=delimiter, encoding=encoding)
    name = prompt_column(table.columns, column, str(path)) if table.columns else None
    prompts, left_out = [], []
    for number, row in table.rows():
        if isinstance(row, Malformed):
            left_out.append((f"line {number}: {row.reason}", "malformed row"))
            continue
        chosen = name if name is not None else prompt_column(row, column, f"{path}, line {number},")
        value = row[chosen]
        if isinstance(value, list | tuple):
            prompts += prompts_of({chosen: value}, (chosen,), f"{path}, line {number}") if value else []
        elif isinstance(value, str):
            prompts.append(value)
    return PromptList(prompts, left_out, table.notice)


def _hub(name: str, column: str | None) -> list[str]:
    try:
        loaded = load_hub(name, streaming=False)
    except ShardError as error:
        raise TableError(f"{error}. For prompts of your own, name a file") from error
    rows = loaded["train"] if "train" in loaded else loaded[next(iter(loaded))]
    chosen = prompt_column(rows.column_names, column, name)
    return [row[chosen] for row in rows.select_columns([chosen]) if isinstance(row[chosen], str)]


@dataclass(frozen=True)
class GroupedPrompts:
    """Prompts to render, each in its group, and those that can be in no split: (prompt, reason in few words)."""

    records: Sequence[PromptRecord]
    left_out: Sequence[tuple[str, str]] = ()

    @property
    def kinds(self) -> dict[str, int]:
        return dict(Counter(kind for _, kind in self.left_out).most_common())


def grouped(prompts: Sequence[ReadPrompt], groups: Groups, left_out: Iterable[tuple[str, str]] = ()) -> GroupedPrompts:
    """Near prompts come into one group."""
    records, left = [], list(left_out)
    found = groups.assign((one.prompt, None) for one in prompts)
    for one, group in tqdm(zip(prompts, found, strict=True), "finding near-duplicates", total=len(prompts), unit="prompt", leave=False):
        if isinstance(group, str):
            records.append(PromptRecord(group=group, **vars(one)))
        else:
            left.append((one.prompt, group.kind))
    return GroupedPrompts(records, left)


def write_grouped(path: Path, prompts: GroupedPrompts) -> None:
    """A line of JSON for each prompt; under a temporary name first."""
    rows: list[dict[str, Any]] = [
        {"prompt": one.prompt, "group": one.group, "prompt_tokens": one.prompt_tokens, "truncated": one.truncated}
        | ({"original_prompt": one.original_prompt} if one.original_prompt is not None else {})
        for one in prompts.records
    ]
    rows += [{"prompt": prompt, "left_out": kind} for prompt, kind in prompts.left_out]
    write_lines(path, rows)


def read_grouped(path: Path) -> GroupedPrompts:
    """
    Raises:
        TableError: damaged.
    """
    records, left_out = [], []
    try:
        with open(path, encoding="utf-8") as lines:
            for row in map(json.loads, lines):
                if "group" in row:
                    about = {name: row[name] for name in ("prompt_tokens", "truncated", "original_prompt") if name in row}
                    records.append(PromptRecord(prompt=row["prompt"], group=row["group"], **about))
                else:
                    left_out.append((row["prompt"], row["left_out"]))
    except (ValueError, KeyError, TypeError) as error:
        raise TableError(f"{path} is damaged ({error}); it says which prompt is in which group. Name another --out") from error
    return GroupedPrompts(records, left_out)
