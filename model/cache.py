"""Keys and values kept between decoding steps: the image's once per image, the text's once per hypothesis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.masks import text_rows

_FIRST_CAPACITY = 32


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
    """Keys and values of the text tokens: (2, L, N, H, capacity, D) for N hypotheses, filled up to `length`. It grows as they do."""

    def __init__(self, layers: int, rows: int, heads: int, head_dim: int, *, dtype: torch.dtype, device: torch.device) -> None:
        self.buffer = torch.empty(2, layers, rows, heads, _FIRST_CAPACITY, head_dim, dtype=dtype, device=device)
        self.length = 0
        self._spare = self.buffer[:, :, :0]

    @property
    def rows(self) -> int:
        return self.buffer.shape[2]

    @property
    def capacity(self) -> int:
        return self.buffer.shape[4]

    def positions(self, new: int) -> slice:
        """Where the next tokens stand in the text."""
        return slice(self.length, self.length + new)

    def mask(self, image_tokens: int, new: int) -> Tensor | None:
        """(new, image tokens + length + new), what the next tokens may attend to, True = may; None: all there is."""
        return text_rows(image_tokens, self.length, new, self.buffer.device) if new > 1 else None

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store (N, H, T, D) after what layer `layer` holds and return all it holds now: (N, H, length + T, D) each.

        `length` itself moves on with `advance`, once all layers have stored theirs.
        """
        end = self.length + keys.shape[2]
        if end > self.capacity:
            larger = self.buffer.new_empty(*self.buffer.shape[:4], max(end, 2 * self.capacity), self.buffer.shape[5])
            larger[..., : self.length, :] = self.buffer[..., : self.length, :]
            self.buffer = larger
        self.buffer[0, layer, :, :, self.length : end] = keys
        self.buffer[1, layer, :, :, self.length : end] = values
        return self.buffer[0, layer, :, :, :end], self.buffer[1, layer, :, :, :end]

    def advance(self, tokens: int) -> None:
        self.length += tokens

    def select(self, rows: Tensor) -> None:
        """Keep these rows in this order: beams are reordered and finished hypotheses leave.

        They go into the memory of the selection before: to ask the system for more at every step takes longer than to copy.
        """
        if self._spare.shape[4] != self.capacity or self._spare.shape[2] < len(rows):
            self._spare = self.buffer.new_empty(*self.buffer.shape[:2], len(rows), *self.buffer.shape[3:])
        kept = self._spare[:, :, : len(rows)]
        torch.index_select(self.buffer[..., : self.length, :], 2, rows, out=kept[..., : self.length, :])
        self.buffer, self._spare = kept, self.buffer


class StaticCache:
    """As `KVCache`, but of one shape and at one place in memory from the first token to the last, for graphs that are captured once: what is not
    filled yet is masked, and nothing of it is known on the host."""

    def __init__(self, layers: int, rows: int, heads: int, capacity: int, head_dim: int, *, dtype: torch.dtype, device: torch.device) -> None:
        self.buffer = torch.zeros(2, layers, rows, heads, capacity, head_dim, dtype=dtype, device=device)
        self.filled = torch.zeros((), dtype=torch.long, device=device)

    def positions(self, new: int) -> Tensor:
        """(new,)"""
        return self.filled + torch.arange(new, device=self.buffer.device)

    def mask(self, image_tokens: int, new: int) -> Tensor:
        """(new, image tokens + capacity)"""
        text = torch.arange(self.buffer.shape[4], device=self.buffer.device) <= self.positions(new)[:, None]
        return torch.cat([text.new_ones(new, image_tokens), text], dim=1)

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        where = self.positions(keys.shape[2])
        self.buffer[0, layer].index_copy_(2, where, keys)
        self.buffer[1, layer].index_copy_(2, where, values)
        return self.buffer[0, layer], self.buffer[1, layer]

    def advance(self, tokens: int) -> None:
        self.filled.add_(tokens)

    def select(self, rows: Tensor) -> None:
        kept = self.buffer.index_select(2, rows)
        if len(rows) == self.buffer.shape[2]:
            self.buffer.copy_(kept)
        else:  # once: an image becomes its hypotheses
            self.buffer = kept
