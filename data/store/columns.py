"""The table beside a shard's tar: one row a sample, the same columns of the same types in every shard of every data set."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import ShardError
from data.files import replacing

Measure = Literal["likelihood", "clip"]
FIT_COLUMNS: dict[Measure, str] = {"likelihood": "fit", "clip": "clip_fit"}  # beside those of SCHEMA, where score.py has been
_ORIGIN = b"made by"
_TEXT, _WHOLE, _REAL, _YES_NO = pa.string(), pa.int64(), pa.float64(), pa.bool_()
SCHEMA = pa.schema(
    {
        "key": _TEXT,
        "status": _TEXT,  # success, failed
        "error_kind": _TEXT,
        "error_message": _TEXT,
        "prompt": _TEXT,
        "negative_prompt": _TEXT,
        "original_prompt": _TEXT,  # where it was changed
        "prompt_group": _TEXT,
        "prompt_tokens": _WHOLE,  # as the text encoder counts them
        "truncated": _YES_NO,  # whether the text encoder read less than the prompt
        "seed": pa.uint64(),
        "steps": _WHOLE,
        "guidance_scale": _REAL,
        "sampler": _TEXT,
        "width": _WHOLE,
        "height": _WHOLE,
        "model": _TEXT,
        "revision": _TEXT,
        "lora": _TEXT,
        "lora_weight": _REAL,
        "slots": _TEXT,  # JSON
        "tool": _TEXT,
        "original": _TEXT,
        "picture": _TEXT,
        "others": _TEXT,  # JSON
    }
)


def chance_column(measure: Measure) -> str:
    """The column that says how likely a pair fits."""
    return f"{FIT_COLUMNS[measure]}_chance"


def table_of(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """
    Raises:
        ShardError: a row has a column that no shard has.
    """
    if unknown := sorted({name for row in rows for name in row} - set(SCHEMA.names)):
        raise ShardError(f"no shard has a column {', '.join(unknown)}; what is not a column belongs under 'others'")
    return pa.table({field.name: pa.array([_flat(row.get(field.name)) for row in rows], field.type) for field in SCHEMA}, schema=SCHEMA)


def _flat(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def read_rows(tar: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The rows of a shard, failures included; columns that it does not have are left out.

    Raises:
        ShardError: the table is missing or damaged.
    """
    parquet = tar.with_suffix(".parquet")
    try:
        there = pq.read_schema(parquet).names
        return pq.read_table(parquet, columns=None if columns is None else [name for name in columns if name in there]).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise ShardError(f"{parquet} cannot be read ({error}); delete {tar.stem}_stats.json beside it and make the shard again") from error


def read_column(tar: Path, column: str) -> dict[str, Any] | None:
    """A column of a shard's table by key; None where it has no such column."""
    rows = read_rows(tar, ["key", column])
    return {row["key"]: row[column] for row in rows} if rows and column in rows[0] else None


def column_origin(tar: Path, column: str) -> str | None:
    """What a column of numbers was made by, as `write_column` was told; None where there is no such column."""
    try:
        schema = pq.read_schema(tar.with_suffix(".parquet"))
    except (OSError, pa.ArrowException) as error:
        raise ShardError(f"{tar.with_suffix('.parquet')} cannot be read ({error})") from error
    if column not in schema.names:
        return None
    return ((schema.field(column).metadata or {}).get(_ORIGIN) or b"").decode()


def write_column(tar: Path, column: str, values: Mapping[str, float], *, origin: str) -> None:
    """Add a column of numbers to a shard's table, or replace it; keys without a value get none. The tar stays as it is. `origin` says what the
    numbers were made by, so that those of two origins are not taken for one."""
    parquet = tar.with_suffix(".parquet")
    rows = pq.read_table(parquet)
    new = pa.array([values.get(key) for key in rows["key"].to_pylist()], pa.float64())
    field = pa.field(column, pa.float64(), metadata={_ORIGIN: origin.encode()})
    names = rows.column_names
    rows = rows.set_column(names.index(column), field, new) if column in names else rows.append_column(field, new)
    with replacing(parquet) as temporary:
        pq.write_table(rows, temporary)
