"""Data sets of the Hugging Face Hub, as the library `datasets` loads them."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import Dataset

from data.errors import PairError, ShardError
from data.images import read_image
from data.sources.declared import by_split
from data.splits import Split, prompt_group
from data.store.pairs import Pair
from data.text import PROMPT_NAMES, prompts_of


class HubPairs(Dataset[Pair]):
    """A split of a data set that `datasets` has loaded; a row with a list of prompts is as many pairs."""

    def __init__(self, rows: Any, image_name: str, prompt_names: Sequence[str]) -> None:
        import datasets

        self.rows = rows.cast_column(image_name, datasets.Image(decode=False))  # decoded by us, who look at the size before
        self.image_name = image_name
        self.prompt_names = prompt_names
        self.images = self.rows.select_columns([image_name])
        self.texts = rows.select_columns([name for name in rows.column_names if name != image_name])
        self.skipped: Counter[str] = Counter()
        lists = any(name in rows.features and not isinstance(rows.features[name], datasets.Value) for name in prompt_names)
        counts = map(self._count, range(len(rows))) if lists else [1] * len(rows)
        self.places = [(row, number) for row, count in enumerate(counts) for number in range(count)]

    def _count(self, row: int) -> int:
        try:
            return len(prompts_of(self.texts[row], self.prompt_names, ""))
        except PairError:  # which whoever asks for the pair is told
            return 1

    def __len__(self) -> int:
        return len(self.places)

    def prompt(self, index: int) -> str:
        row, number = self.places[index]
        return prompts_of(self.texts[row], self.prompt_names, f"row {row}")[number]

    def image(self, index: int) -> Image.Image:
        row, _ = self.places[index]
        return read_image(image_bytes(self.images[row][self.image_name], f"row {row}"), name=f"row {row}")

    def __getitem__(self, index: int) -> Pair:
        return Pair(self.key(index), self.image(index), self.prompt(index), self.metadata(index))

    def key(self, index: int) -> str:
        return str(self.places[index][0])

    def metadata(self, index: int) -> dict[str, Any]:
        return of_one_group(self.texts[self.places[index][0]], self.prompt_names)

    def picture(self, index: int) -> str:
        return self.key(index)

    def fingerprint(self) -> str:
        return f"{self.rows._fingerprint} {len(self.places)}"


def of_one_group(row: dict[str, Any], prompt_names: Sequence[str]) -> dict[str, Any]:
    """A row whose several prompts are of one group, that of the first: they show one picture, which belongs to one split."""
    with suppress(PairError):
        prompts = prompts_of(row, prompt_names, "")
        if len(prompts) > 1:
            return {"prompt_group": prompt_group(prompts[0])} | row
    return row


def image_bytes(value: Any, label: str) -> bytes | Path:
    """What `datasets` holds of an image that it has not decoded."""
    if isinstance(value, dict) and (value.get("bytes") is not None or value.get("path")):
        return value["bytes"] if value.get("bytes") is not None else Path(value["path"])
    raise PairError(f"{label}: no image", "missing image")


def load_hub(name: str, *, streaming: bool) -> Any:
    """
    Raises:
        ShardError: `datasets` is not installed, or cannot load it.
    """
    try:
        import datasets
    except ImportError as error:
        raise ShardError(f"{name} is not on this machine, and reading it from the Hub needs: pip install -e '.[hub]'") from error
    try:
        return datasets.load_dataset(name, streaming=streaming)
    except Exception as error:  # the library raises anything
        raise ShardError(f"{name} is neither a path here nor a data set that can be had from the Hub ({error})") from error


def named_splits(loaded: Mapping[str, Any], name: str) -> dict[Split, Any]:
    """The splits of a data set by what their names mean; where none means any, the first one is for training. Others are named and left out.

    Raises:
        ShardError: two names mean one split.
    """
    rows = by_split(loaded, name) or {"train": loaded[next(iter(loaded))]}
    if others := [other for other, part in loaded.items() if not any(part is taken for taken in rows.values())]:
        warnings.warn(f"{name}: the splits {', '.join(others)} are neither train, val nor test, and left out", stacklevel=3)
    return rows


def hub_pairs(name: str, rows: Any, image_name: str | None, prompt_name: str | None) -> HubPairs:
    """
    Raises:
        ShardError: it has no image or prompt column.
    """
    return HubPairs(rows, image_column(name, rows.features, image_name), prompt_columns(name, rows.features, prompt_name))


def image_column(name: str, features: Any, asked: str | None) -> str:
    images = [column for column, feature in features.items() if type(feature).__name__ == "Image"]
    if asked is not None and asked not in images:
        raise ShardError(f"{name}: no image column {asked!r}; images are in: {', '.join(images) or 'none'}")
    if not images:
        raise ShardError(f"{name} has no column of images; its columns: {', '.join(features)}")
    return asked or images[0]


def prompt_columns(name: str, features: Any, asked: str | None) -> Sequence[str]:
    names = (asked,) if asked is not None else PROMPT_NAMES
    if not any(column in features for column in names):
        wanted = asked if asked is not None else " or ".join(PROMPT_NAMES[:3])
        raise ShardError(f"{name} has no column {wanted}; give --prompt-column, one of: {', '.join(features)}")
    return names
