"""The one way from what people have to its splits: declared ones are kept, and only what is missing is carved out of train."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from data.errors import PairError, ShardError
from data.images import SUFFIXES, pictures_below
from data.sources.chosen import ChosenPairs, PairSource
from data.sources.declared import about_carving, by_split, check_train, missing_splits, splits_with_pairs, tars_by_split
from data.sources.folders import METADATA_FILES, FolderPairs, closed_folder, sidecar_of
from data.sources.hub import hub_pairs, load_hub, named_splits
from data.sources.pictures import groups_of_pictures, picture_numbers, torn
from data.sources.tars import TarPairs
from data.splits import SPLITS, Split, declared_split, divided, group_of
from data.store.directory import DATASET_FILE, check_finished
from data.store.pairs import PairDataset

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def open_pairs(source: str, split: Split, *, image_name: str | None = None, prompt_name: str | None = None, partial: bool = False) -> PairSource:
    """The pairs of one split of what `open_splits` opens."""
    return open_splits(source, image_name=image_name, prompt_name=prompt_name, partial=partial)[split]


def open_splits(source: str, *, image_name: str | None = None, prompt_name: str | None = None, partial: bool = False) -> Splits:
    """
    Args:
        source: a data set directory of ours; a directory of tars, or a pattern of them such as "shards/{0000..0099}.tar" or "shards/*.tar"; a
            directory with a metadata.jsonl, .csv or .parquet (Hugging Face's imagefolder), or of pictures with a .txt beside each; or the id of a
            data set on the Hub. Splits that directories, names of tars, the Hub's own names or values `split` declare (train, val or validation,
            test) are kept.
        image_name, prompt_name: the column or key that holds the image and the prompt, where the usual names will not do.
        partial: take what is there of a data set of ours that is not finished.

    Raises:
        ShardError: none of these, or nothing in it.
    """
    if "://" in source:
        raise ShardError(f"{source} is not on this machine: add --stream to read it as it comes, or download it")
    path = Path(source)
    if (path / DATASET_FILE).is_file():
        if not partial:
            check_finished(path)
        parts = splits_with_pairs(path) or ["train"]  # which says that it is empty
        return Splits(source, {split: functools.partial(PairDataset, path, split, partial=True) for split in parts})
    if path.is_dir() and any((path / name).is_file() for name in METADATA_FILES):
        return Splits(source, {"train": functools.partial(FolderPairs.listed, path, prompt_name)})
    below = by_split({child.name: child for child in sorted(path.iterdir()) if child.is_dir()}, source) if path.is_dir() else {}
    if not any((where / name).is_file() for where in below.values() for name in METADATA_FILES) and (tars := tars_by_split(source)):
        return Splits(source, {split: functools.partial(TarPairs, [Path(file) for file in files], prompt_name) for split, files in tars.items()})
    if path.is_dir():
        if below:
            _say_what_is_outside(path)
        return Splits(source, {split: functools.partial(_in_directory, where, prompt_name) for split, where in (below or {"train": path}).items()})
    if _HUB_ID.fullmatch(source) and not path.parent.is_dir():
        loaded = load_hub(source, streaming=False)
        rows = named_splits(loaded, source)
        return Splits(source, {split: functools.partial(hub_pairs, source, some, image_name, prompt_name) for split, some in rows.items()})
    raise ShardError(f"{source} is not a data set: it does not exist. Make one with: python generate_data.py --out {source}")


class Splits:
    """The splits of one source, opened when they are asked for.

    Attributes:
        missing: those of val and test that are not declared, and come out of train.
    """

    def __init__(self, source: str, parts: Mapping[Split, Callable[[], PairSource]]) -> None:
        self.source = source
        self.parts = parts
        self.missing = missing_splits(parts)

    def __getitem__(self, split: Split) -> PairSource:
        """
        Raises:
            ShardError: there is none, and none can be carved out of train.
        """
        check_train(self.parts, split, self.source)
        if split in self.parts and (split != "train" or not self.missing):
            return self.parts[split]()
        if split not in self._carved:
            raise ShardError(f"{self.source} has no {split} split: its pairs say that they are {' and '.join(self._carved)}")
        return self._carved[split]

    @functools.cached_property
    def _carved(self) -> Mapping[Split, ChosenPairs]:
        """Train and what comes out of it (`data.splits.divided`). Pairs without a readable prompt are left to training, which counts them."""
        train = self.parts["train"]()
        known: dict[int, tuple[str, Split | None]] = {}
        unread: PairError | None = None
        for index in range(len(train)):
            try:
                prompt, metadata = train.prompt(index), train.metadata(index)
                known[index] = group_of(prompt, metadata), declared_split(metadata.get("split"))
            except PairError as error:
                unread = unread or error
        if not known and unread is not None:
            raise ShardError(f"{self.source}: of {len(train)} pairs none has a prompt that can be read; the first: {unread}. Try --prompt-column")
        groups = {index: group for index, (group, _) in known.items()}
        pictures = picture_numbers(train)
        if isinstance(train, FolderPairs):  # where a picture has its captions together; a stream of tars could not know
            groups = groups_of_pictures(groups, pictures)
        said = [own for _, own in known.values()]
        try:
            where = dict(zip(known, divided(list(groups.values()), said, self.missing), strict=True))
        except ValueError as error:
            raise ShardError(f"{self.source}: {error}. Add pairs") from error
        if count := torn(where, pictures):
            warnings.warn(
                f"{self.source}: {count} pictures have captions in several splits: the captions say so themselves, or are in tars, which are divided "
                "pair by pair; give those of a picture one prompt_group in their .json",
                stacklevel=2,
            )
        by_part: dict[Split, list[int]] = {split: [] for split in SPLITS}
        for index in range(len(train)):
            by_part[where.get(index, "train")].append(index)
        carved = {split: ChosenPairs(train, indices) for split, indices in by_part.items() if indices}
        if "train" in carved:
            carved["train"].skipped = train.skipped
        return carved

    def __str__(self) -> str:
        """What was done to the source, for people; empty where nothing was."""
        return about_carving(self.missing if "train" in self.parts else (), self.source)


def _in_directory(directory: Path, prompt_name: str | None) -> PairSource:
    if any((directory / name).is_file() for name in METADATA_FILES):
        return FolderPairs.listed(directory, prompt_name)
    if any(sidecar_of(picture) is not None for picture in pictures_below(directory, closed_folder)):
        return FolderPairs.captioned(directory)
    raise ShardError(
        f"{directory} is not a data set: it has no {DATASET_FILE} (what generate_data.py was given as --out), no {METADATA_FILES[0]}, no .tar, and "
        "no pictures with a .txt beside them. Pictures that carry their prompts are taken in by: python -m data.importers folder"
    )


def _say_what_is_outside(directory: Path) -> None:
    """Pictures beside train, val and test belong to none of them."""
    for child in sorted(directory.iterdir()):
        if child.is_dir():
            outside = declared_split(child.name) is None and not child.name.startswith(".") and any(pictures_below(child, closed_folder))
        else:
            outside = child.suffix.lower() in SUFFIXES
        if outside:
            warnings.warn(f"{child} lies outside of {directory}'s splits and is left out", stacklevel=3)
