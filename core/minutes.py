"""Time in the words of a progress line."""

from __future__ import annotations


def about_minutes(seconds: float) -> str:
    """`130` -> `"about 2 min"`."""
    return "less than 1 min" if seconds < 60 else f"about {seconds / 60:.0f} min"
