"""Map-style pairs from what people have: our data set directories, WebDataset archives, image folders, data sets of the Hugging Face Hub."""

from __future__ import annotations

import glob
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from PIL import Image
from torch.utils.data import Dataset

from data.images import read_image
from data.pairs import PROMPT_NAMES, ArchivePairs, Pair, PairDataset, PairError, prompt_of
from data.shards import DATASET_FILE, ShardError, index_archive
from data.splits import SPLITS, Split, prompt_group, split_of

FOLDER_FILE = "metadata.jsonl"
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class PairSource(Protocol):
    """Pairs by number. `skipped` counts by kind what was lost before the first pair was asked for."""

    skipped: Counter[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Pair: ...

    def image(self, index: int) -> Image.Image: ...

    def prompt(self, index: int) -> str: ...

    def fingerprint(self) -> str: ...


def open_pairs(source: str, split: Split, *, image_name: str | None = None, prompt_name: str | None = None) -> PairSource:
    """The pairs of one split.

    Args:
        source: a data set directory of ours; a directory of tars, or a pattern of them such as "shards/{0000..0099}.tar" or "shards/*.tar"; a
            directory with a metadata.jsonl (Hugging Face's imagefolder); or the id of a data set on the Hub. The last three are split as their
            directories or splits train, val(idation) and test say, and by a hash of the prompt's group where they say nothing.
        image_name, prompt_name: the column, key or suffix that holds the image and the prompt, where the usual names will not do.

    Raises:
        ShardError: none of these, or nothing in it.
    """
    if "://" in source:
        raise ShardError(f"{source} is not on this machine: add --stream to read it as it comes, or download it")
    prompt_names = (prompt_name,) if prompt_name else PROMPT_NAMES
    path = Path(source)
    if (path / DATASET_FILE).is_file():
        return PairDataset(path, split)
    if path.is_dir():
        own = next((path / name for name in _names(split) if (path / name).is_dir()), None)
        divided = all(any((path / name).is_dir() for name in _names(part)) for part in SPLITS)
        directory = own if own is not None and divided else path
        if (directory / FOLDER_FILE).is_file():
            pairs: PairSource = FolderPairs(directory, prompt_names)
        elif tars := sorted(directory.rglob("*.tar")):
            pairs = TarPairs(tars, prompt_names)
        else:
            raise ShardError(
                f"{directory} is not a data set: it has no {DATASET_FILE} (what generate_data.py was given as --out), no {FOLDER_FILE} and no .tar"
            )
        return pairs if divided else SplitPairs(pairs, split)
    if files := expand(source):
        return SplitPairs(TarPairs([Path(file) for file in files], prompt_names), split)
    if _HUB_ID.fullmatch(source) and not path.parent.is_dir():
        return open_hub(source, split, image_name, prompt_names)
    raise ShardError(f"{source} is not a data set: it does not exist. Make one with: python generate_data.py --out {source}")


def expand(pattern: str) -> list[str]:
    """`a/{00..02}.tar` -> three names; `a/*.tar` -> the files there are; a name of an existing file or a URL -> itself."""
    braces = _BRACES.search(pattern)
    if braces:
        first, last = braces.groups()
        numbers = [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
        return [name for number in numbers for name in expand(pattern[: braces.start()] + number + pattern[braces.end() :])]
    if "://" in pattern:
        return [pattern]
    return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 (Path.glob wants a relative pattern)


class TarPairs(ArchivePairs):
    """The pairs of any WebDataset tars; of one that is cut short those before the cut."""

    def __init__(self, tars: Sequence[Path], prompt_names: Sequence[str]) -> None:
        found = [index_archive(tar) for tar in tars]
        super().__init__([location for locations, _ in found for location in locations], prompt_names)
        self.skipped["cut archive"] = sum(error is not None for _, error in found)
        if not self.locations:
            raise ShardError(f"{tars[0]}{' and the others' if len(tars) > 1 else ''}: no image with a .txt or .json beside it")


class FolderPairs(Dataset[Pair]):
    """Images beside a metadata.jsonl that names them: {"file_name": "1.png", "prompt": "..."} a line."""

    def __init__(self, directory: Path, prompt_names: Sequence[str]) -> None:
        self.directory = directory
        self.prompt_names = prompt_names
        self.skipped: Counter[str] = Counter()
        self.rows: list[dict[str, Any]] = []
        with open(directory / FOLDER_FILE, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    row = json.loads(line)
                    self.rows.append({"file_name": str(row["file_name"])} | row)
                except (ValueError, KeyError, TypeError):
                    self.skipped["damaged metadata"] += bool(line.strip())
        if not self.rows:
            raise ShardError(f'{directory / FOLDER_FILE}: no line like {{"file_name": "1.png", "prompt": "a cat"}}')

    def __len__(self) -> int:
        return len(self.rows)

    def prompt(self, index: int) -> str:
        row = self.rows[index]
        return prompt_of(row, self.prompt_names, f"{self.directory / FOLDER_FILE}: {row['file_name']}")

    def image(self, index: int) -> Image.Image:
        return read_image(self.directory / self.rows[index]["file_name"])

    def __getitem__(self, index: int) -> Pair:
        return Pair(self.rows[index]["file_name"], self.image(index), self.prompt(index), self.rows[index])

    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self.rows, sort_keys=True).encode()).hexdigest()[:16]


class HubPairs(Dataset[Pair]):
    """A split of a data set that `datasets` has loaded."""

    def __init__(self, rows: Any, image_name: str, prompt_names: Sequence[str]) -> None:
        import datasets

        self.rows = rows.cast_column(image_name, datasets.Image(decode=False))  # decoded by us, who look at the size before
        self.image_name = image_name
        self.prompt_names = prompt_names
        self.images = self.rows.select_columns([image_name])
        self.texts = rows.select_columns([name for name in rows.column_names if name != image_name])
        self.skipped: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self.rows)

    def prompt(self, index: int) -> str:
        return prompt_of(self.texts[index], self.prompt_names, f"row {index}")

    def image(self, index: int) -> Image.Image:
        return read_image(image_bytes(self.images[index][self.image_name], f"row {index}"), name=f"row {index}")

    def __getitem__(self, index: int) -> Pair:
        return Pair(str(index), self.image(index), self.prompt(index), self.texts[index])

    def fingerprint(self) -> str:
        return str(self.rows._fingerprint)


def image_bytes(value: Any, label: str) -> bytes | Path:
    """What `datasets` holds of an image that it has not decoded."""
    if isinstance(value, dict) and (value.get("bytes") is not None or value.get("path")):
        return value["bytes"] if value.get("bytes") is not None else Path(value["path"])
    raise PairError(f"{label}: no image", "missing image")


def open_hub(name: str, split: Split, image_name: str | None, prompt_names: Sequence[str]) -> PairSource:
    """
    Raises:
        ShardError: `datasets` is not installed, or cannot load it; or it has no image or prompt column.
    """
    loaded = load_hub(name, streaming=False)
    own = next((part for part in _names(split) if part in loaded), None)
    divided = all(any(part in loaded for part in _names(one)) for one in SPLITS)
    rows = loaded[own] if own is not None and divided else loaded[next(iter(loaded))]
    pairs = HubPairs(rows, image_column(name, rows.features, image_name), prompt_columns(name, rows.features, prompt_names))
    return pairs if divided else SplitPairs(pairs, split)


def load_hub(name: str, *, streaming: bool) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ShardError(f"{name} is not on this machine, and reading it from the Hub needs: pip install -e '.[hub]'") from error
    try:
        return datasets.load_dataset(name, streaming=streaming)
    except Exception as error:  # the library raises anything
        raise ShardError(f"{name} is neither a path here nor a data set that can be had from the Hub ({error})") from error


def image_column(name: str, features: Any, asked: str | None) -> str:
    images = [column for column, feature in features.items() if type(feature).__name__ == "Image"]
    if asked is not None and asked not in images:
        raise ShardError(f"{name}: no image column {asked!r}; images are in: {', '.join(images) or 'none'}")
    if not images:
        raise ShardError(f"{name} has no column of images; its columns: {', '.join(features)}")
    return asked or images[0]


def prompt_columns(name: str, features: Any, prompt_names: Sequence[str]) -> Sequence[str]:
    if not any(column in features for column in prompt_names):
        raise ShardError(f"{name} has no column {' or '.join(prompt_names)}; give --prompt-column, one of: {', '.join(features)}")
    return prompt_names


class ListedPairs(Dataset[Pair]):
    """Pairs in memory."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = pairs
        self.skipped: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Pair:
        return self.pairs[index]

    def image(self, index: int) -> Image.Image:
        return self.pairs[index].image

    def prompt(self, index: int) -> str:
        return self.pairs[index].prompt

    def fingerprint(self) -> str:
        return hashlib.sha256("\n".join(f"{pair.key} {pair.prompt}" for pair in self.pairs).encode()).hexdigest()[:16]


class ChosenPairs(Dataset[Pair]):
    """Some of a source's pairs, by their numbers."""

    def __init__(self, pairs: PairSource, indices: Sequence[int]) -> None:
        self.pairs = pairs
        self.indices = indices
        self.skipped: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Pair:
        return self.pairs[self.indices[index]]

    def image(self, index: int) -> Image.Image:
        return self.pairs.image(self.indices[index])

    def prompt(self, index: int) -> str:
        return self.pairs.prompt(self.indices[index])

    def fingerprint(self) -> str:
        return self.pairs.fingerprint()


class SplitPairs(ChosenPairs):
    """The pairs whose prompt's group belongs to a split. Those without a readable prompt are left to training, which counts them."""

    def __init__(self, pairs: PairSource, split: Split) -> None:
        super().__init__(pairs, [index for index in range(len(pairs)) if _split(pairs, index) == split])
        if split == "train":
            self.skipped = pairs.skipped
        if not self.indices:
            raise ShardError(f"of {len(pairs)} pairs none falls into the {split} split (5 % of the prompts do into each of val and test); use more")


def _split(pairs: PairSource, index: int) -> Split:
    try:
        return split_of(prompt_group(pairs.prompt(index)))
    except PairError:
        return "train"


def prompts(pairs: PairSource) -> Iterator[str]:
    """Every prompt that can be read, in order."""
    for index in range(len(pairs)):
        with suppress(PairError):
            yield pairs.prompt(index)


def _names(split: Split) -> tuple[str, ...]:
    return ("val", "validation", "valid") if split == "val" else (split,)
