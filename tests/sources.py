"""Folders of pictures with prompts, and the splits that come out of a source, for the tests of `data.sources`."""

import json
from pathlib import Path

from archives import encoded

from data.sources.chosen import prompts
from data.sources.opening import open_pairs
from data.splits import SPLITS, prompt_group, split_of


def write_folder(directory: Path, first: int, last: int, column: str = "text") -> None:
    directory.mkdir(parents=True)
    lines = []
    for i in range(first, last):
        (directory / f"{i}.png").write_bytes(encoded())
        lines.append(json.dumps({"file_name": f"{i}.png", column: f"prompt number {i}"}))
    (directory / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def write_captioned(directory: Path, first: int, last: int) -> None:
    directory.mkdir(parents=True)
    for i in range(first, last):
        (directory / f"{i}.JPG").write_bytes(encoded("JPEG"))
        (directory / f"{i}{'.TXT' if i % 2 else '.txt'}").write_bytes(f"\ufeffprompt number {i}\r\n".encode("utf-16" if i % 3 else "utf-8"))


def all_splits(source: str) -> dict[str, list[str]]:
    return {split: list(prompts(open_pairs(source, split))) for split in SPLITS}


def check_split_by_hash(source: str, count: int) -> None:
    found = all_splits(source)
    assert sorted(prompt for split in SPLITS for prompt in found[split]) == sorted(f"prompt number {i}" for i in range(count))
    for split in SPLITS:
        assert all(split_of(prompt_group(prompt)) == split for prompt in found[split])
