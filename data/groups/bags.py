"""Bags of words or of pieces of them, compared each with all: products of sparse matrices, texts x words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import MissingExtraError

_COMPARED = 1 << 25  # similarities held in memory at once


def count_matrices(ours: Sequence[Iterable[str]], theirs: Sequence[Iterable[str]]) -> tuple[Any, Any]:
    """How often each word is in each bag: two sparse matrices (N, W) and (M, W), float32, with the same columns.

    Raises:
        MissingExtraError: SciPy is not installed.
    """
    try:
        from scipy.sparse import csr_matrix
    except ImportError as error:
        raise MissingExtraError(f"comparing each with all needs the extra 'pairs' ({error}): pip install -e '.[pairs]'") from error
    numbers: dict[str, int] = {}

    def parts(bags: Sequence[Iterable[str]]) -> tuple[list[int], list[int], list[int]]:
        counts, columns, ends = list[int](), list[int](), [0]
        for bag in bags:
            for word, count in Counter(bag).items():
                counts.append(count)
                columns.append(numbers.setdefault(word, len(numbers)))
            ends.append(len(columns))
        return counts, columns, ends

    both = parts(ours), parts(theirs)
    one, other = (csr_matrix(part, shape=(len(part[2]) - 1, max(1, len(numbers))), dtype=np.float32) for part in both)
    return one, other


def products(one: Any, other: Any) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Rows of `one` @ `other`.T, some at a time: (which, (n, M))."""
    columns = other.T.tocsr()
    step = max(1, min(256, _COMPARED // max(1, other.shape[0])))
    for start in range(0, one.shape[0], step):
        rows = slice(start, min(start + step, one.shape[0]))
        yield rows, np.asarray((one[rows] @ columns).todense())
