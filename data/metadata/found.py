"""What a reader of metadata finds, and how it says that it did not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class MetadataError(ValueError):
    """Metadata of a tool that is known, but which cannot be understood; says what is the matter. `kind` is the tool, for counting."""

    def __init__(self, message: str, kind: str = "unknown metadata") -> None:
        super().__init__(message)
        self.kind = kind


class GuessedPromptError(MetadataError):
    """The prompt in the file is a guess that Reprompt wrote into it, and not what made the picture."""

    def __init__(self, message: str, kind: str = "a guess of Reprompt's") -> None:
        super().__init__(message, kind)


@dataclass(frozen=True, kw_only=True)
class ImageMetadata:
    """How an image was made. `parameters` have our names (seed, steps, guidance_scale, sampler, model, width, height) where the tool says
    them; `others` what else it says, under its own names."""

    tool: str
    prompt: str
    negative_prompt: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    others: Mapping[str, Any] = field(default_factory=dict)


class NotOnePictureError(MetadataError):
    """The file shows something else than the picture its metadata tell of: `kind` is "picture of a node graph" or "grid of pictures". `metadata` is
    what was found, for those who want the file all the same, or None where it could not be read."""

    def __init__(self, message: str, kind: str, metadata: ImageMetadata | None) -> None:
        super().__init__(message, kind)
        self.metadata = metadata
