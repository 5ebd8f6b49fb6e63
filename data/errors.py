"""Kinds of errors. Each says in a sentence what is the matter and what to do; `kind`, where there is one, is the reason in few words, to count."""

from __future__ import annotations


class MissingExtraError(RuntimeError):
    """A library that is needed is not installed; names the extra that has it."""


class ShardError(ValueError):
    """A data set, shard or archive that cannot be read or gone on with; names the file and the remedy."""


class ShardBusyError(RuntimeError):
    """A shard that another run is writing."""


class DiskFullError(OSError):
    """No space left; what was done before is kept."""

    def __str__(self) -> str:
        return self.strerror or super().__str__()


class TableError(ValueError):
    """A table or list of prompts that cannot be read; names the file, the place and the remedy."""


class ImageError(ValueError):
    """A file that is not a picture we can read; names it and says why."""

    def __init__(self, message: str, kind: str = "damaged image") -> None:
        super().__init__(message)
        self.kind = kind


class PairError(ValueError):
    """A pair that cannot be used; names it and says why."""

    def __init__(self, message: str, kind: str = "unusable pair") -> None:  # a default, since workers hand errors on by their message alone
        super().__init__(message)
        self.kind = kind
