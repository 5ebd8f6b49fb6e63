"""The prompt tokenizer: byte-level BPE."""

from tokenizer.bpe import TOKENIZER_FILE, PromptTokenizer, TokenizerError, added_texts

__all__ = ["TOKENIZER_FILE", "PromptTokenizer", "TokenizerError", "added_texts"]
