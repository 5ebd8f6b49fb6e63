"""Where prompts come from: a file with one prompt a line, or any iterable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data.splits import prompt_group


class PromptError(ValueError):
    """A prompt source that cannot be used; names the file and the remedy."""


@dataclass(frozen=True, kw_only=True)
class PromptRecord:
    """A prompt to render. `group` decides its split; `slots` are the parts it was made from, where they are known."""

    prompt: str
    group: str
    slots: Mapping[str, str] = field(default_factory=dict)


def read_prompt_file(path: Path) -> list[PromptRecord]:
    """One prompt a line, UTF-8; empty lines are passed over.

    Raises:
        PromptError: no such file, not text, or no prompt in it.
    """
    if not path.is_file():
        raise PromptError(f"the prompt file {path} does not exist")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise PromptError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8 with one prompt a line") from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise PromptError(f"{path} holds no prompt; write one a line")
    return [PromptRecord(prompt=prompt, group=prompt_group(prompt)) for prompt in prompts]
