"""The decoder: a transformer over [image tokens ; text tokens] with GIT's attention.

Image tokens see only the image, so their rows never depend on the text. The decoder uses that: it runs the image once
(`prefix`) and then any text against the image's keys and values, whole texts in training (`forward`) and texts as they grow in decoding (`step`),
which equals attention over the joined sequence under the table in `model.masks`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from model.cache import KVCache, PrefixCache
from model.config import ModelConfig
from model.dropout import Dropout, dropout
from model.linear import Linear, linear
from model.masks import text_rows


class Decoder(nn.Module):
    """Token and position embeddings, `layers` blocks, and logits through the tied embedding (or a matrix of its own) with a bias."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.position_embedding = nn.Embedding(config.max_text_tokens, config.width)
        self.embedding_norm = nn.LayerNorm(config.width, eps=1e-12) if config.norm == "post" else nn.Identity()
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(config.width, eps=1e-12) if config.norm == "pre" else nn.Identity()
        self.output_weight = None if config.tied_output else nn.Parameter(torch.empty(config.vocab_size, config.width))
        self.output_bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.apply(_initialise)
        if self.output_weight is not None:
            nn.init.normal_(self.output_weight, std=0.02)
        for name, weight in self.blocks.named_parameters():
            if name.endswith(("attention.output.weight", "ffn.2.weight")):
                # GPT-2, section 2.3: keep the residual stream's variance from growing with depth
                nn.init.normal_(weight, std=0.02 / (2 * config.layers) ** 0.5)

    @property
    def layers(self) -> list[Block]:
        return cast(list[Block], list(self.blocks))

    def prefix(self, image_tokens: Tensor) -> PrefixCache:
        """(B, P, K) image tokens -> their keys and values in every layer. The last layer's output is nobody's input."""
        x, prefix = image_tokens, PrefixCache([], [])
        for block in self.layers[:-1]:
            x, key, value = self._run(self._image_layer, block, x)
            prefix.keys.append(key)
            prefix.values.append(value)
        _, key, value = self.layers[-1].project(x)
        prefix.keys.append(key)
        prefix.values.append(value)
        return prefix

    def _image_layer(self, block: Block, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = block.project(x)
        return block.finish(x, attend(query, key, value, None, self._attention_dropout)), key, value

    def forward(self, input_ids: Tensor, prefix: PrefixCache) -> Tensor:
        """(N, T) token ids of whole texts -> (N, T, K) hidden states.

        N is B times the number of texts per image: rows i*n to (i+1)*n - 1 belong to image i of `prefix`.
        """
        new, image_tokens = input_ids.shape[1], prefix.keys[0].shape[2]
        mask = text_rows(image_tokens, new, input_ids.device)
        x = self._embedded(input_ids, slice(0, new))
        for block, key, value in zip(self.layers, prefix.keys, prefix.values, strict=True):
            x = self._run(self._text_layer, block, x, key, value, mask)
        return self.final_norm(x)

    def _text_layer(self, block: Block, x: Tensor, prefix_key: Tensor, prefix_value: Tensor, mask: Tensor) -> Tensor:
        query, key, value = block.project(x)
        return block.finish(x, attend_shared(query, prefix_key, prefix_value, key, value, mask, self._attention_dropout))

    def step(self, input_ids: Tensor, cache: KVCache) -> Tensor:
        """(N, T) token ids after what `cache` holds, whose hypotheses they belong to -> (N, T, K) hidden states; `cache` then holds them too."""
        positions, bias = cache.begin(input_ids.shape[1])
        x = self._embedded(input_ids, positions)
        for i, block in enumerate(self.layers):
            query, key, value = block.project(x)
            x = block.finish(x, attend_cached(query, *cache.append(i, key, value), bias))
        return self.final_norm(x)

    def _embedded(self, input_ids: Tensor, positions: slice | Tensor) -> Tensor:
        if isinstance(positions, slice) and positions.stop > self.config.max_text_tokens:
            raise ValueError(f"{positions.stop} text tokens, but this model knows positions for {self.config.max_text_tokens}")
        x = self.token_embedding(input_ids) + self.position_embedding.weight[positions]
        return cast(Tensor, self.dropout(self.embedding_norm(x)))

    @torch.no_grad()
    def attention_to_image(self, input_ids: Tensor, prefix: PrefixCache) -> Tensor:
        """(N, T) token ids, N images in `prefix` -> (N, T, P), how each text position divides its attention to the image: the mean over
        layers and heads, without what it pays to the text, summing to 1 over the image tokens."""
        steps = input_ids.shape[1]
        x = self.embedding_norm(self.token_embedding(input_ids) + self.position_embedding.weight[:steps])
        image_tokens = prefix.keys[0].shape[2]
        mask = text_rows(image_tokens, steps, input_ids.device)
        found = x.new_zeros(len(input_ids), steps, image_tokens, dtype=torch.float32)
        for block, prefix_key, prefix_value in zip(self.layers, prefix.keys, prefix.values, strict=True):
            query, key, value = block.project(x)
            keys, values = torch.cat([prefix_key, key], 2), torch.cat([prefix_value, value], 2)
            scores = (query * query.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
            weights = scores.masked_fill(~mask, float("-inf")).float().softmax(-1)
            x = block.finish(x, weights.to(values.dtype) @ values)
            found += weights[..., :image_tokens].mean(1)
        return found / found.sum(-1, keepdim=True)

    def _run(self, layer: Callable[..., Any], *arguments: Any) -> Any:
        """One layer; with gradient checkpointing its activations are computed again in the backward pass instead of being kept."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(layer, *arguments, use_reentrant=False)
        return layer(*arguments)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., K) -> (..., V)"""
        weight = self.token_embedding.weight if self.output_weight is None else self.output_weight
        return linear(hidden, weight, self.output_bias)

    @property
    def _attention_dropout(self) -> float:
        return self.config.dropout if self.training else 0.0


class Block(nn.Module):
    """Attention and a feed-forward network, each on a residual branch; LayerNorm before the branch ("pre") or after the sum ("post").

    The two halves of attention are apart, `project` before and `finish` after the mixing, so that the decoder can choose whose keys
    a query meets.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.pre = config.norm == "pre"
        self.attention = Attention(config)
        self.attention_norm = nn.LayerNorm(config.width, eps=1e-12)
        self.ffn = FeedForward(config.width, config.ffn_width)
        self.ffn_norm = nn.LayerNorm(config.width, eps=1e-12)
        self.dropout = Dropout(config.dropout)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, T, K) -> query, key and value, (N, H, T, D) each."""
        return self.attention.project(self.attention_norm(x) if self.pre else x)

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Add what attention found, (N, H, T, D), to x, (N, T, K), and run the feed-forward network."""
        if self.pre:
            x = x + self.dropout(self.attention.join(mixed))
            return x + self.dropout(self.ffn(self.ffn_norm(x)))
        x = self.attention_norm(x + self.dropout(self.attention.join(mixed)))
        return self.ffn_norm(x + self.dropout(self.ffn(x)))


class FeedForward(nn.Sequential):
    """Linear, GELU, linear; the first two at once."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__(Linear(width, inner), nn.GELU(), Linear(inner, width))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self[2](self[0](x, gelu=True)))


class Attention(nn.Module):
    """The projections of multi-head attention."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = Linear(config.width, 3 * config.width)
        self.output = Linear(config.width, config.width)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        qkv = rearrange(self.qkv(x), "n t (three h d) -> three n h t d", three=3, h=self.heads)
        query, key, value = qkv.unbind(0)  # one backward for the three; indexing would fill three tensors of zeros
        return query, key, value

    def join(self, mixed: Tensor) -> Tensor:
        return self.output(rearrange(mixed, "n h t d -> n t (h d)"))


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, drop: float = 0.0) -> Tensor:
    """Scaled dot-product attention: (N, H, T, D) queries on (N, H, S, D) keys; `mask` (T, S), True = may attend."""
    if query.device.type == "cpu" and (query.dtype == torch.bfloat16 or drop > 0):
        # in bfloat16 SDPA's CPU kernel takes half as long again as the two products written out and its backward pass twice as long;
        # in float32 it wins, but knows no dropout
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return dropout(scores.softmax(dim=-1), drop) @ value
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=drop)


def attend_shared(
    query: Tensor, prefix_key: Tensor, prefix_value: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, drop: float = 0.0
) -> Tensor:
    """Attention over an image's keys, shared by its hypotheses, and each hypothesis' own text keys; equal to `attend` over both joined.

    Args:
        query: (N, H, T, D) with N = B * n, the n hypotheses of an image being neighbours.
        prefix_key, prefix_value: (B, H, P, D), not repeated.
        key, value: (N, H, S, D).
        mask: (T, P + S), True = may attend; None: all may.
    """
    images, _, p, d = prefix_key.shape
    hypotheses, t = query.shape[0] // images, query.shape[2]
    if hypotheses == 1:
        return attend(query, torch.cat([prefix_key, key], 2), torch.cat([prefix_value, value], 2), mask, drop)
    # the hypotheses of an image become rows of one product with its keys
    query = query * d**-0.5
    rows = rearrange(query, "(b n) h t d -> b h (n t) d", b=images)
    to_image = rearrange(rows @ prefix_key.transpose(2, 3), "b h (n t) p -> (b n) h t p", t=t)
    scores = torch.cat([to_image, query @ key.transpose(2, 3)], dim=-1)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = dropout(scores.softmax(dim=-1), drop)
    on_image = rearrange(weights[..., :p], "(b n) h t p -> b h (n t) p", b=images)
    from_image = rearrange(on_image @ prefix_value, "b h (n t) d -> (b n) h t d", t=t)
    return from_image + weights[..., p:] @ value


def attend_cached(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """Attention of the hypotheses of an image over all that its cache holds.

    Args:
        query: (N, H, T, D) with N = B * n, the n hypotheses of an image being neighbours.
        keys, values: (B, H, D, S), (B, H, S, D).
        bias: (B, 1, n * T, text tokens), added to the scores of the last of the S.
    """
    rows = rearrange(query * query.shape[-1] ** -0.5, "(b n) h t d -> b h (n t) d", b=len(keys))
    scores = rows @ keys
    scores[..., scores.shape[-1] - bias.shape[-1] :] += bias
    return rearrange(scores.softmax(dim=-1) @ values, "b h (n t) d -> (b n) h t d", t=query.shape[2])


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
