"""Libraries that only some commands need."""


class MissingExtraError(RuntimeError):
    """A library that is needed is not installed; names the extra that has it."""
