"""Prompts longer than the text encoder reads: two that differ in the part it does not see give the same picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from data.text import cleaned
from diffusion.reading import PromptReader
from synthesis.config import LongPrompts

TOO_LONG = "longer than the text encoder reads"  # the kind of what is skipped


@dataclass(frozen=True)
class ReadPrompt:
    """A prompt and what the text encoder makes of it: how many tokens it counts, and whether it reads less than all. `original_prompt` is what it was
    before it was cut."""

    prompt: str
    prompt_tokens: int | None = None
    truncated: bool = False
    original_prompt: str | None = None


def read_by(reader: PromptReader, prompts: Sequence[str], long_prompts: LongPrompts) -> tuple[list[ReadPrompt], list[tuple[str, str]]]:
    """Each prompt as it is to be rendered and kept, and what is skipped: (prompt, kind).

    Args:
        long_prompts: "keep" renders and keeps all of a long prompt, of which the picture shows the beginning; "cut" keeps what is read of it; "skip"
            leaves it out.
    """
    kept, skipped = [], []
    for prompt, tokens in zip(prompts, reader.count(prompts), strict=True):
        if tokens is None or tokens <= reader.limit:
            kept.append(ReadPrompt(prompt, tokens))
        elif long_prompts == "skip":
            skipped.append((prompt, TOO_LONG))
        elif long_prompts == "keep":
            kept.append(ReadPrompt(prompt, tokens, truncated=True))
        else:
            part = cleaned(reader.cut(prompt))
            kept.append(ReadPrompt(part, reader.count([part])[0], original_prompt=prompt) if part else ReadPrompt(prompt, tokens, truncated=True))
    return kept, skipped
