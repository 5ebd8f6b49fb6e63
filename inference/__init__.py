"""From pictures to prompts."""

from inference.inverter import Prediction, PromptInverter

__all__ = ["Prediction", "PromptInverter"]
