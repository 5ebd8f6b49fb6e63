"""The one way from what people have to its splits: declared ones are kept, and only what is missing is carved out of train."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.errors import PairError, ShardError
from data.images import pictures_below
from data.sources.chosen import ChosenPairs, PairSource
from data.sources.folders import METADATA_FILES, FolderPairs, closed_folder, sidecar_of
from data.sources.hub import hub_pairs, load_hub
from data.sources.tars import TarPairs, expand
from data.splits import SPLIT_NAMES, SPLITS, Split, prompt_group, split_of
from data.store.directory import DATASET_FILE
from data.store.pairs import PairDataset

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def open_pairs(source: str, split: Split, *, image_name: str | None = None, prompt_name: str | None = None, partial: bool = False) -> PairSource:
    """The pairs of one split.

    Args:
        source: a data set directory of ours; a directory of tars, or a pattern of them such as "shards/{0000..0099}.tar" or "shards/*.tar"; a
            directory with a metadata.jsonl, .csv or .parquet (Hugging Face's imagefolder), or of pictures with a .txt beside each; or the id of a
            data set on the Hub. All but the first keep the splits that their directories or names declare (train, val or validation, test); what
            they do not declare is taken out of train by a hash of the prompt's words.
        image_name, prompt_name: the column or key that holds the image and the prompt, where the usual names will not do.
        partial: take what is there of a data set of ours that is not finished.

    Raises:
        ShardError: none of these, or nothing in it.
    """
    if "://" in source:
        raise ShardError(f"{source} is not on this machine: add --stream to read it as it comes, or download it")
    path = Path(source)
    if (path / DATASET_FILE).is_file():
        return PairDataset(path, split, partial=partial)
    if path.is_dir():
        declared = {part: path / name for name, part in reversed(SPLIT_NAMES.items()) if (path / name).is_dir()}
        parts: dict[Split, Path] = declared or {"train": path}
        return _of_split(split, parts, lambda where: _in_directory(where, prompt_name), divided=declared.keys(), source=source)
    if files := expand(source):
        return _of_split(split, {"train": files}, lambda some: TarPairs([Path(file) for file in some], prompt_name), divided=(), source=source)
    if _HUB_ID.fullmatch(source) and not path.parent.is_dir():
        loaded = load_hub(source, streaming=False)
        named = {part: loaded[name] for name, part in reversed(SPLIT_NAMES.items()) if name in loaded}
        rows = named or {"train": loaded[next(iter(loaded))]}
        return _of_split(split, rows, lambda some: hub_pairs(source, some, image_name, prompt_name), divided=named.keys(), source=source)
    raise ShardError(f"{source} is not a data set: it does not exist. Make one with: python generate_data.py --out {source}")


def _of_split(split: Split, parts: Mapping[Split, Any], open_part: Any, *, divided: Any, source: str) -> PairSource:
    """A declared split as it is; of those that are not declared the share of train that their hash says."""
    missing = [one for one in SPLITS if one not in divided]
    if split not in missing and (split != "train" or not missing):
        return open_part(parts[split])
    if "train" not in parts:
        raise ShardError(f"{source} has no {split} split, only {', '.join(parts)}; and without train none can be carved out")
    taken = [one for one in missing if one != "train"]
    return SplitPairs(open_part(parts["train"]), split, taken)


def _in_directory(directory: Path, prompt_name: str | None) -> PairSource:
    if any((directory / name).is_file() for name in METADATA_FILES):
        return FolderPairs.listed(directory, prompt_name)
    if tars := sorted(directory.rglob("*.tar")):
        return TarPairs(tars, prompt_name)
    if any(sidecar_of(picture) is not None for picture in pictures_below(directory, closed_folder)):
        return FolderPairs.captioned(directory)
    raise ShardError(
        f"{directory} is not a data set: it has no {DATASET_FILE} (what generate_data.py was given as --out), no {METADATA_FILES[0]}, no .tar, and "
        "no pictures with a .txt beside them. Pictures that carry their prompts are taken in by: python -m data.importers folder"
    )


class SplitPairs(ChosenPairs):
    """The pairs of a source that fall into a split, of which some shares (`taken`) are carved out by the hash of the prompt's group. Those without a
    readable prompt are left to training, which counts them."""

    def __init__(self, pairs: PairSource, split: Split, taken: Sequence[Split]) -> None:
        def where(index: int) -> Split:
            try:
                found = split_of(prompt_group(pairs.prompt(index)))
            except PairError:
                return "train"
            return found if found in taken else "train"

        super().__init__(pairs, [index for index in range(len(pairs)) if where(index) == split])
        if split == "train":
            self.skipped = pairs.skipped
        if not self.indices:
            raise ShardError(f"of {len(pairs)} pairs none falls into the {split} split (5 % of the prompts do into each of val and test); use more")
