"""Groups of pairs that must not be divided between splits: prompts of nearly the same words, pictures that look nearly the same.

A group's split is a hash of its name, and its name is that of the first prompt in it. So data that is added later joins groups that are there
or begins new ones, but never moves one. What is near to groups of two splits at once can be in neither, and is left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from data.splits import prompt_group, split_of, words_of

PROMPT_SIMILARITY = 0.8  # of the words, shared by both / in either (Jaccard)
PICTURE_DISTANCE = 12  # of 256 bits: the same picture compressed or resized differs by fewer, another by more
_PERMUTATIONS = 128
_SEARCHED = 0.5  # candidates are looked for from here on, so that of those above PROMPT_SIMILARITY one in 20,000 is missed
_BANDS = 16


class MissingExtraError(RuntimeError):
    """A library that is needed is not installed; names the extra that has it."""


class LeakError(ValueError):
    """A pair that is near to pairs of several splits. `kind` says by what, for counting."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


def picture_hash(image: Image.Image) -> int:
    """256 bits that are nearly the same for pictures that look nearly the same (pHash: the signs of the low frequencies of a DCT)."""
    try:
        import imagehash
    except ImportError as error:
        raise MissingExtraError(f"comparing pictures needs the extra 'pairs' ({error}): pip install -e '.[pairs]'") from error
    return int(str(imagehash.phash(image, hash_size=16)), 16)


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Shared / all; 1 where both are empty."""
    return len(one & other) / len(one | other) if one or other else 1.0


@dataclass
class _Group:
    name: str
    words: frozenset[str] = field(default_factory=frozenset)


class PromptIndex:
    """Prompts by their words, for finding those that share most of them."""

    def __init__(self, similarity: float) -> None:
        try:
            from datasketch import MinHash, MinHashLSH
        except ImportError as error:
            raise MissingExtraError(f"finding near-duplicates needs the extra 'pairs' ({error}): pip install -e '.[pairs]'") from error
        self.similarity = similarity
        self._sketch_of = MinHash
        self._index = MinHashLSH(threshold=_SEARCHED, num_perm=_PERMUTATIONS)
        self._groups: dict[str, _Group] = {}

    def near(self, words: frozenset[str]) -> list[str]:
        """Groups of the prompts at least `similarity` alike."""
        found = [self._groups[key] for key in self._index.query(self._sketch(words))] if words else []
        return [one.name for one in found if jaccard(one.words, words) >= self.similarity]

    def add(self, key: str, group: str, words: frozenset[str]) -> None:
        if key not in self._groups:
            self._groups[key] = _Group(group, words)
            if words:
                self._index.insert(key, self._sketch(words))

    def group(self, key: str) -> str | None:
        return self._groups[key].name if key in self._groups else None

    def _sketch(self, words: Iterable[str]) -> Any:
        sketch = self._sketch_of(num_perm=_PERMUTATIONS)
        sketch.update_batch([word.encode("utf-8", "surrogatepass") for word in words])
        return sketch


class PictureIndex:
    """Picture hashes, for finding those that differ in few bits: of 16 parts of a hash four at least are then equal."""

    def __init__(self, distance: int) -> None:
        if distance >= _BANDS:
            raise ValueError(f"pictures can be compared up to {_BANDS - 1} bits apart, not {distance}")
        self.distance = distance
        self._bands: list[dict[int, list[tuple[int, str]]]] = [defaultdict(list) for _ in range(_BANDS)]

    def near(self, bits: int) -> list[str]:
        """Groups of the pictures at most `distance` bits away."""
        candidates = {one for band, part in zip(self._bands, _parts(bits), strict=True) for one in band.get(part, ())}
        return [group for other, group in candidates if (bits ^ other).bit_count() <= self.distance]

    def add(self, bits: int, group: str) -> None:
        for band, part in zip(self._bands, _parts(bits), strict=True):
            if (bits, group) not in band[part]:
                band[part].append((bits, group))


class Groups:
    """Gives pairs their groups, one after another."""

    def __init__(self, *, prompt_similarity: float = PROMPT_SIMILARITY, picture_distance: int = PICTURE_DISTANCE) -> None:
        self.prompts = PromptIndex(prompt_similarity)
        self.pictures = PictureIndex(picture_distance)

    def group_of(self, prompt: str, picture: int | None = None) -> str:
        """The group of a pair, which is known from now on.

        Raises:
            LeakError: it is near to pairs of several splits; it is not remembered.
        """
        key, words = prompt_group(prompt), words_of(prompt)
        own = self.prompts.group(key)
        near = [own] if own is not None else self.prompts.near(words)
        alike = self.pictures.near(picture) if picture is not None else []
        groups = sorted({*near, *alike})
        if len({split_of(group) for group in near}) > 1:
            raise LeakError("its prompt is near to prompts of several splits", "prompt near two splits")
        if len({split_of(group) for group in groups}) > 1:
            raise LeakError("its picture is near to a picture of another split", "picture near another split")
        group = own or (near or groups or [key])[0]
        self.add(prompt, group, picture)
        return group

    def add(self, prompt: str, group: str, picture: int | None = None) -> None:
        """A pair whose group is settled: of a data set that is there already."""
        self.prompts.add(prompt_group(prompt), group, words_of(prompt))
        if picture is not None:
            self.pictures.add(picture, group)


def _parts(bits: int) -> list[int]:
    return [(bits >> (16 * number)) & 0xFFFF for number in range(_BANDS)]
