"""From pictures to prompts. The names are loaded when they are asked for: a command that prints its help needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

__all__ = ["DEFAULT_CHECKPOINT", "Prediction", "PromptInverter"]

DEFAULT_CHECKPOINT = Path(__file__).resolve().parents[1] / "assets" / "mini-inverter"

if TYPE_CHECKING:
    from inference.inverter import Prediction, PromptInverter
else:

    def __getattr__(name: str) -> type:
        if name not in ("Prediction", "PromptInverter"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from inference import inverter

        return getattr(inverter, name)
