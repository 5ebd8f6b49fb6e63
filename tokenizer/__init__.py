"""The prompt tokenizer: byte-level BPE."""

from tokenizer.bpe import TOKENIZER_FILE, PromptTokenizer, TokenizerError

__all__ = ["TOKENIZER_FILE", "PromptTokenizer", "TokenizerError"]
