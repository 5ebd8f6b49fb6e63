"""`PromptInverter`: network, tokenizer and preprocessing in one object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

from data.images import Preprocess, read_image, to_rgb
from model import CaptionModel, CheckpointError, find_checkpoint, load_model, save_model
from tokenizer import PromptTokenizer, TokenizerError

TOKENIZER_FILE = "tokenizer.json"
DEFAULT_CHECKPOINT = Path(__file__).resolve().parents[1] / "assets" / "mini-inverter"


@dataclass(frozen=True)
class Prediction:
    """What Reprompt wrote for an image. `score` is the mean log-probability of its tokens, natural log."""

    prompt: str
    score: float
    alternatives: list[tuple[str, float]] = field(default_factory=list)


class PromptInverter:
    """Writes the prompts of pictures."""

    def __init__(self, model: CaptionModel, tokenizer: PromptTokenizer) -> None:
        if tokenizer.vocab_size != model.config.vocab_size:
            raise CheckpointError(
                f"the tokenizer has {tokenizer.vocab_size} tokens, the network {model.config.vocab_size}; they belong to different models"
            )
        self.model = model.eval()
        self.tokenizer = tokenizer
        preprocessing = model.config.preprocessing
        self.preprocess = Preprocess(preprocessing.image_size, preprocessing.mean, preprocessing.std, preprocessing.interpolation, preprocessing.crop)

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
        return cls(model.to(place, kind), tokenizer)

    def predict(
        self, images: Sequence[Image.Image | str | Path], *, num_beams: int = 4, num_return: int = 1, batch_size: int = 32
    ) -> list[Prediction]:
        """The prompts of `images`, each a PIL image or a path, with `num_return - 1` alternatives each, best first.

        Raises:
            ImageError: a path that cannot be read as a picture.
            ValueError: num_beams or num_return out of range.
        """
        predictions: list[Prediction] = []
        parameter = next(self.model.parameters())
        for start in range(0, len(images), batch_size):
            batch = torch.stack([self.preprocess(_picture(image)) for image in images[start : start + batch_size]])
            found = self.model.search(batch.to(parameter.device, parameter.dtype), num_beams=num_beams, num_return=num_return)
            for texts in found:
                written = [(self.tokenizer.decode(text.tokens), text.score) for text in texts]
                predictions.append(Prediction(*written[0], alternatives=written[1:]))
        return predictions

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
        f"{model.config.preprocessing.image_size} px; vocabulary {model.config.vocab_size}.\n\n"
        "```python\nfrom inference import PromptInverter\n"
        'PromptInverter.from_pretrained("this directory").predict(["image.png"])[0].prompt\n```\n'
    )
