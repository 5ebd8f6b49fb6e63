"""`PromptTokenizer`: byte-level byte-pair encoding, so that any Unicode text survives the round trip."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

TOKENIZER_FILE = "tokenizer.json"  # in a checkpoint and in a run
BOS, EOS, PAD = "<|begin|>", "<|end|>", "<|pad|>"
_SPECIALS = ((BOS, EOS, PAD), ("[CLS]", "[SEP]", "[PAD]"))  # ours, and those of BERT's WordPiece, which GIT uses
SMALLEST_VOCABULARY = 256 + 3  # every byte and the three special tokens


class TokenizerError(ValueError):
    """A tokenizer that cannot be trained or loaded; says what to do."""


class PromptTokenizer:
    """Text to token ids and back. Three special tokens (begin, end, padding) have ids; no text is ever read as one of them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        known = [[place for place in map(tokenizer.token_to_id, specials) if place is not None] for specials in _SPECIALS]
        complete = [ids for ids in known if len(ids) == 3]
        if not complete:
            ways = " nor ".join(", ".join(specials) for specials in _SPECIALS)
            raise TokenizerError(f"this is not a prompt tokenizer: it has neither {ways}")
        self._tokenizer = tokenizer
        self._tokenizer.encode_special_tokens = True  # "<|end|>" typed by a person stays text
        self.bos_id, self.eos_id, self.pad_id = complete[0]

    @classmethod
    def train(cls, prompts: Iterable[str], vocab_size: int = 4096) -> PromptTokenizer:
        """Learn at most `vocab_size` tokens from `prompts` (of the training split only).

        Raises:
            TokenizerError: no text, or a vocabulary too small for the 256 bytes and the special tokens.
        """
        if vocab_size < SMALLEST_VOCABULARY:
            raise TokenizerError(f"vocab_size must be {SMALLEST_VOCABULARY} or more (256 bytes and three special tokens), not {vocab_size}")
        texts = [prompt for prompt in prompts if prompt.strip()]
        if not texts:
            raise TokenizerError("there is no text to train the tokenizer on: all prompts are empty")
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            special_tokens=[PAD, BOS, EOS],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer, length=len(texts))
        return cls(tokenizer)

    @property
    def vocab_size(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    @cached_property
    def pieces(self) -> list[bytes]:
        """What each token spells, in UTF-8: a part of a character at times, and nothing for the special tokens."""
        special = {self.bos_id, self.eos_id, self.pad_id}
        special |= {token for token, about in self._tokenizer.get_added_tokens_decoder().items() if about.special}
        texts = [self._tokenizer.id_to_token(token) or "" for token in range(self.vocab_size)]
        spelled = _spelled_bytes if isinstance(self._tokenizer.decoder, decoders.ByteLevel) else _spelled_word_piece
        return [b"" if token in special else spelled(text) for token, text in enumerate(texts)]

    def added(self, ids: Sequence[int]) -> list[str]:
        """What each of `ids` adds to the text of all, in order: joined they are `decode(ids)`. A character of several tokens belongs to the last."""
        return added_texts(self.decode, ids)

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without special tokens."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; special tokens are left out."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def to_json(self) -> str:
        """What `save` writes."""
        return str(self._tokenizer.to_str(pretty=False))

    def __getstate__(self) -> str:
        return self.to_json()

    def __setstate__(self, state: str) -> None:
        self.__init__(Tokenizer.from_str(state))  # type: ignore[misc]  # which sets what the library's own state leaves out

    def fingerprint(self) -> str:
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def save(self, path: Path | str) -> None:
        """Write one JSON file, under a temporary name first."""
        temporary = Path(f"{path}.tmp")
        temporary.write_text(self.to_json(), encoding="utf-8")
        os.replace(temporary, path)

    @classmethod
    def load(cls, path: Path | str) -> PromptTokenizer:
        """Read what `save` wrote, or the tokenizer.json of a BERT (GIT's).

        Raises:
            TokenizerError: no such file, or not a prompt tokenizer; names the file.
        """
        if not Path(path).is_file():
            raise TokenizerError(f"{path} does not exist; a checkpoint directory holds its tokenizer as tokenizer.json")
        try:
            return cls(Tokenizer.from_file(str(path)))
        except TokenizerError as error:
            raise TokenizerError(f"{path}: {error}") from error
        except Exception as error:  # the library raises plain Exception
            raise TokenizerError(f"{path} is not a tokenizer file ({error}); copy it again from where the model came from") from error


# GPT-2's characters for bytes: those that print stand for themselves, the others for what comes after 255
_PRINTED = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
_BYTES = {chr(byte): byte for byte in _PRINTED} | {chr(256 + n): byte for n, byte in enumerate(sorted(set(range(256)) - set(_PRINTED)))}


def _spelled_bytes(token: str) -> bytes:
    return bytes(_BYTES[character] for character in token)


def _spelled_word_piece(token: str) -> bytes:
    return (token[2:] if token.startswith("##") else f" {token}").encode()


def added_texts(decode: Callable[[Sequence[int]], str], ids: Sequence[int]) -> list[str]:
    """As `PromptTokenizer.added`, for any tokenizer."""
    whole, known, texts = decode(ids), 0, list[str]()
    for place in range(1, len(ids)):
        agreed = _agreed(decode(ids[:place]), whole)
        texts.append(whole[known : max(known, agreed)])
        known = max(known, agreed)
    return [*texts, whole[known:]] if ids else []


def _agreed(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    return next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
