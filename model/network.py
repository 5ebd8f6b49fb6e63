"""`CaptionModel`: image encoder and decoder as one network. How a prediction is made:

picture       --Preprocessing-->   pixel_values (B, 3, H, W)             model/preprocessing.py
pixel_values  --ImageEncoder-->    image tokens (B, P, K)                model/encoder.py: any timm model, Linear + LayerNorm
image tokens  --Decoder.prefix-->  their keys and values, once an image  model/decoder.py, model/cache.py: PrefixCache
begin token   --Decoder.step-->    hidden states (N, T, K)               text sees the image and the text before it: model/masks.py
hidden        --Decoder.logits-->  logits (N, V)                         the tied embedding
logits        --search, sample-->  the next token of each hypothesis     model/decoding.py: greedy, beams, sampling, rules
that token    --Decoder.step-->    one step on, earlier text remembered  model/cache.py: KVCache
tokens        --decode-->          the prompt                            tokenizer/, in inference/inverter.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.cache import STEPS_OF_ROOM, KVCache, PrefixCache, StaticCache
from model.config import ModelConfig
from model.decoder import Decoder
from model.decoding import NotFiniteError, TextRules
from model.empty import build_empty, own_copies
from model.encoder import ImageEncoder
from model.files import CONFIG_FILE, CheckpointError, check_checkpoint, find_checkpoint, read_json, read_preprocessor, read_weights
from model.git import convert_git
from model.hypotheses import NetworkHypotheses
from model.writing import Writer

IGNORED_LABEL = -100
_CPU_PIXELS = 8 * 224 * 224  # of images encoded at a time
_CPU_FEATURES = 8 * 197 * 768  # of which keys and values are made at a time


class CaptionModel(nn.Module, Writer):
    """Writes the text of an image, token by token (GIT, arXiv 2205.14100, section 3.1)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = ImageEncoder(config.encoder, config.preprocessing, config.width)
        self.decoder = Decoder(config)
        self._static_step: Callable[[Tensor, KVCache], Tensor] | None = None
        self._static_cache: StaticCache | None = None

    @classmethod
    def from_git(cls, source: str | Path | Mapping[str, Tensor], *, revision: str | None = None) -> CaptionModel:
        """A network that computes exactly what Hugging Face's `GitForCausalLM` computes, in evaluation mode.

        Args:
            source: a directory written by `GitForCausalLM.save_pretrained`, a Hub id such as "microsoft/git-base", or its state dict (then
                heads, token ids and preprocessing are those of the published GITs).
            revision: of a Hub id: a branch, a tag or a commit.

        Raises:
            CheckpointError: not a GIT, or a broken one; names the file, tensor or setting.
        """
        if isinstance(source, Mapping):
            return cls.from_weights(*convert_git(source, {}, {}), "the state dict")
        directory = find_checkpoint(source, revision=revision)
        check_checkpoint(directory)
        try:
            config, weights = convert_git(read_weights(directory), read_json(directory / CONFIG_FILE), read_preprocessor(directory))
        except ValueError as error:
            raise CheckpointError(f"{directory}: {error}") from error
        except (TypeError, LookupError, AttributeError) as error:
            raise CheckpointError(f"{directory}: a setting of {CONFIG_FILE} or of the image processor is of another kind ({error})") from error
        return cls.from_weights(config, weights, directory)

    @classmethod
    def from_weights(cls, config: ModelConfig, weights: Mapping[str, Tensor], origin: str | Path) -> CaptionModel:
        """A network with these weights, in their precision, in evaluation mode; `origin` is named when they do not fit.

        Raises:
            CheckpointError: a tensor is missing, left over or of another shape than `config` says.
        """
        dtypes = {tensor.dtype for tensor in weights.values() if tensor.is_floating_point()}
        dtype = dtypes.pop() if len(dtypes) == 1 else None
        empty = build_empty(lambda: cls(config))
        try:
            model = empty if empty is not None else cls(config)
            own = own_copies(weights, model, dtype) if empty is not None else weights
        except (ValueError, MemoryError, RuntimeError) as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise CheckpointError(f"{origin}: no network can be built as its {CONFIG_FILE} says: {first}") from error
        try:
            model.load_state_dict(own, assign=empty is not None)
        except RuntimeError as error:  # lists every tensor that does not fit
            first, *more = [line.strip() for line in str(error).splitlines()[1:]]
            others = f" And {len(more)} more." if more else ""
            raise CheckpointError(f"{origin} does not fit its {CONFIG_FILE}: {first}{others}") from error
        if dtype is not None:
            model.to(dtype)
        return model.eval()

    def with_weights(self, weights: Mapping[str, Tensor]) -> CaptionModel:
        """Another network of the same shape with these weights, in evaluation mode."""
        return CaptionModel.from_weights(self.config, weights, "the gathered weights")

    @property
    def num_image_tokens(self) -> int:
        return self.encoder.num_image_tokens

    def enable_gradient_checkpointing(self) -> None:
        """Train in less memory and more time: activations are computed again in the backward pass. The encoder takes part where timm
        offers it for its architecture, the decoder always."""
        self.decoder.gradient_checkpointing = True
        if hasattr(self.encoder.backbone, "set_grad_checkpointing"):
            self.encoder.backbone.set_grad_checkpointing(True)

    @property
    def device(self) -> torch.device:
        return self.decoder.output_bias.device

    @property
    def dtype(self) -> torch.dtype:
        return self.decoder.output_bias.dtype

    def forward(self, pixel_values: Tensor, input_ids: Tensor) -> Tensor:
        """(B, 3, H, W), (B, T) -> logits (B, T, V), text positions only. Padding stands at the right of `input_ids`."""
        return self.decoder.logits(self.decoder(input_ids, self.decoder.prefix(self.encoder(pixel_values))))

    def loss(self, pixel_values: Tensor, input_ids: Tensor, labels: Tensor) -> Tensor:
        """Mean cross entropy over the labels that are not -100, with label smoothing. `labels` (B, T) are already shifted.

        Label smoothing is 0.1 in training (GIT, section 3.2) and none in evaluation.
        """
        return self.summed_loss(pixel_values, input_ids, labels) / (labels != IGNORED_LABEL).sum().clamp(min=1)

    def summed_loss(self, pixel_values: Tensor, input_ids: Tensor, labels: Tensor, pictures: Tensor | None = None) -> Tensor:
        """As `loss`, but the sum: what gradient accumulation and several processes divide by the step's total token count.

        Args:
            pictures: (B,), which of the images each text belongs to; None where there is one for each, in order. Image tokens see no text, so that
                the texts of one image share all that is computed of it.
        """
        return self.summed_loss_on(self.encoder(pixel_values), input_ids, labels, pictures)

    def summed_loss_on(self, image_tokens: Tensor, input_ids: Tensor, labels: Tensor, pictures: Tensor | None = None) -> Tensor:
        """As `summed_loss`, where the encoder has done its part: (images, P, K) image tokens."""
        prefix = self.decoder.prefix(image_tokens)
        hidden = self.decoder(input_ids, prefix if pictures is None else prefix.select(pictures))
        # of padding too: which positions have a label is not known without waiting for the device, and compiles to no one graph
        logits = self.decoder.logits(hidden.flatten(0, 1)).float()
        smoothing = self.config.label_smoothing if self.training else 0.0
        return F.cross_entropy(logits, labels.flatten(), ignore_index=IGNORED_LABEL, label_smoothing=smoothing, reduction="sum")

    @torch.no_grad()
    def log_likelihood_on(self, prefix: PrefixCache, input_ids: Tensor, labels: Tensor) -> Tensor:
        """The log-probability of each text, (N,), natural log, without label smoothing.

        Args:
            prefix: `decoder.prefix` of B images; the N texts are N / B for each, neighbours.
            input_ids, labels: (N, T), as in `loss`.

        Raises:
            NotFiniteError: the network computed no numbers; names the likely cause.
        """
        hidden = self.decoder(input_ids, prefix)
        labelled = labels != IGNORED_LABEL
        logits = self.decoder.logits(hidden[labelled])
        each = -F.cross_entropy(logits.float(), labels[labelled], reduction="none")
        rows = labelled.nonzero()[:, 0]
        self.check_finite(logits.float().sum())
        return torch.zeros(len(labels), device=each.device).index_add_(0, rows, each)

    @torch.no_grad()
    def attention_maps(self, pixel_values: Tensor, input_ids: Tensor) -> Tensor | None:
        """(B, 3, H, W), (B, T) -> (B, T, rows, columns): where in the picture each text position looks, summing to 1 over the picture; None where
        the encoder's tokens do not stand for places (`ImageEncoder.grid`)."""
        if self.encoder.grid is None:
            return None
        rows, columns = self.encoder.grid
        maps = self.decoder.attention_to_image(input_ids, self.decoder.prefix(self.encoder(pixel_values)))[..., -rows * columns :]
        return (maps / maps.sum(-1, keepdim=True)).unflatten(-1, (rows, columns))

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
    def encode(self, pixel_values: Tensor) -> Tensor:
        """What the timm model makes of images: (B, P, width of the features), or (B, F, P, width of the features) where `pixel_values` is
        (B, F, 3, H, W), F images of one prompt. What `search_on` and `sample_on` take, and any measure of the pictures.

        Raises:
            ValueError: no images.
        """
        if len(pixel_values) == 0:
            raise ValueError("pixel_values holds no images")
        # on a CPU a few images at a time: what lies between their layers then stays in its cache
        at_a_time = max(1, _CPU_PIXELS // pixel_values[0, 0].numel())
        parts = pixel_values.split(at_a_time) if pixel_values.device.type == "cpu" else [pixel_values]
        return torch.cat([self.encoder.features(part) for part in parts])

    @property
    def _texts_leave(self) -> bool:
        return self._static_step is None

    def compile_decoding(self, **options: Any) -> None:
        """From now on write text in steps that all have the same shape and wait for nothing, each compiled as a whole (torch.compile), on a GPU into
        a CUDA graph. It pays where the time between kernels is more than that in them: on GPUs, with few hypotheses.

        Finished texts then stay in their batch, and the memory for a text's keys and values is taken for the longest one that `max_new_tokens`
        allows, and kept: one search at a time. Other numbers of images, beams or tokens compile anew, up to eight times; what comes then runs
        uncompiled.

        Args:
            options: of torch.compile; without any, mode="reduce-overhead".
        """
        self._static_step = torch.compile(self._next_token, dynamic=False, **(options or {"mode": "reduce-overhead"}))

    def _next_token(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """(N, T) tokens after what `cache` holds -> the log-probabilities of the next, (N, V)."""
        return self.decoder.logits(self.decoder.step(tokens, cache)[:, -1]).float().log_softmax(dim=-1)

    @contextmanager
    def _start(self, features: Tensor, rules: TextRules, hypotheses: int) -> Iterator[NetworkHypotheses]:
        """The images and no text.

        Args:
            hypotheses: how many there will be of each image.

        Raises:
            NotFiniteError: at the end, instead of whatever else came of it.
        """
        at_a_time = max(1, _CPU_FEATURES // features[0].numel())
        parts = features.split(at_a_time) if features.device.type == "cpu" else [features]
        images = [self.decoder.prefix(self.encoder.project(part)) for part in parts]
        steps = rules.max_new_tokens - 1  # the last token is not read
        cache: KVCache
        if self._static_step is None:
            cache = KVCache(images, len(rules.start) + hypotheses * min(steps, STEPS_OF_ROOM))
        else:
            cache = self._static(images, len(rules.start) + hypotheses * steps)
        state = NetworkHypotheses(cache, self._next_token, self._static_step or self._next_token)
        try:
            yield state
        finally:
            self.check_finite(state.sums)

    def _static(self, images: Sequence[PrefixCache], room: int) -> StaticCache:
        if self._static_cache is not None and self._static_cache.fits(images, room):
            self._static_cache.begin_again(images)
        else:
            self._static_cache = StaticCache(images, room)
        return self._static_cache

    def check_finite(self, numbers: Tensor) -> None:
        """
        Raises:
            NotFiniteError: what this network computed holds something else than numbers; says what is likely the cause.
        """
        if bool(numbers.isfinite().all()):
            return
        broken = next((name for name, tensor in self.state_dict().items() if tensor.is_floating_point() and not bool(tensor.isfinite().all())), None)
        if broken is not None:
            cause = f"its weights are damaged ({broken} holds some); take another checkpoint"
        elif self.dtype == torch.float16:
            cause = "float16 ends at 65504; take bfloat16 or float32 (--dtype)"
        else:
            cause = "the pixels hold some, or weights are too large"
        raise NotFiniteError(f"the network computed NaN or infinity instead of probabilities: {cause}")
