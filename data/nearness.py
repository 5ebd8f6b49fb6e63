"""Finding what is nearly the same: prompts by their words, prompts by what they say, pictures by how they look. Each index is asked for the groups
of what is near."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from data.extras import MissingExtraError
from data.splits import words_of

Encode = Callable[[Sequence[str]], NDArray[np.float32]]  # N texts -> (N, D), of length 1

_WORD_BANDS, _ROWS = 25, 5  # of prompts with a similarity of 0.8, (1 - 0.8 ** 5) ** 25, one in 20,000, share no band and are missed
_BANDS = 16  # of a picture's hash
_COMPARED = 1 << 25  # similarities held in memory at once
_ENCODED = 4096  # texts turned into vectors at once
_ROUNDING = 1e-4  # of embeddings: on another machine the same prompts may differ by so much


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


class WordIndex:
    """Prompts by their words, for finding those that share most of them: MinHash finds candidates, counting decides.

    MinHash is datasketch's; the tables of bands are ours, since its own took 11 kB a prompt, which would be 22 GB for two million, and these take 3.
    """

    def __init__(self, similarity: float) -> None:
        try:
            from datasketch import MinHash
        except ImportError as error:
            raise MissingExtraError(f"finding near-duplicates needs the extra 'pairs' ({error}): pip install -e '.[pairs]'") from error
        self.similarity = similarity
        self._empty = MinHash(num_perm=_WORD_BANDS * _ROWS)  # to copy: making one takes longer than filling it
        self._numbers: dict[str, int] = {}  # of the prompts, by their keys
        self._prompts: list[tuple[str, str]] = []  # group, and words
        self._bands: list[dict[int, int | list[int]]] = [{} for _ in range(_WORD_BANDS)]
        self._parts = lru_cache(4096)(self._sketch)  # a prompt is looked for and added at once

    def near(self, words: frozenset[str]) -> list[str]:
        """Groups of the prompts at least `similarity` alike."""
        candidates = set[int]()
        for band, part in zip(self._bands, self._parts(words), strict=True) if words else ():
            found = band.get(part, ())
            candidates.update([found] if isinstance(found, int) else found)
        prompts = (self._prompts[number] for number in sorted(candidates))
        return [group for group, others in prompts if jaccard(frozenset(others.split(" ")), words) >= self.similarity]

    def add(self, key: str, group: str, words: frozenset[str]) -> None:
        if key in self._numbers:
            return
        number = self._numbers[key] = len(self._prompts)
        self._prompts.append((group, " ".join(words)))
        for band, part in zip(self._bands, self._parts(words), strict=True) if words else ():
            found = band.setdefault(part, number)
            if isinstance(found, list):
                found.append(number)
            elif found != number:
                band[part] = [found, number]

    def group(self, key: str) -> str | None:
        return self._prompts[self._numbers[key]][0] if key in self._numbers else None

    def _sketch(self, words: frozenset[str]) -> list[int]:
        """The bands of a MinHash, each as one number."""
        sketch = self._empty.copy()
        sketch.update_batch([word.encode("utf-8", "surrogatepass") for word in words])
        return [hash(rows.tobytes()) for rows in sketch.hashvalues.reshape(_WORD_BANDS, _ROWS)]


class SentenceIndex:
    """Prompts by what they say: cosine similarity of their embeddings, each with all (products of matrices, on a GPU where there is one)."""

    def __init__(self, similarity: float, encode: Encode) -> None:
        self.similarity = similarity - _ROUNDING
        self.encode = encode
        self._device = _device()
        self._blocks: list[tuple[torch.Tensor, NDArray[np.int64]]] = []  # vectors (N, D), and the numbers of their groups (N,)
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []
        self._groups: dict[str, str] = {}  # of every prompt

    def compare(self, prompts: Sequence[str]) -> Comparison:
        """Some prompts with all that are in the index; they may then join it one after another."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._groups]
        vectors = torch.from_numpy(self.encode(new)).to(self._device) if new else torch.empty(0, 0)
        return Comparison(self, new, vectors, self._near(vectors) if new else [])

    def group(self, prompt: str) -> str | None:
        """Of the very same prompt."""
        return self._groups.get(prompt)

    def _near(self, vectors: torch.Tensor) -> list[set[str]]:
        """For each vector the groups of those at least `similarity` alike."""
        found: list[set[str]] = [set() for _ in vectors]
        for block, groups in self._blocks:
            rows, columns = (vectors @ block.T >= self.similarity).nonzero(as_tuple=True)
            pairs = np.unique(rows.cpu().numpy() * len(self._names) + groups[columns.cpu().numpy()])
            for row, number in zip(*divmod(pairs, len(self._names)), strict=True):
                found[row].add(self._names[number])
        return found

    def join(self, prompts: Sequence[str], vectors: torch.Tensor, groups: Sequence[str]) -> None:
        """Take in prompts that are settled."""
        if not prompts:
            return
        self._groups |= dict(zip(prompts, groups, strict=True))
        for group in groups:
            if group not in self._numbers:
                self._numbers[group] = len(self._names)
                self._names.append(group)
        numbers = np.array([self._numbers[group] for group in groups])
        last = self._blocks[-1] if self._blocks else None
        if last is not None and len(last[0]) * len(vectors) < _COMPARED // 2:  # few large products are quicker than many small ones
            self._blocks[-1] = (torch.cat([last[0], vectors]), np.concatenate([last[1], numbers]))
        else:
            self._blocks.append((vectors, numbers))


class Comparison:
    """Prompts that are about to join a `SentenceIndex`, one after another: each is near to those in the index, and to those before it here."""

    def __init__(self, index: SentenceIndex, prompts: Sequence[str], vectors: torch.Tensor, found: list[set[str]]) -> None:
        self._index, self._prompts, self._vectors, self._found = index, prompts, vectors, found
        self._rows = {prompt: row for row, prompt in enumerate(prompts)}
        self._within = (vectors @ vectors.T >= index.similarity).cpu().numpy()
        self._joined: dict[str, str] = {}

    def near(self, prompt: str) -> set[str]:
        """Groups of the prompts that say nearly the same."""
        own = self._index.group(prompt) or self._joined.get(prompt)
        if own is not None:
            return {own}
        row = self._rows[prompt]
        here = [self._joined.get(self._prompts[other]) for other in self._within[row].nonzero()[0]]
        return self._found[row] | {group for group in here if group is not None}

    def add(self, prompt: str, group: str) -> None:
        if prompt in self._rows:
            self._joined.setdefault(prompt, group)

    def close(self) -> None:
        """Hand those that were added to the index."""
        rows = [self._rows[prompt] for prompt in self._joined]
        self._index.join(list(self._joined), self._vectors[rows], list(self._joined.values()))


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


def nearest_by_words(prompts: Sequence[str], known: Sequence[str]) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """The nearest among `known`, exactly, some prompts at a time: (Jaccard similarity of their words, number of the known one).

    The words two prompts share are counted by a product of sparse matrices, prompts x words.
    """
    from scipy.sparse import csr_matrix

    numbers: dict[str, int] = {}

    def matrix(texts: Sequence[str]) -> tuple[Any, NDArray[np.float32]]:
        columns, ends = list[int](), [0]
        for text in texts:
            columns += [numbers.setdefault(word, len(numbers)) for word in words_of(text)]
            ends.append(len(columns))
        return (np.ones(len(columns), dtype=np.float32), columns, ends), np.diff(ends).astype(np.float32)

    (ours, our_sizes), (theirs, their_sizes) = matrix(prompts), matrix(known)
    width = max(1, len(numbers))
    one, other = csr_matrix(ours, shape=(len(prompts), width)), csr_matrix(theirs, shape=(len(known), width)).T.tocsr()
    rows = max(1, min(256, _COMPARED // max(1, len(known))))
    for start in range(0, len(prompts), rows):
        shared = np.asarray((one[start : start + rows] @ other).todense())
        union = our_sizes[start : start + rows, None] + their_sizes[None] - shared
        similarity = np.where(union > 0, shared / np.maximum(union, 1), 1)
        yield similarity.max(1), similarity.argmax(1)


def nearest_by_sentences(prompts: Sequence[str], known: Sequence[str], encode: Encode) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """The same by the cosine similarity of their embeddings."""
    device = _device()
    theirs = torch.from_numpy(np.concatenate([encode(known[start : start + _ENCODED]) for start in range(0, len(known), _ENCODED)])).to(device)
    rows = max(1, min(256, _COMPARED // max(1, len(known))))
    for start in range(0, len(prompts), rows):
        best, where = (torch.from_numpy(encode(prompts[start : start + rows])).to(device) @ theirs.T).max(1)
        yield best.cpu().numpy(), where.cpu().numpy()


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _parts(bits: int) -> list[int]:
    return [(bits >> (16 * number)) & 0xFFFF for number in range(_BANDS)]
