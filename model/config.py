"""What a network is, in numbers."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from model.confidence import Confidence, Scale
from model.fields import check_range, check_types
from model.preprocessing import Preprocessing

# of timm's models; what else create_model takes (checkpoint_path, pretrained_cfg_overlay, ...) fetches and unpickles
ARGUMENTS = frozenset(
    {
        *("img_size", "patch_size", "embed_dim", "embed_dims", "depth", "depths", "dim", "dims", "stages", "num_heads"),
        *("mlp_ratio", "mlp_ratios", "layers", "channels", "qkv_bias", "qk_norm", "init_values", "ls_init_value"),
        *("class_token", "no_embed_class", "reg_tokens", "pre_norm", "final_norm", "fc_norm", "global_pool", "pos_embed"),
        *("dynamic_img_size", "dynamic_img_pad", "strict_img_size", "always_partition", "window_size", "window_ratio"),
        *("use_rel_pos_bias", "use_abs_pos_emb", "use_shared_rel_pos_bias", "drop_rate", "pos_drop_rate", "patch_drop_rate"),
        *("proj_drop_rate", "attn_drop_rate", "drop_path_rate", "drop_block_rate", "act_layer", "norm_layer", "mlp_layer"),
        *("kernel_sizes", "conv_mlp", "conv_bias", "use_grn", "stem_type", "stem_width", "stem_size", "fix_stem", "base_width"),
        *("cardinality", "avg_down", "output_stride", "pad_type", "channel_multiplier", "channel_divisor", "depth_multiplier"),
    }
)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The image encoder, a timm model.

    `stage` is the index of the feature map it hands over, where a model has several (the strides double from stage to stage); None for
    what its last layer gives.
    `arguments` go to `timm.create_model`: sizes and kinds of layers (`ARGUMENTS`), and nothing that could open a file or an address.
    `frames` is how many images of one prompt have an embedding of their own (GIT's temporal embedding); 0 for a model of single images.
    """

    name: str
    stage: int | None = None
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    frames: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        check_range("frames", self.frames, 0)
        if not re.fullmatch(r"(timm/)?[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?", self.name):
            raise ValueError(f"name must be a timm model's, such as 'vit_tiny_patch16_224', not {self.name!r}")
        for name, value in self.arguments.items():
            if name not in ARGUMENTS:
                near = difflib.get_close_matches(name, ARGUMENTS, n=3) or ["img_size", "depth", "drop_path_rate"]
                raise ValueError(f"arguments must be sizes and kinds of layers, such as {', '.join(near)}, not {name!r}")
            if not _is_plain(value):
                raise ValueError(f"arguments: {name} must be a number, a word or a list of them, not {value!r}")


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and re.fullmatch(r"\w*", value) is not None)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A `CaptionModel`. `norm="pre"` is for training from scratch; `"post"` is the layout of BERT and GIT. With `tied_output` the token
    embedding also makes the logits. `confidence_scale` was fitted on validation pairs (`model.confidence`)."""

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
    confidence_scale: Scale | None = None

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("vocab_size", "width", "layers", "heads", "ffn_width", "max_text_tokens"):
            check_range(name, getattr(self, name), 1)
        for name in ("dropout", "label_smoothing"):
            check_range(name, getattr(self, name), 0, 1)
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by heads {self.heads}")
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if not 0 <= getattr(self, name) < self.vocab_size:
                raise ValueError(f"{name} {getattr(self, name)} is outside the vocabulary of {self.vocab_size}")

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    @property
    def confidence(self) -> Confidence:
        return Confidence(label_smoothing=self.label_smoothing, vocab_size=self.vocab_size, scale=self.confidence_scale)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> ModelConfig:
        """Read a config.json of ours.

        Raises:
            ValueError: not JSON, keys that this version does not know, or values that no network has; names the file and the key.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"{path} is not JSON: {error}") from error
        if not isinstance(values, dict) or not {"encoder", "preprocessing"} <= values.keys():
            raise ValueError(f"{path} is not the config.json of a Reprompt model: it has no 'encoder' and 'preprocessing'")
        encoder = _checked(EncoderConfig, values.pop("encoder"), path)
        preprocessing = values.pop("preprocessing")
        if isinstance(preprocessing, dict):
            preprocessing |= {name: tuple(value) for name, value in preprocessing.items() if isinstance(value, list)}
        if isinstance(values.get("confidence_scale"), list):
            values["confidence_scale"] = tuple(values["confidence_scale"])
        return _checked(cls, values | {"encoder": encoder, "preprocessing": _checked(Preprocessing, preprocessing, path)}, path)


def _checked(kind: type[Any], values: Any, path: Path) -> Any:
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected an object for {kind.__name__}, found {type(values).__name__}")
    known = {field.name for field in dataclasses.fields(kind)}
    if unknown := sorted(values.keys() - known):
        raise ValueError(f"{path}: unknown keys for {kind.__name__}: {', '.join(unknown)}; was it written by a newer version?")
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
