"""Keys and values kept between decoding steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

STEPS_OF_ROOM = 8  # by which memory grows


@dataclass
class PrefixCache:
    """Keys and values of the image tokens: for each layer (B, H, P, D), B images. Hypotheses share them."""

    keys: list[Tensor]
    values: list[Tensor]

    def select(self, images: Tensor) -> PrefixCache:
        """Only the images at these indices."""
        return PrefixCache([key[images] for key in self.keys], [value[images] for value in self.values])


class KVCache:
    """Keys (L, B, H, D, S) and values (L, B, H, S, D) of B images: each image's tokens, then those that its hypotheses have written, step by step, n
    in a step, and room for more, which grows.

    A hypothesis sees the image and its own line: `seen` (B, n, S - image tokens), True = does. When beams are reordered that table alone is, and the
    hypotheses of an image are rows of one product with all its keys: tree attention (SpecInfer, arXiv 2305.09781, section 4.2), for beams. Keys
    stand as their product with a query wants them, and it takes the empty places along: what is contiguous need not be copied.
    """

    def __init__(self, parts: Sequence[PrefixCache], room: int = STEPS_OF_ROOM) -> None:
        """
        Args:
            parts: the images, one group after the other.
            room: for text tokens of an image, at first.
        """
        _, heads, self.image_tokens, head_dim = parts[0].keys[0].shape
        layers, images = len(parts[0].keys), sum(len(part.keys[0]) for part in parts)
        self.keys = parts[0].keys[0].new_empty(layers, images, heads, head_dim, self.image_tokens + room)
        self.values = self.keys.new_empty(layers, images, heads, self.image_tokens + room, head_dim)
        self.seen = torch.zeros(images, 1, room, dtype=torch.bool, device=self.keys.device)
        self.length, self.filled = 0, 0  # tokens of a text, text tokens of an image
        self._fill(parts)

    def _fill(self, parts: Sequence[PrefixCache]) -> None:
        first = 0
        for part in parts:
            images = slice(first, first + len(part.keys[0]))
            for layer, (keys, values) in enumerate(zip(part.keys, part.values, strict=True)):
                self.keys[layer, images, ..., : self.image_tokens] = keys.transpose(2, 3)
                self.values[layer, images, :, : self.image_tokens] = values
            first = images.stop
        self.keys[..., self.image_tokens :] = 0  # what is masked counts nothing, but must be a number
        self.values[..., self.image_tokens :, :] = 0

    def begin(self, new: int) -> tuple[slice | Tensor, Tensor]:
        """To be called before the `new` next tokens of each hypothesis are stored: where they stand in the text, and what is added to their scores on
        the text tokens, (B, 1, n * new, S - image tokens): minus infinity where they may not look."""
        _, hypotheses, room = self.seen.shape
        positions, places = slice(self.length, self.length + new), slice(self.filled, self.filled + hypotheses * new)
        self.length, self.filled = positions.stop, places.stop
        if places.stop > room:
            self._grow(max(places.stop - room + (STEPS_OF_ROOM - 1) * hypotheses, self.keys.shape[4] // 8))
        rows = self.seen.repeat_interleave(new, 1)
        rows[:, :, places] = _own_line(hypotheses, new, rows.device)
        self.seen = rows[:, new - 1 :: new]
        return positions, _bias(rows, self.keys.dtype)

    def _grow(self, more: int) -> None:
        self.keys = torch.cat([self.keys, self.keys.new_zeros(*self.keys.shape[:4], more)], dim=4)
        self.values = torch.cat([self.values, self.values.new_zeros(*self.values.shape[:3], more, self.values.shape[4])], dim=3)
        self.seen = F.pad(self.seen, (0, more))

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store what `begin` made room for, (N, H, T, D), and return all that the layer holds now: (B, H, D, S) and (B, H, S, D)."""
        keys = rearrange(keys, "(b n) h t d -> b h d (n t)", b=len(self.seen))
        values = rearrange(values, "(b n) h t d -> b h (n t) d", b=len(self.seen))
        self._store(self.keys[layer], self.values[layer], keys, values)
        return self.keys[layer], self.values[layer]

    def _store(self, all_keys: Tensor, all_values: Tensor, keys: Tensor, values: Tensor) -> None:
        last = self.image_tokens + self.filled
        all_keys[..., last - keys.shape[3] : last] = keys
        all_values[:, :, last - keys.shape[3] : last] = values

    def select(self, rows: Tensor, images: Tensor | None = None) -> None:
        """Keep these hypotheses in this order, as many of each image; `images` are the indices of the images that stay, None if all do."""
        if images is not None:
            self.keys, self.values = self.keys.index_select(1, images), self.values.index_select(1, images)
        self.seen = self.seen.flatten(0, 1)[rows].unflatten(0, (self.keys.shape[1], -1))


class StaticCache(KVCache):
    """As `KVCache`, but of one shape and at one place in memory from the first token to the last, for graphs that are captured once; nothing of what
    is filled is known on the host. Images stay to the end."""

    def __init__(self, parts: Sequence[PrefixCache], room: int) -> None:
        super().__init__(parts, room)
        self._at_first = self._later = self.seen
        self._counts = torch.zeros(2, dtype=torch.long, device=self.keys.device)  # text tokens of an image, of a text
        for tensor in (self.keys, self.values, self._at_first, self._counts):
            torch._dynamo.mark_static_address(tensor)  # else CUDA graphs are not captured, since steps change them

    def fits(self, parts: Sequence[PrefixCache], room: int) -> bool:
        """Whether these images could take the place of those that are in it."""
        images, keys = sum(len(part.keys[0]) for part in parts), parts[0].keys[0]
        mine = (self.keys.shape[1], self.image_tokens, self._at_first.shape[2], self.keys.dtype, self.keys.device)
        return mine == (images, keys.shape[2], room, keys.dtype, keys.device)

    def begin_again(self, parts: Sequence[PrefixCache]) -> None:
        """With other images and no text."""
        self._fill(parts)
        self.seen = self._at_first
        self._at_first.zero_()
        self._counts.zero_()

    def begin(self, new: int) -> tuple[Tensor, Tensor]:
        images, hypotheses, _ = self.seen.shape
        positions = self._counts[1] + torch.arange(new, device=self.seen.device)
        self._counts.add_(torch.tensor([hypotheses * new, new], device=self.seen.device))
        own = _own_line(hypotheses, new, self.seen.device).expand(images, -1, -1)
        rows = self.seen.repeat_interleave(new, 1).index_copy(2, self._places(hypotheses * new), own)
        self.seen.copy_(rows[:, new - 1 :: new])
        return positions, _bias(rows, self.keys.dtype)

    def _places(self, new: int) -> Tensor:
        """Among the text tokens, of the last `new` that `begin` made room for."""
        return self._counts[0] - new + torch.arange(new, device=self.seen.device)

    def _store(self, all_keys: Tensor, all_values: Tensor, keys: Tensor, values: Tensor) -> None:
        places = self.image_tokens + self._places(keys.shape[3])
        all_keys.index_copy_(3, places, keys)
        all_values.index_copy_(2, places, values)

    def select(self, rows: Tensor, images: Tensor | None = None) -> None:
        if images is not None:
            raise ValueError("images stay to the end where every step has the same shape")
        kept = self.seen.flatten(0, 1)[rows].unflatten(0, (len(self.seen), -1))
        if kept.shape != self._later.shape:  # an image has become its hypotheses
            self._later = kept
            torch._dynamo.mark_static_address(self._later)
        self.seen = self._later.copy_(kept)


def _own_line(hypotheses: int, new: int, device: torch.device) -> Tensor:
    """(n * new, n * new): the new tokens of a hypothesis see those before them, and none of the others'."""
    return torch.kron(torch.eye(hypotheses, device=device), torch.ones(new, new, device=device).tril()).bool()


def _bias(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, n * T, text tokens), True = sees -> (B, 1, n * T, text tokens), 0 or minus infinity."""
    return torch.zeros(rows.shape, dtype=dtype, device=rows.device).masked_fill(~rows, float("-inf"))[:, None]
