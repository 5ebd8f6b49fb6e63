"""Small Hugging Face GITs with random weights, for the tests of several rooms."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import BertTokenizerFast, CLIPImageProcessor, GitConfig, GitForCausalLM, GitProcessor

VOCABULARY, BOS, EOS, PAD = 60, 1, 2, 0


def build_git(**changes: object) -> GitForCausalLM:
    """A small GIT whose every weight matters: LayerNorms and biases are redrawn too, so that none could be swapped or dropped unnoticed."""
    vision = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}
    values: dict[str, object] = {
        "vision_config": vision | dict(changes.pop("vision", {})),  # type: ignore[call-overload]
        "vocab_size": VOCABULARY,
        "hidden_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 5,
        "intermediate_size": 96,
        "max_position_embeddings": 64,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    model = GitForCausalLM(GitConfig(**(values | changes))).eval()
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
            parameter.copy_(centre + 0.2 * torch.randn(parameter.shape, generator=generator))
        model.git.embeddings.word_embeddings.weight[PAD] = 0.3  # the padding token's own embedding too
    return model


WORDS = [
    "[PAD]",
    "[CLS]",
    "[SEP]",
    "[UNK]",
    "[MASK]",
    *"abcdefghijklmnopqrstuvwxyz,.",
    *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxy"),
    "cat",
    "##dog",
    "on",
]


def save_git(directory: Path, **changes: object) -> GitForCausalLM:
    """Save a small GIT with tokenizer and image processor, as its authors publish it."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    tokenizer = BertTokenizerFast(str(directory / "vocab.txt"))
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    GitProcessor(images, tokenizer).save_pretrained(directory)
    model = build_git(vocab_size=len(WORDS), **changes)
    model.save_pretrained(directory)
    return model
