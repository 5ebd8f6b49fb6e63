"""Prompts beside the pictures: in texts of their names, and in copies that carry them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from data.files import replacing, write_text
from data.images import opened_image
from data.metadata.embedding import guessed_text, with_text
from data.text import decoded
from inference.outputs import Existing, Output, OutputError
from inference.rows import Row, one_line, printable

_KEEP_THEIR_NAME = (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif")  # copies of pictures of such names


class Sidecars(Output):
    """A text beside each picture, under its name with another suffix, as kohya's trainers read it."""

    def __init__(self, suffix: str, existing: Existing) -> None:
        self.suffix, self.existing = suffix, existing
        self._of: dict[Path, Path] = {}

    def has(self, file: Path) -> bool:
        """
        Raises:
            OutputError: another picture's text has that name.
        """
        path = file.with_suffix(self.suffix)
        if path == file:
            raise OutputError(f"the text of {printable(file)} would be the file itself; give --sidecar another suffix")
        if (other := self._of.setdefault(Path(os.path.abspath(path)), file)) != file:  # noqa: PTH100  # links have texts of their own
            raise OutputError(f"{printable(file)} and {printable(other)} would share the text {printable(path.name)}")
        return self.existing == "skip" and path.exists()

    def write(self, row: Row) -> None:
        path, prompt = row.file.with_suffix(self.suffix), one_line(row.prompts[0])
        if self.existing in ("append", "prepend") and path.exists():
            try:
                before = decoded(path.read_bytes()).strip()
            except UnicodeDecodeError as error:
                raise OutputError(f"{printable(path)} is not text that can be read; nothing was added to it") from error
            prompt = _joined(before, prompt) if self.existing == "append" else _joined(prompt, before)
            if prompt == before:
                return
        write_text(path, f"{prompt}\n")


def _joined(first: str, second: str) -> str:
    """With a comma between; what stands there already, as after a run that was interrupted, is not added again."""
    if first == second or not second or first.endswith(f", {second}"):
        return first
    if not first or second.startswith(f"{first}, "):
        return second
    return f"{first}, {second}"


class Copies(Output):
    """Copies of the pictures that carry their prompt, in a folder of their own; of those that carried one already, the file as it is."""

    def __init__(self, folder: Path, existing: Existing, roots: Mapping[Path, Path]) -> None:
        """
        Args:
            roots: of each file the folder below which it was found: the copies lie as they do.
        """
        self.folder, self.existing, self.roots = folder.resolve(), existing, roots
        self._of: dict[Path, Path] = {}

    def _places(self, file: Path) -> tuple[Path, ...]:
        """Where it may lie: under its own name, or as a PNG."""
        within = self.folder / file.relative_to(self.roots[file])
        return (within,) if within.suffix.lower() in _KEEP_THEIR_NAME else (within, within.with_suffix(".png"))

    def _claim(self, place: Path, file: Path) -> None:
        if (other := self._of.setdefault(place, file)) != file:
            raise OutputError(f"{printable(file)} and {printable(other)} would have the same copy")

    def has(self, file: Path) -> bool:
        """
        Raises:
            OutputError: the copy would be the original, or another picture's.
        """
        places = self._places(file)
        if file.resolve() in places:
            raise OutputError(f"the copy of {printable(file)} would be the file itself; give --embed another folder")
        for place in places:
            self._claim(place, file)
        return self.existing != "overwrite" and any(place.exists() for place in places)

    def write(self, row: Row) -> None:
        content = row.file.read_bytes()
        place = self._places(row.file)[0]
        if row.source == "model" and row.prediction is not None:
            about = {"Software": "Reprompt", "Confidence": f"{row.prediction.confidence:.2f}"}
            if row.prediction.familiarity is not None:
                about["Familiarity"] = f"{row.prediction.familiarity:.3f}"
            with opened_image(row.file) as image:
                content, suffix = with_text(content, image, guessed_text(row.prompts[0], about))
            if image.format not in ("PNG", "JPEG"):
                place = place.with_suffix(suffix)
                self._claim(place, row.file)  # its name may have promised another kind
        with replacing(place) as temporary:
            temporary.write_bytes(content)
