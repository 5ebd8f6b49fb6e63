"""Hugging Face's GIT and BLIP with random weights, behind the interface that the training loop knows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model import IGNORED_LABEL, Hypothesis, ModelConfig
from tokenizer import PromptTokenizer

WIDTH, HEADS, PATCH = 192, 4, 8


class Peer(nn.Module, ABC):
    """One of their networks in the place of a `CaptionModel`: the same batches, the same loss, its own `generate`."""

    def __init__(self, network: Any, encoder: nn.Module, others: list[nn.Module], config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = encoder, nn.ModuleList(others)  # two groups for the optimizer
        self._network = [network]  # in a list: its weights are known by the two already
        self.num_image_tokens = (config.preprocessing.size[0] // PATCH) ** 2 + 1

    @property
    def network(self) -> Any:
        return self._network[0]

    def train(self, mode: bool = True) -> Peer:
        self.network.train(mode)
        super().train(mode)
        return self

    def summed_loss(self, images: Tensor, input_ids: Tensor, labels: Tensor) -> Tensor:
        logits = self.logits(images, input_ids)
        smoothing = self.config.label_smoothing if self.training else 0.0
        return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED_LABEL, label_smoothing=smoothing, reduction="sum")

    @abstractmethod
    def logits(self, images: Tensor, input_ids: Tensor) -> Tensor:
        """(B, 3, H, W), (B, T) -> (B, T, V), text positions only."""

    @torch.no_grad()
    def search(self, images: Tensor, *, num_beams: int = 1) -> list[list[Hypothesis]]:
        written = self.network.generate(pixel_values=images, max_length=self.config.max_text_tokens, num_beams=num_beams, do_sample=False)
        return [[Hypothesis(tuple(row[1:].tolist()), (0.0,) * (len(row) - 1))] for row in written]

    def attention_maps(self, images: Tensor, input_ids: Tensor) -> None:
        return None


class Git(Peer):
    def __init__(self, config: ModelConfig, vision_layers: int, text_layers: int) -> None:
        from transformers import GitConfig, GitForCausalLM

        shape = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "intermediate_size": 4 * WIDTH}
        vision = shape | {"num_hidden_layers": vision_layers, "image_size": config.preprocessing.size[0], "patch_size": PATCH}
        network = GitForCausalLM(
            GitConfig(
                vision_config=vision,
                **shape,
                num_hidden_layers=text_layers,
                vocab_size=config.vocab_size,
                max_position_embeddings=config.max_text_tokens,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
                bos_token_id=config.bos_token_id,
                eos_token_id=config.eos_token_id,
                pad_token_id=config.pad_token_id,
            )
        )
        git = network.git
        super().__init__(network, git.image_encoder, [git.embeddings, git.visual_projection, git.encoder, network.output], config)

    def logits(self, images: Tensor, input_ids: Tensor) -> Tensor:
        logits: Tensor = self.network(input_ids=input_ids, pixel_values=images).logits
        return logits[:, -input_ids.shape[1] :]


class Blip(Peer):
    def __init__(self, config: ModelConfig, vision_layers: int, text_layers: int) -> None:
        from transformers import BlipConfig, BlipForConditionalGeneration

        shape = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "intermediate_size": 4 * WIDTH}
        vision = shape | {"num_hidden_layers": vision_layers, "image_size": config.preprocessing.size[0], "patch_size": PATCH}
        text = shape | {
            "encoder_hidden_size": WIDTH,
            "num_hidden_layers": text_layers,
            "vocab_size": config.vocab_size,
            "max_position_embeddings": config.max_text_tokens,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "bos_token_id": config.bos_token_id,
            "eos_token_id": config.eos_token_id,
            "sep_token_id": config.eos_token_id,
            "pad_token_id": config.pad_token_id,
        }
        network = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision))
        super().__init__(network, network.vision_model, [network.text_decoder], config)

    def logits(self, images: Tensor, input_ids: Tensor) -> Tensor:
        seen = self.network.vision_model(pixel_values=images).last_hidden_state
        logits: Tensor = self.network.text_decoder(input_ids=input_ids, encoder_hidden_states=seen).logits
        return logits


def build_peer(name: str, config: ModelConfig) -> Peer:
    """GIT or BLIP with about as many parameters as the mini preset's network has."""
    return {"git": lambda: Git(config, 3, 3), "blip": lambda: Blip(config, 3, 2)}[name]()


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def decode(tokenizer: PromptTokenizer, found: list[list[Hypothesis]]) -> list[str]:
    return [tokenizer.decode(texts[0].tokens) for texts in found]
