"""git-base twice: Hugging Face's `GitForCausalLM` and our network with its weights."""

from __future__ import annotations

from typing import Any

import torch

from model import CaptionModel


def build_pair(source: str | None, *, device: torch.device, dtype: torch.dtype, **changes: Any) -> tuple[Any, CaptionModel]:
    """(theirs, ours), in evaluation mode. `source` is a directory or Hub id; None draws random weights of git-base's shape."""
    from transformers import GitConfig, GitForCausalLM

    torch.manual_seed(0)
    if source is None:
        theirs = GitForCausalLM(GitConfig(**changes))
        with torch.no_grad():  # at the usual scale every token is as likely as any other, and rounding decides which is written
            theirs.output.weight.normal_(std=0.2)
    else:
        theirs = GitForCausalLM.from_pretrained(source, dtype=torch.float32, **changes)
    ours = CaptionModel.from_git(theirs.state_dict())
    ours.to(device, dtype).eval()
    return theirs.to(device, dtype).eval(), ours


def pictures(count: int, *, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """(count, 3, 224, 224), smooth as pictures are."""
    coarse = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, (224, 224), mode="bicubic").to(device, dtype)
