"""A `PromptInverter`, or what has its methods, as a captioner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from evaluation.captioners import About, Caption


class InverterCaptioner:
    """Its confidence in a text is `Prediction.confidence`."""

    def __init__(self, inverter: Any, source: str, *, num_beams: int = 4, length_penalty: float = 1.0, max_new_tokens: int | None = None) -> None:
        """
        Args:
            inverter: with `predict`, `fingerprint` and the network as `model`.
            source: where it was loaded from.
        """
        self.inverter = inverter
        self.arguments = {"num_beams": num_beams, "length_penalty": length_penalty, "max_new_tokens": max_new_tokens}
        self.about = About(
            source=source,
            fingerprint=inverter.fingerprint(),
            precision=str(inverter.model.dtype).removeprefix("torch."),
            parameters=sum(parameter.numel() for parameter in inverter.model.parameters()),
            settings=self.arguments,
        )

    def caption(self, images: Sequence[Image.Image]) -> list[Caption]:
        found = self.inverter.predict(images, batch_size=len(images), **self.arguments)
        return [Caption(one.prompt, one.confidence) for one in found]
