"""The prompt tokenizer: byte-level BPE."""

from tokenizer.bpe import PromptTokenizer, TokenizerError

__all__ = ["PromptTokenizer", "TokenizerError"]
