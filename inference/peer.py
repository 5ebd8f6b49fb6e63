"""`PeerInverter`: BLIP of Hugging Face, which only transformers can run, behind the methods of `PromptInverter` that commands call."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import islice
from typing import Any, cast, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data.images import shrunk
from inference.options import Decoding
from inference.pictures import OnePicture, Picture, as_picture, check_several, is_picture
from inference.prediction import Prediction, build_prediction
from model.confidence import Confidence
from model.familiarity import Familiarity
from peers import PeerCaptioner, Written

_LONGEST = 64


class PeerInverter:
    """Writes the prompts of pictures by a network of transformers, whose own processor prepares them."""

    def __init__(self, captioner: PeerCaptioner, familiarity: Familiarity | None = None) -> None:
        self.captioner = captioner
        self.familiarity = familiarity

    @property
    def model(self) -> Any:
        """The network."""
        return self.captioner.network

    @property
    def picture_size(self) -> tuple[int, int]:
        """As `PromptInverter.picture_size`."""
        side = self.captioner.network.config.vision_config.image_size
        return (side, side) if isinstance(side, int) else tuple(side)

    def encode(self, images: Iterable[Picture]) -> Tensor:
        """As `PromptInverter.encode`."""
        return self.captioner.encode([as_picture(image) for image in images])

    def features(self, images: Iterable[Picture]) -> np.ndarray:
        """The mean over what `encode` gives: (N, width) float32."""
        return self.encode(images).float().mean(1).cpu().numpy()

    def fingerprint(self) -> str:
        """As `PromptInverter.fingerprint`."""
        return self.captioner.fingerprint()

    @property
    def device(self) -> torch.device:
        return self.captioner.device

    @property
    def confidence(self) -> Confidence:
        return self.captioner.confidence

    def reduced(self, image: Image.Image) -> Image.Image:
        """A picture as small as it may be kept until its batch comes."""
        return shrunk(image)

    @overload
    def predict(self, images: OnePicture, *, batch_size: int = 32, **decoding: Any) -> Prediction: ...

    @overload
    def predict(self, images: Iterable[Picture], *, batch_size: int = 32, **decoding: Any) -> list[Prediction]: ...

    def predict(self, images: Picture | Iterable[Picture], *, batch_size: int = 32, **decoding: Any) -> Prediction | list[Prediction]:
        """As `PromptInverter.predict`. Without `max_new_tokens` a text has 64 tokens at most; with a seed each picture goes through the network
        alone, so that what is drawn for it depends on no other.

        Raises:
            ImageError: something that cannot be read as a picture.
            NotFiniteError: the network computed no numbers.
            TypeError: something that is no picture.
            ValueError: a prefix or bad words, which need a network of ours or GIT's.
        """
        how = Decoding(**decoding)
        if how.prefix or how.bad_words:
            raise ValueError("a prefix and bad words need a checkpoint of Reprompt's or GIT's; this one runs in transformers")
        if is_picture(images):
            return self._predict([images], 1, how)[0]
        return self._predict(cast("Iterable[Picture]", images), batch_size, how)

    __call__ = predict

    def _predict(self, images: Iterable[Picture], batch_size: int, how: Decoding) -> list[Prediction]:
        check_several(images, batch_size)
        each, predictions = iter(images), list[Prediction]()
        size = 1 if how.seed is not None else batch_size
        while batch := [shrunk(as_picture(image)) for image in islice(each, size)]:
            with torch.random.fork_rng(enabled=how.seed is not None):
                if how.seed is not None:
                    torch.manual_seed(_seed(how.seed, batch[0]))
                found = self._write(batch, how)
            familiar = self.familiarity(self.captioner.encode(batch)) if self.familiarity is not None else [None] * len(batch)
            for texts, known in zip(found, familiar, strict=True):
                said, sure = [text.text for text in texts], [text.log_probs for text in texts]
                predictions.append(build_prediction(said, sure, texts[0].pieces, self.confidence, known))
        return predictions

    def _write(self, batch: list[Image.Image], how: Decoding) -> list[list[Written]]:
        lengths = {"min_new_tokens": how.min_new_tokens} if how.min_new_tokens else {}
        lengths["max_new_tokens"] = how.max_new_tokens or _LONGEST
        if not how.do_sample:
            return self.captioner.write(batch, **lengths, **how.searching)
        found = self.captioner.write(batch, **lengths, do_sample=True, **how.drawing)
        return [sorted(texts, key=lambda text: -text.score) for texts in found]  # a search has its own ranking


def _seed(seed: int, picture: Image.Image) -> int:
    """What decides a picture's samples: the seed and its pixels."""
    digest = hashlib.sha256(f"{seed} {picture.size} ".encode() + picture.tobytes()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
