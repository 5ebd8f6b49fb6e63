"""`PeerInverter`: BLIP of Hugging Face, which only transformers can run, behind the methods of `PromptInverter` that commands call."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image

from data.images import shrunk
from inference.inverter import Prediction
from inference.pictures import Picture, as_picture, check_several
from peers import PeerCaptioner, Written


class PeerInverter:
    """Writes the prompts of pictures by a network of transformers, whose own processor prepares them."""

    def __init__(self, captioner: PeerCaptioner) -> None:
        self.captioner = captioner

    @property
    def model(self) -> Any:
        """The network."""
        return self.captioner.network

    def features(self, images: Iterable[Picture]) -> np.ndarray:
        """As `PromptInverter.features`."""
        return self.captioner.features([as_picture(image) for image in images])

    def fingerprint(self) -> str:
        """As `PromptInverter.fingerprint`."""
        return self.captioner.fingerprint()

    @property
    def device(self) -> torch.device:
        return self.captioner.device

    def reduced(self, image: Image.Image) -> Image.Image:
        """A picture as small as it may be kept until its batch comes."""
        return shrunk(image)

    def predict(
        self,
        images: Iterable[Picture],
        *,
        num_beams: int = 4,
        num_return: int = 1,
        length_penalty: float = 1.0,
        prefix: str = "",
        min_new_tokens: int = 0,
        max_new_tokens: int | None = None,
        banned_words: Iterable[str] = (),
        batch_size: int = 32,
    ) -> list[Prediction]:
        """As `PromptInverter.predict`. Without `max_new_tokens` a text has 64 tokens at most.

        Raises:
            ImageError: something that cannot be read as a picture.
            NotFiniteError: the network computed no numbers.
            TypeError: something that is no picture, or a single one.
            ValueError: a prefix or banned words, which need a network of ours or GIT's.
        """
        _refuse(prefix, banned_words)
        arguments: dict[str, Any] = {"num_beams": num_beams, "num_return_sequences": num_return, "length_penalty": length_penalty}
        return self._write(images, batch_size, min_new_tokens, max_new_tokens, arguments)

    def sample(
        self,
        images: Iterable[Picture],
        *,
        num_samples: int = 1,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = None,
        prefix: str = "",
        min_new_tokens: int = 0,
        max_new_tokens: int | None = None,
        banned_words: Iterable[str] = (),
        batch_size: int = 32,
    ) -> list[Prediction]:
        """As `PromptInverter.sample`; with a seed each picture goes through the network alone, so that what is drawn for it depends on no other.

        Raises:
            As `predict`.
        """
        _refuse(prefix, banned_words)
        check_several(images, batch_size)
        arguments: dict[str, Any] = {"do_sample": True, "num_return_sequences": num_samples}
        arguments |= {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        if seed is None:
            return self._write(images, batch_size, min_new_tokens, max_new_tokens, arguments)
        found: list[Prediction] = []
        for image in images:
            picture = shrunk(as_picture(image))
            digest = hashlib.sha256(f"{seed} {picture.size} ".encode() + picture.tobytes()).digest()
            with torch.random.fork_rng():
                torch.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
                found += self._write([picture], 1, min_new_tokens, max_new_tokens, arguments)
        return found

    def _write(
        self, images: Iterable[Picture], batch_size: int, min_new_tokens: int, max_new_tokens: int | None, arguments: dict[str, Any]
    ) -> list[Prediction]:
        lengths = {"min_new_tokens": min_new_tokens} if min_new_tokens else {}
        lengths["max_new_tokens"] = max_new_tokens or _LONGEST
        predictions: list[Prediction] = []
        check_several(images, batch_size)
        each = iter(images)
        while batch := [shrunk(as_picture(image)) for image in islice(each, batch_size)]:
            found = self.captioner.write(batch, **lengths, **arguments)
            if "do_sample" in arguments:  # a search has its own ranking
                found = [sorted(texts, key=lambda text: -text.score) for texts in found]
            predictions += [_prediction(texts) for texts in found]
        return predictions


_LONGEST = 64


def _prediction(texts: list[Written]) -> Prediction:
    """All of a text is one piece: transformers hands over no others."""
    best, *others = texts
    return Prediction(best.text, best.score, alternatives=[(text.text, text.score) for text in others], tokens=[(best.text, best.log_prob)])


def _refuse(prefix: str, banned_words: Iterable[str]) -> None:
    if prefix or list(banned_words):
        raise ValueError("a prefix and banned words need a checkpoint of Reprompt's or GIT's; this one runs in transformers")
