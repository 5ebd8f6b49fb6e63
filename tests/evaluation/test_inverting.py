from types import SimpleNamespace

import torch
from PIL import Image

from evaluation.inverting import InverterCaptioner


class Told:
    """An inverter that writes what it is told, and what it was asked with."""

    def __init__(self, *written: tuple[str, float]) -> None:
        self.written = written
        self.model = torch.nn.Linear(3, 2).to(torch.bfloat16)
        self.model.dtype = torch.bfloat16  # type: ignore[assignment]
        self.asked: dict = {}

    def fingerprint(self) -> str:
        return "known"

    def predict(self, images: list[Image.Image], **how: object) -> list[SimpleNamespace]:
        self.asked = how
        return [SimpleNamespace(prompt=text, confidence=sure) for text, sure in self.written]


def test_its_confidence_is_that_of_the_prediction() -> None:
    told = Told(("a cat", 0.25), ("", 1.0))
    found = InverterCaptioner(told, "there").caption([Image.new("RGB", (4, 4))] * 2)
    assert [(one.text, one.confidence) for one in found] == [("a cat", 0.25), ("", 1.0)]


def test_it_says_what_it_is_and_searches_as_it_is_told() -> None:
    told = Told(("a", 0.5))
    captioner = InverterCaptioner(told, "there", num_beams=2, length_penalty=0.5, max_new_tokens=9)
    assert (captioner.about.source, captioner.about.fingerprint, captioner.about.precision) == ("there", "known", "bfloat16")
    assert captioner.about.parameters == 8
    captioner.caption([Image.new("RGB", (4, 4))])
    search = {"num_beams": 2, "length_penalty": 0.5, "max_new_tokens": 9}
    assert told.asked == search | {"batch_size": 1}
    assert captioner.about.settings == search
