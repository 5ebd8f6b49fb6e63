"""BLIP and GIT as the training loop takes a network: the summed loss of a batch, greedy texts, encoder and decoder apart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model import IGNORED_LABEL, Preprocessing
from model.git import read_preprocessing
from peers.captioner import generate
from peers.files import Kind, save_peer


@dataclass(frozen=True, kw_only=True)
class PeerConfig:
    """What the loop asks of a network of transformers. `settings` are its own config.json."""

    kind: Kind
    preprocessing: Preprocessing
    vocab_size: int
    bos_token_id: int
    eos_token_id: int
    pad_token_id: int
    max_text_tokens: int
    label_smoothing: float
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, network: Any, processor: Any, *, max_text_tokens: int, label_smoothing: float) -> PeerConfig:
        """Of a network and its processor. BLIP begins its texts with a token of its own and ends them with [SEP].

        Args:
            max_text_tokens: at most so many, and no more than the network has positions for.

        Raises:
            CheckpointError: pictures are prepared in a way that cannot be followed in training.
        """
        whole = network.config
        text = whole.text_config if whole.model_type == "blip" else whole
        settings = json.loads(whole.to_json_string(use_diff=True))
        settings.pop("transformers_version", None)
        return cls(
            kind=whole.model_type,
            preprocessing=read_preprocessing(processor.image_processor.to_dict(), int(_side(whole.vision_config.image_size))),
            vocab_size=text.vocab_size,
            bos_token_id=text.bos_token_id,
            eos_token_id=text.sep_token_id if whole.model_type == "blip" else text.eos_token_id,
            pad_token_id=text.pad_token_id,
            max_text_tokens=min(max_text_tokens, text.max_position_embeddings),
            label_smoothing=label_smoothing,
            settings=settings,
        )


def _side(size: Any) -> Any:
    return size[0] if isinstance(size, list | tuple) else size


class PeerNetwork(nn.Module):
    """A `BlipForConditionalGeneration` or `GitForCausalLM` behind the methods of `CaptionModel` that training calls."""

    def __init__(self, config: PeerConfig, network: Any, processor: Any) -> None:
        super().__init__()
        self.config = config
        self.network = network
        self.processor = processor
        for name, parameter in network.named_parameters():  # of frames, of which runs show one
            if "img_temporal_embedding" in name:
                parameter.requires_grad_(False)

    @property
    def encoder(self) -> nn.Module:
        return self.network.vision_model if self.config.kind == "blip" else self.network.git.image_encoder

    @property
    def decoder(self) -> nn.Module:
        """All but the encoder."""
        if self.config.kind == "blip":
            return nn.ModuleList([self.network.text_decoder])
        git = self.network.git
        return nn.ModuleList([git.embeddings, git.visual_projection, git.encoder, self.network.output])

    @property
    def num_image_tokens(self) -> int:
        vision = self.network.config.vision_config
        return (_side(vision.image_size) // _side(vision.patch_size)) ** 2 + 1

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(self, pixel_values: Tensor, input_ids: Tensor, pictures: Tensor | None = None) -> Tensor:
        """(B, 3, H, W), (B, T) -> logits (B, T, V), text positions only. Padding stands at the right, where causal attention does not see it.

        Args:
            pictures: (B,), which of the images each text belongs to, as in `CaptionModel.summed_loss`.
        """
        if self.config.kind == "blip":
            features = self.network.vision_model(pixel_values=pixel_values).last_hidden_state
            features = features if pictures is None else features[pictures]
            return self.network.text_decoder(input_ids=input_ids, encoder_hidden_states=features, use_cache=False).logits
        pixel_values = pixel_values if pictures is None else pixel_values[pictures]  # its forward pass takes no features
        hidden = self.network.git(input_ids=input_ids, pixel_values=pixel_values, use_cache=False).last_hidden_state
        return self.network.output(hidden[:, self.num_image_tokens :])

    def summed_loss(self, pixel_values: Tensor, input_ids: Tensor, labels: Tensor, pictures: Tensor | None = None) -> Tensor:
        """As `CaptionModel.summed_loss`: `labels` (B, T) are already shifted, and those that are -100 do not count."""
        logits = self(pixel_values, input_ids, pictures).flatten(0, 1).float()
        smoothing = self.config.label_smoothing if self.training else 0.0
        return F.cross_entropy(logits, labels.flatten(), ignore_index=IGNORED_LABEL, label_smoothing=smoothing, reduction="sum")

    @torch.inference_mode()
    def generate(self, pixel_values: Tensor, *, num_beams: int = 4, max_new_tokens: int | None = None) -> tuple[Tensor, Tensor]:
        """The best text of each image: tokens (B, L) after the begin token, padded after the end token, and their mean log-probability, (B,)."""
        limit = min(max_new_tokens or self.config.max_text_tokens, self.config.max_text_tokens)
        tokens, log_probs, lengths = generate(self.network, pixel_values, num_beams=num_beams, do_sample=False, max_new_tokens=limit)
        return tokens[:, 1:], log_probs.sum(1) / lengths

    def attention_maps(self, pixel_values: Tensor, input_ids: Tensor) -> Tensor | None:
        """(B, 3, H, W), (B, T) -> (B, T, rows, columns): where in the picture each text position looks, the mean over layers and heads, summing to 1
        over the patches."""
        with torch.no_grad():
            weights = self._attention(pixel_values, input_ids)
        maps = torch.stack(weights).mean((0, 2))[..., 1 : self.num_image_tokens].float()  # the first image token stands for all of the picture
        side = round(maps.shape[-1] ** 0.5)
        return (maps / maps.sum(-1, keepdim=True)).unflatten(-1, (side, side))

    def _attention(self, pixel_values: Tensor, input_ids: Tensor) -> list[Tensor]:
        """Of each layer (B, heads, T, image tokens, and with GIT text after them)."""
        if self.config.kind == "blip":
            features = self.network.vision_model(pixel_values=pixel_values).last_hidden_state
            found = self.network.text_decoder(
                input_ids=input_ids, encoder_hidden_states=features, use_cache=False, output_attentions=True, return_dict=True
            )
            return list(found.cross_attentions)
        before = self.network.config._attn_implementation
        self.network.set_attn_implementation("eager")  # which alone hands its weights over; BLIP has no other
        try:
            found = self.network.git(input_ids=input_ids, pixel_values=pixel_values, use_cache=False, output_attentions=True)
        finally:
            self.network.set_attn_implementation(before)
        return [weights[:, :, self.num_image_tokens :] for weights in found.attentions]

    def freeze_encoder(self, share: float) -> None:
        """Keep the weights of this share of the encoder's depth, from the pixels on, as `ImageEncoder.freeze` does."""
        vision: Any = self.encoder if self.config.kind == "blip" else self.network.git.image_encoder.vision_model
        layers = list(vision.encoder.layers)
        before = [vision.embeddings, *([] if self.config.kind == "blip" else [vision.pre_layrnorm])]  # so it is spelled
        parts = [self.encoder] if share >= 1 else [*before, *layers[: round(share * len(layers))]]
        for part in parts:
            part.requires_grad_(False)

    def enable_gradient_checkpointing(self) -> None:
        self.network.gradient_checkpointing_enable()

    def with_weights(self, weights: Mapping[str, Tensor]) -> PeerNetwork:
        """Another one of the same kind with these weights, in evaluation mode."""
        other = PeerNetwork(self.config, type(self.network)(self.network.config), self.processor)
        other.load_state_dict(dict(weights))
        return other.eval()

    def save_pretrained(self, directory: Path) -> None:
        """Write a directory of transformers, processor and model card included."""
        name = type(self.network).__name__
        millions = sum(parameter.numel() for parameter in self.parameters()) / 1e6
        card = (
            f"---\nlibrary_name: transformers\npipeline_tag: image-to-text\n---\n\n# {name} for prompts\n\n"
            f"Hugging Face's {name}, trained by Reprompt to write the prompt of a generated image. {millions:.1f} million parameters.\n\n"
            f"```python\nfrom transformers import AutoProcessor, {name}\n\n"
            f'processor, model = AutoProcessor.from_pretrained("this directory"), {name}.from_pretrained("this directory")\n'
            f"tokens = model.generate(**processor(images=image, return_tensors='pt'), max_new_tokens={self.config.max_text_tokens})\n"
            "print(processor.decode(tokens[0], skip_special_tokens=True))\n```\n"
        )
        save_peer(self.network, self.processor, directory, card=card)
