"""What is known of a captioned file."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from inference.parts import Part, PromptParts
from inference.prediction import Prediction

Source = Literal["metadata", "model"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """
    Attributes:
        prompts: as they are handed out, best first.
        source: where the first is from: the file's own metadata, or the model.
        prediction: of the model, where it was asked.
        parts: of the model's prompt.
        metadata: the prompt that the file carries.
        similarity: of it and the model's, where both were asked for.
        note: what one must know before believing the prompt; empty where there is nothing.
        by: which model wrote it and how.
    """

    file: Path
    prompts: tuple[str, ...]
    source: Source
    prediction: Prediction | None = None
    parts: PromptParts | None = None
    metadata: str | None = None
    similarity: float | None = None
    note: str = ""
    by: str = ""

    def as_json(self) -> dict[str, Any]:
        row: dict[str, Any] = {"file": printable(self.file), "prompt": self.prompts[0], "source": self.source}
        if self.prediction is not None:
            said = self.prediction
            row |= {"confidence": round(said.confidence, 4), "familiarity": _rounded(said.familiarity), "score": round(said.score, 4)}
            others = zip(self.prompts[1:], said.alternatives, strict=False)
            row["alternatives"] = [{"prompt": prompt, "confidence": round(one.confidence, 4)} for prompt, one in others]
        if self.parts is not None:
            parts = self.parts
            row |= {"subject": _part(parts.subject), "medium": _part(parts.medium), "modifiers": [_part(one) for one in parts.modifiers]}
        if self.similarity is not None and self.prediction is not None:
            row |= {"metadata": self.metadata, "model_prompt": self.prediction.prompt, "similarity": round(self.similarity, 4)}
        return row | {"note": self.note, "by": self.by}


def one_line(prompt: str) -> str:
    """A prompt with one space where it has any: what ends a line or a column is none of it."""
    return " ".join(prompt.split())


def printable(name: object) -> str:
    """A file's name on one line, in UTF-8: what ends a line, moves the cursor or is no text is written with backslashes."""
    return "".join(one if _is_plain(one) else one.encode("unicode_escape", "surrogatepass").decode() for one in str(name))


def _is_plain(one: str) -> bool:
    """Spaces of all widths too, which some systems write into the names of screenshots."""
    return one.isprintable() or unicodedata.category(one) == "Zs"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _part(part: Part | None) -> dict[str, Any] | None:
    return None if part is None else {"text": part.text, "confidence": round(part.confidence, 4)}
