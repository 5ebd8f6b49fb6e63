"""`CaptionModel`: image encoder and decoder as one network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.cache import KVCache, PrefixCache
from model.config import ModelConfig
from model.decoder import Decoder
from model.decoding import Hypothesis, beam_search, greedy_search
from model.encoder import ImageEncoder
from model.files import CONFIG_FILE, CheckpointError, check_checkpoint, find_checkpoint, read_json, read_preprocessor, read_weights
from model.git import convert_git

IGNORED_LABEL = -100


class CaptionModel(nn.Module):
    """Writes the text of an image, token by token (GIT, arXiv 2205.14100, section 3.1)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = ImageEncoder(config.encoder, config.preprocessing, config.width)
        self.decoder = Decoder(config)

    @classmethod
    def from_git(cls, source: str | Path | Mapping[str, Tensor]) -> CaptionModel:
        """A network that computes exactly what Hugging Face's `GitForCausalLM` computes, in evaluation mode.

        Args:
            source: a directory written by `GitForCausalLM.save_pretrained`, a Hub id such as "microsoft/git-base", or its state dict (then
                heads, token ids and preprocessing are those of the published GITs).

        Raises:
            CheckpointError: not a GIT, or a broken one; names the file, tensor or setting.
        """
        if isinstance(source, Mapping):
            return cls.from_weights(*convert_git(source, {}, {}), "the state dict")
        directory = find_checkpoint(source)
        check_checkpoint(directory)
        try:
            config, weights = convert_git(read_weights(directory), read_json(directory / CONFIG_FILE), read_preprocessor(directory))
        except ValueError as error:
            raise CheckpointError(f"{directory}: {error}") from error
        return cls.from_weights(config, weights, directory)

    @classmethod
    def from_weights(cls, config: ModelConfig, weights: Mapping[str, Tensor], origin: str | Path) -> CaptionModel:
        """A network with these weights, in their precision, in evaluation mode; `origin` is named when they do not fit.

        Raises:
            CheckpointError: a tensor is missing, left over or of another shape than `config` says.
        """
        model = cls(config)
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:  # lists every tensor that does not fit
            first, *more = [line.strip() for line in str(error).splitlines()[1:]]
            others = f" And {len(more)} more." if more else ""
            raise CheckpointError(f"{origin} does not fit its {CONFIG_FILE}: {first}{others}") from error
        dtypes = {tensor.dtype for tensor in weights.values() if tensor.is_floating_point()}
        if len(dtypes) == 1:
            model.to(dtypes.pop())
        return model.eval()

    @property
    def num_image_tokens(self) -> int:
        return self.encoder.num_image_tokens

    def forward(self, pixel_values: Tensor, input_ids: Tensor) -> Tensor:
        """(B, 3, H, W), (B, T) -> logits (B, T, V), text positions only. Padding stands at the right of `input_ids`."""
        return self.decoder.logits(self._hidden(pixel_values, input_ids))

    def loss(self, pixel_values: Tensor, input_ids: Tensor, labels: Tensor) -> Tensor:
        """Mean cross entropy over the labels that are not -100, with label smoothing. `labels` (B, T) are already shifted.

        Label smoothing is 0.1 in training (GIT, section 3.2) and none in evaluation. Logits are computed only where there is a label.
        """
        return self.summed_loss(pixel_values, input_ids, labels) / (labels != IGNORED_LABEL).sum().clamp(min=1)

    def summed_loss(self, pixel_values: Tensor, input_ids: Tensor, labels: Tensor) -> Tensor:
        """As `loss`, but the sum: what gradient accumulation and several processes divide by the step's total token count."""
        hidden = self._hidden(pixel_values, input_ids)
        labelled = labels != IGNORED_LABEL
        logits = self.decoder.logits(hidden[labelled])
        smoothing = self.config.label_smoothing if self.training else 0.0
        return F.cross_entropy(logits.float(), labels[labelled], label_smoothing=smoothing, reduction="sum")

    def _hidden(self, pixel_values: Tensor, input_ids: Tensor) -> Tensor:
        hidden: Tensor = self.decoder(input_ids, self.decoder.prefix(self.encoder(pixel_values)))
        return hidden

    def generate(
        self, pixel_values: Tensor, *, num_beams: int = 4, max_new_tokens: int | None = None, length_penalty: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """The best text of each image.

        Returns:
            tokens (B, L): without the begin token, filled up with the pad token after the end token.
            scores (B,): the mean log-probability of each text's tokens.
        """
        best = [texts[0] for texts in self.search(pixel_values, num_beams=num_beams, max_new_tokens=max_new_tokens, length_penalty=length_penalty)]
        longest = max(len(text.tokens) for text in best)
        pad = self.config.pad_token_id
        rows = [list(text.tokens) + [pad] * (longest - len(text.tokens)) for text in best]
        return torch.tensor(rows, device=pixel_values.device), torch.tensor([text.score for text in best], device=pixel_values.device)

    @torch.inference_mode()
    def search(
        self,
        pixel_values: Tensor,
        *,
        num_beams: int = 4,
        num_return: int = 1,
        max_new_tokens: int | None = None,
        length_penalty: float = 1.0,
    ) -> list[list[Hypothesis]]:
        """For each image its `num_return` best texts, best first; `num_beams=1` is greedy search.

        Raises:
            ValueError: no images, or numbers that do not fit together; names the argument.
        """
        limit = self.config.max_text_tokens if max_new_tokens is None else max_new_tokens
        if len(pixel_values) == 0:
            raise ValueError("pixel_values holds no images")
        if not 1 <= num_beams <= self.config.vocab_size:
            raise ValueError(f"num_beams must be 1 to the vocabulary size ({self.config.vocab_size}), not {num_beams}")
        if not 1 <= num_return <= num_beams:
            raise ValueError(f"num_return must be 1 to num_beams ({num_beams}), not {num_return}")
        if not 1 <= limit <= self.config.max_text_tokens:
            raise ValueError(f"max_new_tokens must be 1 to {self.config.max_text_tokens} (the positions of this model), not {limit}")
        prefix = self.decoder.prefix(self.encoder(pixel_values))
        state = _NetworkHypotheses(self.decoder, prefix, capacity=limit)
        bos, eos, device = self.config.bos_token_id, self.config.eos_token_id, pixel_values.device
        if num_beams == 1:
            found = greedy_search(state, len(pixel_values), bos=bos, eos=eos, max_new_tokens=limit, device=device)
            return [[text] for text in found]
        return beam_search(
            state,
            len(pixel_values),
            num_beams=num_beams,
            num_return=num_return,
            bos=bos,
            eos=eos,
            max_new_tokens=limit,
            length_penalty=length_penalty,
            device=device,
        )


class _NetworkHypotheses:
    """`decoding.Hypotheses` on the decoder: the image's keys and values once per image, the text's once per hypothesis."""

    def __init__(self, decoder: Decoder, prefix: PrefixCache, capacity: int) -> None:
        layers, images, heads, _, head_dim = prefix.keys.shape
        self.decoder = decoder
        self.prefix = prefix
        self.cache = KVCache(layers, images, heads, capacity, head_dim, dtype=prefix.keys.dtype, device=prefix.keys.device)

    def step(self, tokens: Tensor) -> Tensor:
        hidden = self.decoder(tokens[:, None], self.prefix, self.cache)
        return self.decoder.logits(hidden[:, 0]).float().log_softmax(dim=-1)

    def select(self, rows: Tensor, images: Tensor | None) -> None:
        self.cache.select(rows)
        if images is not None:
            self.prefix = self.prefix.select(images)
