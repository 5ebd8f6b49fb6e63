"""From pictures to prompts. The names are loaded when they are asked for: a command that prints its help needs no torch."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

__all__ = ["DEFAULT_CHECKPOINT", "Decoding", "Prediction", "PromptInverter", "load_inverter"]

DEFAULT_CHECKPOINT = Path(__file__).resolve().parents[1] / "assets" / "mini-inverter"

if TYPE_CHECKING:
    from inference.inverter import PromptInverter
    from inference.loading import load_inverter
    from inference.options import Decoding
    from inference.prediction import Prediction
else:
    _HOMES = {"Decoding": "inference.options", "Prediction": "inference.prediction"}
    _HOMES |= {"PromptInverter": "inference.inverter", "load_inverter": "inference.loading"}

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)
