"""Texts of pictures by a network of transformers, as its documentation has it: processor, generate, batch_decode."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from model import NotFiniteError
from model.confidence import CERTAINTY, Confidence
from model.fingerprint import add_weights
from peers.files import Kind, load_peer
from tokenizer import added_texts


@dataclass(frozen=True)
class Written:
    """A text with the log-probability of each of its tokens, natural log, the end token counted, and what each adds to it."""

    text: str
    log_probs: tuple[float, ...]
    pieces: tuple[str, ...]

    @property
    def log_prob(self) -> float:
        return sum(self.log_probs)

    @property
    def score(self) -> float:
        return self.log_prob / max(1, len(self.log_probs))


class PeerCaptioner:
    """BLIP, BLIP-2 or GIT with its processor."""

    def __init__(self, network: Any, processor: Any, device: torch.device | str = "cpu") -> None:
        self.network = network.eval().to(device)
        self.processor = processor
        self.device = torch.device(device)

    @classmethod
    def load(cls, kind: Kind, source: str, device: torch.device | str = "cpu") -> PeerCaptioner:
        """
        Raises:
            CheckpointError, MissingExtraError: as `peers.files.load_peer`.
        """
        return cls(*load_peer(kind, source), device)

    def fingerprint(self) -> str:
        """By which the network, its tokenizer and its preprocessing are known again."""
        digest = hashlib.sha256(self.network.config.to_json_string(use_diff=True).encode())
        add_weights(digest, self.network)
        digest.update(self.processor.tokenizer.backend_tokenizer.to_str().encode())
        digest.update(self.processor.image_processor.to_json_string().encode())
        return digest.hexdigest()[:16]

    @torch.inference_mode()
    def encode(self, images: Sequence[Image.Image]) -> Tensor:
        """What the image encoder makes of pictures: (N, P, width)."""
        return image_encoder(self.network)(pixel_values=self._pixels(images)).last_hidden_state

    @property
    def confidence(self) -> Confidence:
        """How sure it may be, as `inference.certainty` has kept it in its config.json; of a network that says nothing, its probabilities."""
        about = getattr(self.network.config, CERTAINTY, {})
        text = self.network.config.get_text_config()
        scale = about.get("scale")
        return Confidence(
            label_smoothing=about.get("label_smoothing", 0.0), vocab_size=text.vocab_size, scale=None if scale is None else tuple(scale)
        )

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self.processor.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _pixels(self, images: Sequence[Image.Image]) -> Tensor:
        return self.processor(images=list(images), return_tensors="pt").pixel_values.to(self.device, self.network.dtype)

    @torch.inference_mode()
    def write(self, images: Sequence[Image.Image], **arguments: Any) -> list[list[Written]]:
        """For each image its texts, best first.

        Args:
            arguments: of transformers' `generate`: num_beams, num_return_sequences, max_new_tokens, length_penalty and so on.

        Raises:
            NotFiniteError: the network computed no numbers, of which transformers makes a text all the same.
        """
        sequences, log_probs, lengths = generate(self.network, self._pixels(images), **arguments)
        if bool(log_probs.isnan().any()):
            raise NotFiniteError("the network computed no numbers: its weights are damaged, or too large for its precision")
        texts = [text.strip() for text in self.processor.batch_decode(sequences, skip_special_tokens=True)]
        each = len(texts) // len(images)
        tokens = sequences[:, -log_probs.shape[1] :].tolist()
        rows = zip(texts, tokens, log_probs.tolist(), lengths.tolist(), strict=True)
        written = [Written(text, tuple(row[:length]), tuple(added_texts(self._decode, own[:length]))) for text, own, row, length in rows]
        return [written[first : first + each] for first in range(0, len(written), each)]


def image_encoder(network: Any) -> Any:
    """The part that sees."""
    return getattr(network, "vision_model", None) or network.git.image_encoder


def generate(network: Any, pixel_values: Tensor, **arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """`network.generate`: its tokens, (N, L), the log-probability of each that was written, (N, T), zero after a text's end, and how many are each
    text's own, (N,). The log-probabilities are the network's own, whatever temperature or constraint the tokens were chosen under. No text is longer
    than the network has positions for."""
    positions = getattr(network.config.get_text_config(), "max_position_embeddings", None)
    if positions is not None and "max_new_tokens" in arguments:
        arguments["max_new_tokens"] = min(arguments["max_new_tokens"], positions)
    found = network.generate(pixel_values=pixel_values, return_dict_in_generate=True, output_logits=True, **arguments)
    # BLIP generates by its text decoder, which alone knows how
    writer = getattr(network, "text_decoder", None) or getattr(network, "language_model", None) or network
    beams = getattr(found, "beam_indices", None)
    each = writer.compute_transition_scores(found.sequences, found.logits, beams, normalize_logits=True)
    written = found.sequences[:, -each.shape[1] :]
    counts = _written(written, writer)
    each = torch.where(counts, each, 0.0)
    return found.sequences, each, counts.sum(1).clamp(min=1)


def _written(tokens: Tensor, writer: Any) -> Tensor:
    """Which of the tokens, (N, L), belong to their texts: all up to the end token."""
    config = writer.config
    ends = getattr(config, "sep_token_id", None) or config.eos_token_id
    is_end = torch.isin(tokens, torch.tensor(ends, device=tokens.device).reshape(-1))
    return is_end.cumsum(1) - is_end.long() == 0
