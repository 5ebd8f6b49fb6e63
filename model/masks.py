"""Who may attend to whom: one table for training, prefill and cached decoding."""

from __future__ import annotations

import torch
from torch import Tensor


def attention_mask(kinds: Tensor) -> Tensor:
    """The boolean table of a prefix language model, True = may attend.

    `kinds` is (S,) or (B, S): 0 where a position belongs to the prefix (the image), 1 where it is causal (the text).
    The result is (S, S) or (B, S, S): row i may attend to column j iff `cumsum[j] <= cumsum[i]`. For two image tokens and
    three text tokens, `kinds` = 0 0 1 1 1 gives

        image  1 1 0 0 0      image tokens see the image and no text,
        image  1 1 0 0 0
        text   1 1 1 0 0      a text token sees the image and the text up to itself.
        text   1 1 1 1 0
        text   1 1 1 1 1

    This is the mask of GIT (arXiv 2205.14100, section 3.1) in the form of big_vision's PaliGemma.
    """
    order = kinds.cumsum(dim=-1)
    return order[..., None, :] <= order[..., :, None]


def text_rows(num_image_tokens: int, text_tokens: int, device: torch.device | None = None) -> Tensor:
    """The rows of the table for the text: (text_tokens, num_image_tokens + text_tokens)."""
    kinds = torch.ones(num_image_tokens + text_tokens, dtype=torch.long, device=device)
    kinds[:num_image_tokens] = 0
    return attention_mask(kinds)[num_image_tokens:]
