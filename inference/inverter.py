"""`PromptInverter`: network, tokenizer and preprocessing in one object."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from inference import DEFAULT_CHECKPOINT
from inference.banned import BannedWords
from inference.pictures import Picture, as_picture, check_several
from model import CaptionModel, CheckpointError, Hypothesis, find_checkpoint, load_model, save_model
from model.fingerprint import add_weights
from tokenizer import TOKENIZER_FILE, PromptTokenizer, TokenizerError


@dataclass(frozen=True)
class Prediction:
    """What Reprompt wrote for an image. `score` is the mean log-probability of its tokens, natural log; `tokens` are the pieces of
    text it wrote, after the forced start if there was one, each with its log-probability: joined they are the text, and a character of several
    tokens belongs to its last one. `alternatives` are further prompts with their scores, best first: in the order of a search's ranking, which is
    that of the scores where `length_penalty` is 1."""

    prompt: str
    score: float
    alternatives: list[tuple[str, float]] = field(default_factory=list)
    tokens: list[tuple[str, float]] = field(default_factory=list)


class PromptInverter:
    """Writes the prompts of pictures."""

    def __init__(self, model: CaptionModel, tokenizer: PromptTokenizer) -> None:
        if tokenizer.vocab_size != model.config.vocab_size:
            raise CheckpointError(
                f"the tokenizer has {tokenizer.vocab_size} tokens, the network {model.config.vocab_size}; they belong to different models"
            )
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.preprocess = model.config.preprocessing

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: str | Path = DEFAULT_CHECKPOINT,
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        revision: str | None = None,
    ) -> PromptInverter:
        """Load a checkpoint directory, or a Hub id while there is a network. One of Hugging Face's GIT will do as well.

        Args:
            dtype: a torch floating-point type or its name; "auto" is float32 on a CPU, on a GPU bfloat16, or float16 where it has none.
            revision: of a Hub id: a branch, a tag or a commit.

        Raises:
            CheckpointError: not a checkpoint, or a broken one; names the file and the remedy.
            ValueError: no such device or type.
        """
        place = torch_device(device)
        kind = torch_dtype(dtype, place)
        directory = find_checkpoint(checkpoint, revision)
        model = load_model(directory)
        try:
            tokenizer = PromptTokenizer.load(directory / TOKENIZER_FILE)
        except TokenizerError as error:
            raise CheckpointError(str(error)) from error
        model.to(place, kind)
        return cls(model.to(memory_format=torch.channels_last), tokenizer)  # convolutions are quicker so

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
        """The prompts of `images`, with `num_return - 1` alternatives each, best first.

        Args:
            images: PIL images, paths, encoded files, uint8 arrays or tensors (`inference.pictures`), one after another; each is read when its
                batch comes and reduced at once.
            num_beams: hypotheses kept at each step; 1 is greedy search.
            length_penalty: texts are ranked by the sum of their tokens' log-probabilities / length ** length_penalty: above 1 favours longer prompts,
                below 1 shorter ones, at 1 the ranking is that of `Prediction.score`.
            prefix: how every prompt must start, for example "a watercolor of". It is read as whole words: one that ends inside a word ("a waterc")
                is not completed to it.
            min_new_tokens: how many tokens come after it at least, the end not counted.
            max_new_tokens: how many tokens come after it at most, the end counted.
            banned_words: words and phrases that are not written, in capitals or not, nor words that begin with them.
            batch_size: images that go through the network together.

        Raises:
            ImageError: something that cannot be read as a picture.
            NotFiniteError: the network computed no numbers; names the likely cause.
            TypeError: something that is no picture, or a single one; says what to pass.
            ValueError: a number out of range, or a prefix that holds a banned word; names it.
        """
        rules = self._rules(prefix, banned_words) | {"min_new_tokens": min_new_tokens, "max_new_tokens": max_new_tokens}
        predictions: list[Prediction] = []
        for pixels in self._batches(images, batch_size):
            found = self.model.search(self._network_input(pixels), num_beams=num_beams, num_return=num_return, length_penalty=length_penalty, **rules)
            predictions += [self._prediction(rules["prefix"], texts) for texts in found]
        return predictions

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
        """As `predict`, but the prompts are drawn from the model's distribution: `num_samples` for each image, the likeliest first.

        Args:
            temperature: above 1 more varied, below 1 closer to the likeliest.
            top_k: draw each token from the likeliest k (0: all).
            top_p: draw each token from the fewest likeliest that together have this probability.
            seed: decides what is drawn for a picture, in whatever batch and order it comes; None draws anew each time.
            The others as in `predict`.
        """
        rules = self._rules(prefix, banned_words) | {"min_new_tokens": min_new_tokens, "max_new_tokens": max_new_tokens}
        if seed is not None and not isinstance(seed, int):
            raise ValueError(f"seed must be a whole number, not {seed!r}")
        predictions: list[Prediction] = []
        for pixels in self._batches(images, batch_size):
            found = self.model.sample(
                self._network_input(pixels),
                num_samples=num_samples,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                generator=None if seed is None else [_generator(seed, picture) for picture in pixels],
                **rules,
            )
            predictions += [self._prediction(rules["prefix"], texts) for texts in found]
        return predictions

    @property
    def device(self) -> torch.device:
        return self.model.device

    def reduced(self, image: Image.Image) -> Image.Image:
        """All that the network sees of a picture: what need be kept until its batch comes."""
        return self.preprocess.reduced(image)

    def _batches(self, images: Iterable[Picture], batch_size: int) -> Iterator[Tensor]:
        """(B, 3, H, W) uint8. Of each picture only what the network sees is kept while the next one is read."""
        check_several(images, batch_size)
        each = iter(images)
        while batch := [self.preprocess.pixels(as_picture(image)) for image in islice(each, batch_size)]:
            yield torch.stack(batch)

    def _network_input(self, pixels: Tensor) -> Tensor:
        return self.preprocess.normalise(pixels.to(self.model.device)).to(self.model.dtype)

    def _rules(self, prefix: str, banned_words: Iterable[str]) -> dict[str, Any]:
        banned = BannedWords(self.tokenizer, banned_words)
        if word := banned.held_by(prefix):
            raise ValueError(f"prefix {prefix!r} holds the banned word {word!r}")
        # a space at the end belongs to the next token
        return {"prefix": self.tokenizer.encode(prefix.rstrip()), "forbidden": banned if banned.words else None}

    def _prediction(self, prefix: list[int], texts: Sequence[Hypothesis]) -> Prediction:
        written = [(self.tokenizer.decode([*prefix, *text.tokens]), text.score) for text in texts]
        pieces = self.tokenizer.added([*prefix, *texts[0].tokens])[len(prefix) :]
        return Prediction(*written[0], alternatives=written[1:], tokens=list(zip(pieces, texts[0].log_probs, strict=True)))

    @torch.inference_mode()
    def features(self, images: Iterable[Picture]) -> np.ndarray:
        """What the image encoder makes of pictures, the mean over their image tokens: (N, width) float32."""
        pixels = torch.stack([self.preprocess.pixels(as_picture(image)) for image in images])
        return self.model.encoder(self._network_input(pixels)).float().mean(1).cpu().numpy()

    def fingerprint(self) -> str:
        """By which the network, its tokenizer and its preprocessing are known again."""
        digest = hashlib.sha256(json.dumps(dataclasses.asdict(self.model.config), sort_keys=True, default=str).encode())
        digest.update(self.tokenizer.fingerprint().encode())
        add_weights(digest, self.model)
        return digest.hexdigest()[:16]

    def save_pretrained(self, path: str | Path, *, card: str | None = None) -> None:
        """Write a checkpoint directory: config.json, model.safetensors, tokenizer.json and, as README.md, the model card."""
        directory = Path(path)
        save_model(self.model, directory)
        self.tokenizer.save(directory / TOKENIZER_FILE)
        (directory / "README.md").write_text(card or _card(self.model), encoding="utf-8")


def torch_device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
        torch.zeros(1, device=place).item()  # which "meta" cannot say either
    except (AssertionError, RuntimeError, TypeError) as error:
        raise ValueError(f"device must be 'auto', or one that this machine has, such as 'cpu', not {device!r}: {error}") from error
    return place


def torch_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    if dtype == "auto":
        if device.type == "cpu":
            return torch.float32
        return torch.bfloat16 if device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    kinds = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    for kind in kinds:
        if dtype in (kind, str(kind).removeprefix("torch.")):
            return kind
    raise ValueError(f"dtype must be 'auto', {', '.join(repr(str(kind).removeprefix('torch.')) for kind in kinds)}, not {dtype!r}")


def _generator(seed: int, picture: Tensor) -> torch.Generator:
    """What decides a picture's samples: the seed and its pixels."""
    digest = hashlib.sha256(f"{seed} ".encode() + picture.contiguous().numpy().tobytes()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def _card(model: CaptionModel) -> str:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return (
        "---\nlibrary_name: reprompt\npipeline_tag: image-to-text\n---\n\n# A Reprompt model\n\n"
        f"It writes the prompt of a generated image. {parameters / 1e6:.1f} million parameters; encoder {model.config.encoder.name}, "
        f"{' x '.join(map(str, model.config.preprocessing.size))} px; vocabulary {model.config.vocab_size}.\n\n"
        "```python\nfrom inference import PromptInverter\n\n"
        'PromptInverter.from_pretrained("this directory").predict(["image.png"])[0].prompt\n```\n'
    )
