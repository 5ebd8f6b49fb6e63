"""What a network is, in numbers."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from model.preprocessing import Preprocessing


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The image encoder, a timm model.

    `stage` is the index of the feature map it hands over, where a model has several (the strides double from stage to stage); None for
    what its last layer gives.
    `arguments` go to `timm.create_model` as they are. `frames` is how many images of one prompt have an embedding of their own (GIT's
    temporal embedding); 0 for a model of single images.
    """

    name: str
    stage: int | None = None
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    frames: int = 0


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A `CaptionModel`. `norm="pre"` is for training from scratch; `"post"` is the layout of BERT and GIT. With `tied_output` the token
    embedding also makes the logits."""

    encoder: EncoderConfig
    preprocessing: Preprocessing
    vocab_size: int
    bos_token_id: int
    eos_token_id: int
    pad_token_id: int
    width: int = 256
    layers: int = 4
    heads: int = 4
    ffn_width: int = 1024
    max_text_tokens: int = 64
    dropout: float = 0.1
    norm: Literal["pre", "post"] = "pre"
    label_smoothing: float = 0.1
    tied_output: bool = True

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by heads {self.heads}")
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if not 0 <= getattr(self, name) < self.vocab_size:
                raise ValueError(f"{name} {getattr(self, name)} is outside the vocabulary of {self.vocab_size}")

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> ModelConfig:
        """Read a config.json of ours.

        Raises:
            ValueError: not JSON, or keys that this version does not know; names the file and the keys.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not JSON: {error}") from error
        if not isinstance(values, dict) or not {"encoder", "preprocessing"} <= values.keys():
            raise ValueError(f"{path} is not the config.json of a Reprompt model: it has no 'encoder' and 'preprocessing'")
        encoder = _checked(EncoderConfig, values.pop("encoder"), path)
        preprocessing = values.pop("preprocessing")
        if isinstance(preprocessing, dict):
            preprocessing |= {name: tuple(value) for name, value in preprocessing.items() if isinstance(value, list)}
        return _checked(cls, values | {"encoder": encoder, "preprocessing": _checked(Preprocessing, preprocessing, path)}, path)


def _checked(kind: type[Any], values: Any, path: Path) -> Any:
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected an object for {kind.__name__}, found {type(values).__name__}")
    known = {field.name for field in dataclasses.fields(kind)}
    if unknown := sorted(values.keys() - known):
        raise ValueError(f"{path}: unknown keys for {kind.__name__}: {', '.join(unknown)}; was it written by a newer version?")
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{path}: {error}") from error
