"""Keys and values kept between decoding steps: the image's once per image, the text's once per hypothesis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class PrefixCache:
    """Keys and values of the image tokens: for each layer (B, H, P, D), B images. Hypotheses share them."""

    keys: list[Tensor]
    values: list[Tensor]

    def select(self, images: Tensor) -> PrefixCache:
        """Only the images at these indices."""
        return PrefixCache([key[images] for key in self.keys], [value[images] for value in self.values])

    @classmethod
    def join(cls, parts: Sequence[PrefixCache]) -> PrefixCache:
        """The images of all parts, contiguous in memory, as products in every decoding step want them."""
        return cls(
            [torch.cat(keys).contiguous() for keys in zip(*(part.keys for part in parts), strict=True)],
            [torch.cat(values).contiguous() for values in zip(*(part.values for part in parts), strict=True)],
        )


class KVCache:
    """Keys and values of the text tokens: (L, N, H, capacity, D) each, for N hypotheses, filled up to `length`."""

    def __init__(self, layers: int, rows: int, heads: int, capacity: int, head_dim: int, *, dtype: torch.dtype, device: torch.device) -> None:
        self.buffer = torch.empty(2, layers, rows, heads, capacity, head_dim, dtype=dtype, device=device)
        self.length = 0

    @property
    def rows(self) -> int:
        return self.buffer.shape[2]

    @property
    def capacity(self) -> int:
        return self.buffer.shape[4]

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store (N, H, T, D) after what layer `layer` holds and return all it holds now: (N, H, length + T, D) each.

        `length` itself moves on with `advance`, once all layers have stored theirs.
        """
        end = self.length + keys.shape[2]
        if end > self.capacity:
            raise ValueError(f"the cache holds {self.capacity} text tokens; {end} were given")
        self.buffer[0, layer, :, :, self.length : end] = keys
        self.buffer[1, layer, :, :, self.length : end] = values
        return self.buffer[0, layer, :, :, :end], self.buffer[1, layer, :, :, :end]

    def advance(self, tokens: int) -> None:
        self.length += tokens

    def select(self, rows: Tensor) -> None:
        """Keep these rows in this order: beams are reordered and finished hypotheses leave."""
        kept = self.buffer.new_empty(*self.buffer.shape[:2], len(rows), *self.buffer.shape[3:])
        kept[..., : self.length, :] = self.buffer[..., : self.length, :].index_select(2, rows)
        self.buffer = kept
