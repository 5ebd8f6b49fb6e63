"""`PromptInverter`: network, tokenizer and preprocessing in one object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from data.images import read_image, to_rgb
from model import CaptionModel, CheckpointError, Hypothesis, find_checkpoint, load_model, save_model
from tokenizer import TOKENIZER_FILE, PromptTokenizer, TokenizerError

DEFAULT_CHECKPOINT = Path(__file__).resolve().parents[1] / "assets" / "mini-inverter"


@dataclass(frozen=True)
class Prediction:
    """What Reprompt wrote for an image. `score` is the mean log-probability of its tokens, natural log; `tokens` are the pieces of
    text it wrote, after the forced start if there was one, each with its log-probability."""

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
    def from_pretrained(cls, checkpoint: str | Path = DEFAULT_CHECKPOINT, *, device: str = "auto", dtype: str = "auto") -> PromptInverter:
        """Load a checkpoint directory, or a Hub id while there is a network. One of Hugging Face's GIT will do as well.

        `dtype="auto"` is float32 on a CPU and float16 on a GPU; any name of a torch floating-point type will do.

        Raises:
            CheckpointError: not a checkpoint, or a broken one; names the file and the remedy.
        """
        directory = find_checkpoint(checkpoint)
        model = load_model(directory)
        try:
            tokenizer = PromptTokenizer.load(directory / TOKENIZER_FILE)
        except TokenizerError as error:
            raise CheckpointError(str(error)) from error
        place = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        kind = (torch.float16 if place.type == "cuda" else torch.float32) if dtype == "auto" else getattr(torch, dtype, None)
        if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
            raise ValueError(f"dtype must be 'auto' or a floating-point type such as 'float32' or 'bfloat16', not {dtype!r}")
        model.to(place, kind)
        model.pack_weights()
        return cls(model, tokenizer)

    def predict(
        self,
        images: Sequence[Image.Image | str | Path],
        *,
        num_beams: int = 4,
        num_return: int = 1,
        length_penalty: float = 1.0,
        prefix: str = "",
        min_new_tokens: int = 0,
        max_new_tokens: int | None = None,
        banned_words: Sequence[str] = (),
        batch_size: int = 32,
    ) -> list[Prediction]:
        """The prompts of `images`, each a PIL image or a path, with `num_return - 1` alternatives each, best first.

        Args:
            num_beams: hypotheses kept at each step; 1 is greedy search.
            length_penalty: above 1 favours longer prompts, below 1 shorter ones.
            prefix: how every prompt must start, for example "a watercolor of".
            min_new_tokens, max_new_tokens: how many tokens come after it, the end included.
            banned_words: words and phrases that are not written, as the tokenizer spells them, capitalised or not.

        Raises:
            ImageError: a path that cannot be read as a picture.
            ValueError: a number out of range; names it.
        """
        rules = self._rules(prefix, banned_words) | {"min_new_tokens": min_new_tokens, "max_new_tokens": max_new_tokens}
        predictions: list[Prediction] = []
        for batch in self._batches(images, batch_size):
            found = self.model.search(batch, num_beams=num_beams, num_return=num_return, length_penalty=length_penalty, **rules)
            predictions += [self._prediction(rules["prefix"], texts) for texts in found]
        return predictions

    def sample(
        self,
        images: Sequence[Image.Image | str | Path],
        *,
        num_samples: int = 1,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = None,
        prefix: str = "",
        min_new_tokens: int = 0,
        max_new_tokens: int | None = None,
        banned_words: Sequence[str] = (),
        batch_size: int = 32,
    ) -> list[Prediction]:
        """As `predict`, but the prompts are drawn from the model's distribution: `num_samples` for each image, the likeliest first.

        Args:
            temperature: above 1 more varied, below 1 closer to the likeliest.
            top_k: draw each token from the likeliest k (0: all).
            top_p: draw each token from the fewest likeliest that together have this probability.
            seed: decides what is drawn; None draws anew each time.
            The others as in `predict`.
        """
        rules = self._rules(prefix, banned_words) | {"min_new_tokens": min_new_tokens, "max_new_tokens": max_new_tokens}
        generator = torch.Generator(self.model.device)
        generator.seed() if seed is None else generator.manual_seed(seed)
        predictions: list[Prediction] = []
        for batch in self._batches(images, batch_size):
            found = self.model.sample(batch, num_samples=num_samples, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator, **rules)
            predictions += [self._prediction(rules["prefix"], texts) for texts in found]
        return predictions

    def _batches(self, images: Sequence[Image.Image | str | Path], batch_size: int) -> Iterator[Tensor]:
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, not {batch_size}")
        for start in range(0, len(images), batch_size):
            pixels = torch.stack([self.preprocess.pixels(_picture(image)) for image in images[start : start + batch_size]])
            yield self.preprocess.normalise(pixels.to(self.model.device)).to(self.model.dtype)

    def _rules(self, prefix: str, banned_words: Sequence[str]) -> dict[str, Any]:
        if any(not word.strip() for word in banned_words):
            raise ValueError("banned_words holds an empty word")
        spellings = {lead + form for word in map(str.strip, banned_words) for form in (word, word.capitalize()) for lead in ("", " ")}
        banned = sorted({tuple(self.tokenizer.encode(spelling)) for spelling in spellings})
        return {"prefix": self.tokenizer.encode(prefix.rstrip()), "banned": banned}  # a space at the end belongs to the next token

    def _prediction(self, prefix: list[int], texts: Sequence[Hypothesis]) -> Prediction:
        written = [(self.tokenizer.decode([*prefix, *text.tokens]), text.score) for text in texts]
        tokens = [(self.tokenizer.decode([token]), log_prob) for token, log_prob in zip(texts[0].tokens, texts[0].log_probs, strict=True)]
        return Prediction(*written[0], alternatives=written[1:], tokens=tokens)

    def save_pretrained(self, path: str | Path, *, card: str | None = None) -> None:
        """Write a checkpoint directory: config.json, model.safetensors, tokenizer.json and, as README.md, the model card."""
        directory = Path(path)
        save_model(self.model, directory)
        self.tokenizer.save(directory / TOKENIZER_FILE)
        (directory / "README.md").write_text(card or _card(self.model), encoding="utf-8")


def _picture(image: Image.Image | str | Path) -> Image.Image:
    return to_rgb(image) if isinstance(image, Image.Image) else read_image(Path(image))


def _card(model: CaptionModel) -> str:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return (
        "---\nlibrary_name: reprompt\npipeline_tag: image-to-text\n---\n\n# A Reprompt model\n\n"
        f"It writes the prompt of a generated image. {parameters / 1e6:.1f} million parameters; encoder {model.config.encoder.name}, "
        f"{' x '.join(map(str, model.config.preprocessing.size))} px; vocabulary {model.config.vocab_size}.\n\n"
        "```python\nfrom inference import PromptInverter\n\n"
        'PromptInverter.from_pretrained("this directory").predict(["image.png"])[0].prompt\n```\n'
    )
