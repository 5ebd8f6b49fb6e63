"""From pictures to prompts. The names are loaded when they are asked for: a command that prints its help needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

__all__ = ["DEFAULT_CHECKPOINT", "Prediction", "PromptInverter", "load_inverter"]

DEFAULT_CHECKPOINT = Path(__file__).resolve().parents[1] / "assets" / "mini-inverter"

if TYPE_CHECKING:
    from inference.inverter import Prediction, PromptInverter
    from inference.loading import load_inverter
else:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from inference import inverter, loading

        return getattr(loading if name == "load_inverter" else inverter, name)
