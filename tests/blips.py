"""Small captioners of Hugging Face with random weights, for the tests of several rooms; GITs alone are in gits.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from gits import WORDS, build_git
from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor, CLIPImageProcessor, GitProcessor

from peers import PeerConfig, PeerNetwork

# as in the published ones: texts begin with [DEC], of which the tokenizer knows nothing, and end with [SEP]; `eos_token_id` says something else
PAD, END, DEC, OTHER = 0, 2, len(WORDS), 5
KINDS = ("blip", "git")


def build_blip(**changes: object) -> BlipForConditionalGeneration:
    """A small BLIP whose every weight matters, and which ends its texts now and then."""
    vision = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}
    text: dict[str, object] = {
        "vocab_size": len(WORDS) + 2,
        "hidden_size": 40,
        "encoder_hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 5,
        "intermediate_size": 96,
        "max_position_embeddings": 64,
        "bos_token_id": DEC,
        "eos_token_id": OTHER,
        "sep_token_id": END,
        "pad_token_id": PAD,
        "label_smoothing": 0.0,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    model = BlipForConditionalGeneration(BlipConfig(vision_config=vision, text_config=text | changes)).eval()
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
            scale = 0.2 if "word_embeddings" in name else 0.5
            parameter.copy_(centre + scale * torch.randn(parameter.shape, generator=generator))
        model.text_decoder.cls.predictions.bias[END] += 2.5
    return model


def blip_processor() -> BlipProcessor:
    return BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), _tokenizer())


def git_processor() -> GitProcessor:
    return GitProcessor(CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}), _tokenizer())


def _tokenizer() -> BertTokenizer:
    return BertTokenizer(vocab={word: place for place, word in enumerate(WORDS)})


def save_blip(directory: Path, **changes: object) -> BlipForConditionalGeneration:
    """Save a small BLIP with tokenizer and image processor, as its authors publish it."""
    blip_processor().save_pretrained(directory)
    model = build_blip(**changes)
    model.save_pretrained(directory)
    return model


def ending_git(**changes: object) -> Any:
    """A small GIT that ends its texts now and then."""
    model = build_git(vocab_size=len(WORDS), **changes)
    with torch.no_grad():
        model.output.bias[END] += 4.5
    return model


def small_peer(kind: str, *, max_text_tokens: int = 12, label_smoothing: float = 0.0, **changes: object) -> PeerNetwork:
    """A small BLIP or GIT as the training loop takes it, in evaluation mode."""
    network, processor = (build_blip(**changes), blip_processor()) if kind == "blip" else (ending_git(**changes), git_processor())
    config = PeerConfig.of(network, processor, max_text_tokens=max_text_tokens, label_smoothing=label_smoothing)
    return PeerNetwork(config, network, processor).eval()
