"""Bring images with their prompts into a data set, whatever they come from. Originals are only read.

Examples:
    python -m data.importers folder ~/generated --out datasets/mine          prompts from metadata, or text files beside the images
    python -m data.importers imagefolder DIR --out datasets/mine             with a metadata.jsonl or metadata.csv
    python -m data.importers table styles.csv --image "images/{id}.jpg" --text "{productDisplayName}" --out datasets/fashion
    python -m data.importers diffusiondb DIR --out datasets/diffusiondb      parts as zips or folders
    python -m data.importers webdataset "shards/{0000..0099}.tar" --out datasets/mine
    python -m data.importers folder ~/new --out datasets/new --beside datasets/mine    its splits fit those of datasets/mine

Every image is decoded once and looked at (survey.jsonl); what cannot be used is listed in skipped.jsonl with the reason. Prompts or pictures that
are nearly the same come into the same split. It can be stopped at any time; the same command goes on.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

if __name__ == "__main__":  # Ctrl-C from here on ends the process, whatever is being imported
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import tyro

from data.console import begin_command, check_least, read_arguments
from data.groups.nearness import PICTURE_DISTANCE, Nearness
from data.imports import Also
from data.text import Step


@dataclass(frozen=True, kw_only=True)
class ImportConfig(ABC):
    """What all imports have in common."""

    out: Path
    """The data set directory; a finished one is left as it is."""
    beside: tuple[Path, ...] = ()
    """Data sets that are there already: what is near to their prompts or pictures comes into the same split."""
    strip: tuple[Step, ...] = ()
    """What to take out of the prompts: "loras" (<lora:x:0.8>), "weights" (the marks of "(word:1.2)"), "spaces" (superfluous ones, and commas)."""
    drop_words: tuple[str, ...] = ()
    """Words and phrases to take out of the prompts, such as masterpiece "best quality"."""
    max_side: int | None = None
    """Reduce larger pictures to so many pixels on their longer side and keep them as JPEG (default: files are kept as they are)."""
    nearness: Annotated[Nearness, tyro.conf.arg(name="")] = field(default_factory=Nearness)
    picture_distance: int = PICTURE_DISTANCE
    """Up to how many different bits, of 256, two pictures are one group."""
    splits: Literal["own", "hash"] = "own"
    """"own" keeps the train, val and test that the source is divided into (directories, or a column split) and carves out of train what is missing;
    "hash" divides anew by the prompts' groups, which is what happens to a source that is not divided."""
    also: tuple[Also, ...] = ()
    """Take in what is no single picture too: "grids" of pictures, pictures of node "graphs". They are left out and listed otherwise."""
    shard_size: int = 1000
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Processes that decode and write."""

    @abstractmethod
    def originals(self) -> Iterator[Original]:
        """Every image of the source, in an order that is the same each time."""


@dataclass(frozen=True, kw_only=True)
class FolderImport(ImportConfig):
    """Images in a directory and those below it. The prompt is in the file's metadata, or in a .txt or .caption beside it."""

    source: tyro.conf.Positional[Path]

    def originals(self) -> Iterator[Original]:
        return folder(self.source)


@dataclass(frozen=True, kw_only=True)
class ImagefolderImport(ImportConfig):
    """Hugging Face's imagefolder: images beside a metadata.jsonl or metadata.csv."""

    source: tyro.conf.Positional[Path]
    prompt_column: str | None = None
    """Default: prompt, text or caption."""

    def originals(self) -> Iterator[Original]:
        return imagefolder(self.source, prompt_column=self.prompt_column)


@dataclass(frozen=True, kw_only=True)
class TableImport(ImportConfig):
    """A CSV, TSV, Parquet or JSON file with a row for each image. Malformed lines are reported and left out."""

    source: tyro.conf.Positional[Path]
    image: str
    """Where the image lies, with columns in braces, such as "images/{id}.jpg"; relative to --root."""
    text: str
    """The prompt, likewise, such as "{productDisplayName}"."""
    root: Path | None = None
    """Default: the directory of the file."""
    delimiter: str | None = None
    """Between the values of a CSV (default: found in its first line)."""
    encoding: str | None = None
    """Of the text (default: found; utf-8, utf-16, cp1252 ...)."""

    def originals(self) -> Iterator[Original]:
        options = {"delimiter": self.delimiter, "encoding": self.encoding}
        return table(self.source, image=self.image, text=self.text, root=self.root, **options)


@dataclass(frozen=True, kw_only=True)
class DiffusiondbImport(ImportConfig):
    """DiffusionDB: part-000001.zip ... or folders of that name, and metadata.parquet where the parts' own files lack something."""

    source: tyro.conf.Positional[Path]

    def originals(self) -> Iterator[Original]:
        return diffusiondb(self.source)


@dataclass(frozen=True, kw_only=True)
class WebdatasetImport(ImportConfig):
    """WebDataset tars: a directory of them, or a pattern such as "shards/{0000..0099}.tar"."""

    source: tyro.conf.Positional[str]
    prompt_column: str | None = None
    """Which value of the .json is the prompt (default: the text file, or prompt, text or caption)."""

    def originals(self) -> Iterator[Original]:
        return webdataset(self.source, prompt_column=self.prompt_column)


Imports = (
    Annotated[FolderImport, tyro.conf.subcommand("folder")]
    | Annotated[ImagefolderImport, tyro.conf.subcommand("imagefolder")]
    | Annotated[TableImport, tyro.conf.subcommand("table")]
    | Annotated[DiffusiondbImport, tyro.conf.subcommand("diffusiondb")]
    | Annotated[WebdatasetImport, tyro.conf.subcommand("webdataset")]
)


def parse(arguments: Sequence[str]) -> ImportConfig:
    """The import that a command line asks for."""
    return tyro.cli(Imports, args=arguments, description=__doc__, prog="python -m data.importers")


if __name__ == "__main__":  # --help, a wrong option and Ctrl-C do not wait for the imports below, which take seconds
    CONFIG = read_arguments(parse)

from filelock import FileLock, Timeout
from PIL import Image
from tqdm import tqdm

from data.errors import ImageError, MissingExtraError, ShardBusyError, ShardError
from data.files import explained, remove_leftovers, write_json, write_lines
from data.groups.groups import Groups
from data.groups.shares import shares
from data.images import read_image
from data.imports.examining import Survey, digest_of, examine_original, surveyed_names
from data.imports.listing import Original, OriginalError, diffusiondb, folder, imagefolder, table, webdataset
from data.imports.planning import GROUPS_FILE, SURVEY_FILE, ImportPlan, ImportShard, find_groups, plan_import
from data.imports.pool import Pool, WorkerError, worker_pool
from data.splits import SPLIT_RULE, SPLITS
from data.store.directory import DATASET_FILE, LOCK_FILE, begun_settings, check_begun, finished_shards, read_stats
from data.store.writer import ShardWriter

SKIPPED_FILE = "skipped.jsonl"
_FORMATS = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}  # what is kept as it is


def main(config: ImportConfig) -> None:
    _check(config)
    config.out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(config.out / LOCK_FILE)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise ShardError(f"another import is writing into {config.out}; wait for it, or name another --out") from None
    with lock:
        before = begun_settings(config.out)
        nearness = config.nearness.settled(before)
        settings = _settings(config, nearness)
        if before is not None:
            check_begun(config.out, before, settings)
        remove_leftovers(config.out)
        groups = None
        if not (config.out / GROUPS_FILE).exists():  # here already, since what it needs may be missing
            groups = Groups(nearness, picture_distance=config.picture_distance)
        write_json(config.out / DATASET_FILE, _description(config, settings))
        with worker_pool(config.workers) as pool:
            survey(config, pool)
            if groups is not None:
                find_groups(config.out, groups, config.beside)
            plan = plan_import(config.out, config.shard_size, own_splits=config.splits == "own")
            write_json(config.out / DATASET_FILE, _description(config, settings, plan))
            _write(config, plan.shards, pool)
        _report(config, settings, plan)


def survey(config: ImportConfig, pool: Pool) -> None:
    """Look at every original, in order, each once: survey.jsonl grows line by line, and goes on where it stopped.

    Raises:
        ShardError: the source has changed since.
    """
    path = config.out / SURVEY_FILE
    done = surveyed_names(path)
    originals = config.originals()
    for name in done:
        original = next(originals, None)
        if original is None or original.name != name:
            now = f"{original.name} is now" if original is not None else "is no more"
            raise ShardError(f"the source has changed since {path} was begun ({name} was there, {now}). Name another --out")
    if (config.out / GROUPS_FILE).exists():
        if (more := next(originals, None)) is not None:
            raise ShardError(f"the source has more than when {config.out} was made ({more.name}). Name another --out, with --beside {config.out}")
        return
    examine = partial(examine_original, steps=config.strip, words=config.drop_words, also=config.also)
    try:
        with open(path, "a", encoding="utf-8") as file, tqdm(initial=len(done), unit="image", desc="looking at originals") as bar:
            for found in pool.map(examine, originals, chunk=16):
                file.write(json.dumps(asdict(found)) + "\n")  # in ASCII, since names of files need not be text
                bar.update()
    except OSError as error:
        raise explained(error, path) from error


def _write(config: ImportConfig, shards: Sequence[ImportShard], pool: Pool) -> None:
    missing = [shard for shard in shards if not ShardWriter(config.out / shard.split, shard.number).is_done]
    total = sum(len(shard.pairs) for shard in shards)
    left = sum(len(shard.pairs) for shard in missing)
    with tqdm(total=total, initial=total - left, unit="pair", desc="writing shards") as bar:
        for written in pool.map(partial(write_shard, config.out, config.max_side), missing):
            bar.update(written)


def write_shard(out: Path, max_side: int | None, shard: ImportShard) -> int:
    """Copy the originals of one shard into it; how many pairs it was to hold."""
    with open(out / SURVEY_FILE, "rb") as lines, ShardWriter(out / shard.split, shard.number) as writer:
        for key, place, group in shard.pairs:
            lines.seek(place)
            one = Survey(**json.loads(lines.readline()))
            metadata = _pair_metadata(one, group)
            try:
                part = tuple(one.part) if isinstance(one.part, list) else one.part
                content = Original(one.name, Path(one.file), part).read()
                if digest_of(content) != one.digest:
                    raise OriginalError(f"{one.name}: another file than when it was looked at", "exchanged image")
                writer.add_encoded(key, *_as_kept(content, one, max_side), metadata)
            except (ImageError, OriginalError) as error:  # it was there when it was looked at
                writer.add_failure(key, metadata, error.kind, str(error))
    return len(shard.pairs)


def _pair_metadata(one: Survey, group: str) -> dict[str, Any]:
    facts = dict(one.metadata)
    numbers = {"seed": int, "steps": int, "guidance_scale": float}
    known: dict[str, Any] = {}
    for name, kind in numbers.items():
        value = facts.pop(name, None)
        fits = isinstance(value, int | float) and not isinstance(value, bool) and value == kind(value) and 0 <= value < 2**63
        known[name] = kind(value) if fits else None
        if value is not None and not fits:
            facts.setdefault("others", {})[name] = value
    texts = {name: str(value) if (value := facts.pop(name, None)) is not None else None for name in ("sampler", "model")}
    said = {name: value for name, value in facts.items() if name in ("original_prompt", "others", "tool")}
    return (
        {"prompt": one.prompt, "negative_prompt": str(facts.get("negative_prompt", ""))}
        | known
        | texts
        | {
            "width": one.width,
            "height": one.height,
            "revision": None,
            "prompt_group": group,
            "original": one.name.encode("utf-8", "replace").decode(),
            "picture": one.picture,
        }
        | {"tool": said.get("tool", ""), "original_prompt": said.get("original_prompt"), "others": said.get("others", {})}
    )


def _as_kept(content: bytes, one: Survey, max_side: int | None) -> tuple[bytes, str]:
    """The file as it is, or reduced; formats that others do not read become PNG."""
    suffix = _FORMATS.get(one.format)
    if max_side is None or max(one.width, one.height) <= max_side:
        if suffix is not None:
            return content, suffix
        image, form, options = read_image(content, name=one.name), "PNG", dict[str, Any]()
    else:
        image, form, options = read_image(content, name=one.name), "JPEG", {"quality": 95, "subsampling": 0}
        image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue(), _FORMATS[form]


def _check(config: ImportConfig) -> None:
    check_least(1, shard_size=config.shard_size, workers=config.workers)
    check_least(16, max_side=config.max_side)
    check_least(0, picture_distance=config.picture_distance)
    for directory in config.beside:
        if not any(finished_shards(directory / split) for split in SPLITS):
            raise ShardError(f"--beside {directory}: no finished shard there")
    source = getattr(config, "source", None)
    if isinstance(source, Path) and not source.exists():
        raise ShardError(f"{source} does not exist")
    if isinstance(source, Path) and not isinstance(config, TableImport) and not source.is_dir():
        raise ShardError(f"{source} is not a directory")
    begun_settings(config.out)
    config.nearness.settled(None)
    if next(config.originals(), None) is None:  # before anything is written: a mistake in the arguments shall cost nothing
        raise ShardError(f"there is no image in {source}")
    if isinstance(source, Path) and source.is_dir() and source.resolve() in (config.out.resolve(), *config.out.resolve().parents):
        raise ShardError(f"--out {config.out} lies inside the source; name a directory elsewhere")


def _settings(config: ImportConfig, nearness: Nearness) -> dict[str, Any]:
    """What decides the pairs; a directory is only continued with the same."""
    values = {name: value for name, value in asdict(config).items() if name not in ("out", "workers", "nearness")}
    kind = type(config).__name__.removesuffix("Import").lower()
    return json.loads(json.dumps({"import": kind} | values | nearness.settings(), default=str))


def _description(config: ImportConfig, settings: Mapping[str, Any], plan: ImportPlan | None = None) -> dict[str, Any]:
    """Of an import that has begun, or that is planned."""
    about: dict[str, Any] = {"generator": f"import: {settings['import']}", "settings": settings}
    about |= {"command": "python -m data.importers", "arguments": sys.argv[1:]}
    if plan is None:
        return about
    counts, shards = Counter(dict.fromkeys(SPLITS, 0)), Counter(shard.split for shard in plan.shards)
    for shard in plan.shards:
        counts[shard.split] += len(shard.pairs)
    own = f"the source's own {', '.join(plan.declared)}"
    promised = {name: settings[name] for name in (*Nearness().settings(), "picture_distance")}
    return about | {
        "split_rule": f"{own}; else {SPLIT_RULE}" if plan.declared else SPLIT_RULE,
        "near_duplicates": {} if plan.declared else promised,  # whoever divided the source has promised nothing
        "counts": dict(counts),
        "shards": {split: shards[split] for split in SPLITS},
        "skipped": dict(Counter(kind for _, kind, _ in plan.skipped).most_common()),
    }


def _report(config: ImportConfig, settings: dict[str, Any], plan: ImportPlan) -> None:
    """What was done, as the shards' stats files count it."""
    counts, failed = Counter(dict.fromkeys(SPLITS, 0)), Counter[str]()
    for shard in plan.shards:
        stats = read_stats(config.out / shard.split / f"{shard.number:05d}")
        counts[shard.split] += stats.get("successes", 0)
        failed.update(stats.get("failures", {}))
    listing = config.out / SKIPPED_FILE
    write_lines(listing, ({"original": name, "kind": kind, "message": message} for name, kind, message in plan.skipped))
    kinds = Counter(kind for _, kind, _ in plan.skipped) + failed
    about = _description(config, settings, plan)
    write_json(config.out / DATASET_FILE, about | {"counts": dict(counts), "skipped": dict(kinds.most_common())})
    total = sum(counts.values())
    print(f"{config.out}: {total} pairs (" + ", ".join(f"{split} {counts[split]}" for split in SPLITS) + ")")
    if plan.declared:
        print(f"The source's own {', '.join(plan.declared)} were kept; --splits hash divides anew, so that nothing near is in two splits.")
    else:
        spread = shares(plan.grouped, config.nearness.ignore_words)
        print(spread.text)
        if spread.warning is not None:
            print(f"Warning: {spread.warning}", file=sys.stderr)
    if kinds:
        text = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common())
        print(f"left out {sum(kinds.values())}: {text}; each is listed in {listing}" + (" or in its shard's table" if failed else ""))
    if not total:
        raise ShardError(f"nothing could be imported; {listing} says why")
    print(f"Look at it:  python -m data.preview {config.out} --out {config.out}.html")
    print(f"Train on it: python train.py small --data {config.out}")


if __name__ == "__main__":
    begin_command()
    try:
        main(CONFIG)
    except (MissingExtraError, OSError, ShardBusyError, ValueError, WorkerError) as error:
        sys.exit(f"data.importers: {error}")
    except KeyboardInterrupt:
        sys.exit("\ndata.importers: stopped. What was done is kept; run the same command to go on.")
