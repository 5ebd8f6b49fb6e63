"""What a training run is, in numbers, and the presets."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import ChainMap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from data.files import write_text
from data.store.columns import Measure

OptimizerName = Literal["adamw", "muon"]
NetworkName = Literal["reprompt", "hf-blip", "hf-git"]
PEER_KINDS: dict[str, Literal["blip", "git"]] = {"hf-blip": "blip", "hf-git": "git"}


class ConfigError(ValueError):
    """A configuration that cannot be used; names the field."""


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The network to train. What depends on the tokenizer is filled in by `training.starting.model_config`."""

    encoder: str = "vit_tiny_patch16_224"
    """Any timm model by name."""
    pretrained_encoder: bool = False
    """Begin with timm's published weights for it, and normalise images as they expect. Then set --encoder-rate or --frozen-encoder too."""
    encoder_file: Path | None = None
    """Begin with its weights in this file, a .safetensors of timm's or a .pth that holds tensors alone: all of the encoder must be in it, and only a
    classifier may be left over. Images are normalised as timm's published weights of this name expect, unless --model.mean and --model.std say
    otherwise."""
    stage: int | None = None
    """The feature map the encoder hands over, counted from 0, where it has several; none: what its last layer gives. A preset's belongs to the
    preset's encoder: with another --model.encoder it is none."""
    encoder_arguments: tuple[str, ...] = ()
    """Further arguments of timm.create_model, as NAME=VALUE: sizes and kinds of layers."""
    image_size: int | tuple[int, int] = 224
    """Pixels: one number for a square, or height and width."""
    mean: tuple[float, float, float] | None = None
    """What is taken from the pixels (0 to 1) of each colour; none: what the encoder's published weights expect, or ImageNet's."""
    std: tuple[float, float, float] | None = None
    """What they are divided by then."""
    interpolation: Literal["bilinear", "bicubic"] | None = None
    """How pictures are brought to --model.image-size; none: as the encoder's published weights expect, or bicubic."""
    crop: Literal["squeeze", "center"] = "squeeze"
    """What becomes of pictures of another shape: all of it squeezed, or the middle cut out."""
    width: int = 384
    layers: int = 6
    heads: int = 6
    ffn_width: int = 1536
    dropout: float = 0.1
    max_text_tokens: int | None = None
    """Tokens of a prompt that the network reads and writes, the end counted; longer ones are cut. None: as many as the longest training prompt has,
    512 at most."""
    vocab_size: int = 8192
    """The most tokens the tokenizer may learn."""

    @property
    def timm_arguments(self) -> dict[str, Any]:
        return dict(map(_argument, self.encoder_arguments))


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run."""

    name: str = "mini"
    """The run's name; it becomes runs/NAME unless --out says otherwise."""
    data: str = "datasets/mini"
    """A data set directory made by generate_data.py (datasets/mini is made when it is not there); a directory or pattern of WebDataset tars,
    "shards/{0000..0099}.tar"; a folder of pictures with a metadata.jsonl, .csv or .parquet, or with a .txt beside each; or the id of a data set on
    the Hub. All but the first keep their own train, val and test; what is missing of them is taken out of train by a hash of the prompt's words."""
    stream: bool = False
    """Read --data as it comes instead of by number: tars at URLs (https://, s3://, whatever fsspec opens) or a Hub data set too large for this
    machine. Validation and test are a few hundred pairs from all over their share."""
    partial: bool = False
    """Train on what is there of a data set directory that is not finished."""
    image_column: str | None = None
    """The column of images in a Hub data set, where there are several."""
    prompt_column: str | None = None
    """The column or key that holds the prompt, where it is not prompt, text or caption."""
    min_fit: float | None = None
    """Leave out pairs whose prompt fits their image less than this, as score.py has measured (by likelihood, below 0 another image would make the
    prompt likelier)."""
    weigh: bool = False
    """Show pairs as often as they are likely to fit, as score.py has found."""
    curriculum: bool = False
    """Begin with the half of the pairs that fit best, and let the others in step by step until half of the run is over."""
    fit_measure: Measure = "likelihood"
    """Which of score.py's measures --min-fit, --weigh and --curriculum go by."""
    out: Path | None = None
    network: NetworkName = "reprompt"
    """What is trained: our own network, or BLIP or GIT as Hugging Face's transformers has them, through the same loop; saved as their
    `save_pretrained` saves them. From scratch they have the sizes of --model, whose encoder must be a vision transformer, and our tokenizer."""
    init: str | None = None
    """Begin with this checkpoint, its network and its tokenizer, instead of from scratch: a model directory of ours, or a GIT of
    Hugging Face (directory or Hub id); with --network hf-blip or hf-git one of transformers, with its preprocessing. --model is then not used."""
    model: NetworkConfig = field(default_factory=NetworkConfig)
    max_steps: int = 1000
    """Optimizer updates."""
    batch_size: int = 64
    """Pairs per forward pass on each process."""
    joint: int = 1
    """Show 1 to this many images of a prompt together, as many as each batch draws, so that the network can read several at once (caption.py
    --joint). The data must have prompts of several images (generate_data.py --images-per-prompt)."""
    accumulate: int = 1
    """Forward and backward passes per update; an update sees batch-size x accumulate x processes pairs."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """What the network computes in: auto is bfloat16 on GPUs and on CPUs that multiply in it, float32 on other CPUs, which would emulate it.
    Weights and optimizer are float32 always, so a run may go on on another kind of machine."""
    optimizer: OptimizerName = "adamw"
    """AdamW, or Muon for matrices and kernels and AdamW for the rest. Muon learns from fewer pairs what begins from nothing; its updates are as large
    as AdamW's at the same --learning-rate."""
    learning_rate: float = 1e-3
    """Of the decoder, at its peak."""
    encoder_rate: float = 1.0
    """The encoder's learning rate as a multiple of the decoder's; 0.2 for a pretrained encoder, as GIT does."""
    frozen_encoder: float = 0.0
    """The share of the image encoder's depth, from the pixels on, that keeps its weights: 0 none, 1 all of it. What leads from it to the
    decoder's width always learns."""
    frozen_decoder: bool = False
    """The decoder keeps its weights, with --frozen-encoder 1 all that leads to it as well: then --joint teaches the network to read several images
    together, and single ones are read as before."""
    reuse_features: bool = False
    """Compute what the frozen encoder makes of the images once and keep it in the run directory. Needs --frozen-encoder 1 and
    --no-augment."""
    augment: bool = True
    """Show a random part (80 to 100 % of the area, stretched by up to a third) of every picture instead of all of it."""
    label_smoothing: float = 0.1
    weight_decay: float = 0.05
    warmup_steps: int = 100
    clip_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    ema_decay: float = 0.0
    """Evaluate and export a running mean of the weights that keeps this share of itself at every update (0.999 say), and less of itself at the
    beginning; 0 for none."""
    evaluate_every: int = 500
    """Steps between two evaluations on the validation split."""
    save_every: int = 250
    """Steps between two checkpoints."""
    keep_checkpoints: int = 2
    """How many of the last checkpoints stay; the best by validation loss stays as well."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, about a third more time."""
    compile: bool = False
    """Compile the network with torch.compile: a wait of a minute or two at the beginning, faster steps after it on a GPU. Needs a C++ compiler."""
    workers: int = 1
    """Processes that read and decode images, per training process."""
    final_pairs: int = 1000
    """Test pairs for the comparison at the end, at most."""
    seed: int = 0
    resume: bool = False
    """Go on with the run in --out from its last checkpoint."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"{name} must be a number, not {value}")
        for name in ("max_steps", "batch_size", "accumulate", "evaluate_every", "save_every", "keep_checkpoints", "final_pairs", "joint"):
            if not getattr(self, name) >= 1:
                raise ConfigError(f"{name} must be 1 or more, not {getattr(self, name)}")
        for name in ("workers", "warmup_steps", "weight_decay", "encoder_rate"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must not be below 0, but is {getattr(self, name)}")
        for name in ("learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be above 0, not {getattr(self, name)}")
        for name, most in (("frozen_encoder", 1.0), ("ema_decay", 0.99999), ("label_smoothing", 0.99)):
            if not 0 <= getattr(self, name) <= most:
                raise ConfigError(f"{name} must be between 0 and {most}, not {getattr(self, name)}")
        if self.warmup_steps > self.max_steps:
            raise ConfigError(
                f"warmup_steps {self.warmup_steps} is more than max_steps {self.max_steps}: the learning rate would never reach its peak. "
                f"Add --warmup-steps {self.max_steps // 10}"
            )
        if self.stream and self.chooses_by_fit:
            raise ConfigError("min_fit, weigh and curriculum choose among numbered pairs; leave them or stream out")
        if self.weigh and self.curriculum:
            raise ConfigError("weigh and curriculum are two orders of the pairs; leave one of them out")
        if self.joint > 1 and (self.stream or self.weigh or self.curriculum):
            raise ConfigError(
                "joint looks for a prompt's other images among numbered pairs in their usual order; leave stream, weigh and curriculum out"
            )
        if self.network in PEER_KINDS and (self.joint > 1 or self.frozen_decoder):
            raise ConfigError(f"joint and frozen_decoder are of our own network; leave them out with {self.network}")
        if self.only_frames and (self.joint == 1 or self.init is None):
            raise ConfigError(
                "frozen_encoder 1 and frozen_decoder leave nothing to learn but how --init reads several images together: add --init and --joint 4"
            )
        if self.reuse_features and self.stream:
            raise ConfigError("reuse_features keeps what belongs to numbered pairs; leave it or stream out")
        if self.reuse_features and (self.frozen_encoder < 1 or self.augment):
            raise ConfigError("reuse_features needs an encoder that makes the same of an image every time: add --frozen-encoder 1 --no-augment")

        if self.network in PEER_KINDS and self.reuse_features:
            raise ConfigError(f"{self.network} takes pictures, not features computed before; add --no-reuse-features")
        if self.network in PEER_KINDS and self.init is None and (self.model.pretrained_encoder or self.model.encoder_file is not None):
            raise ConfigError(
                f"{self.network} has an encoder of its own, into which timm's weights do not go: begin with --init, or from nothing with "
                "--model.no-pretrained-encoder --encoder-rate 1"
            )

    @property
    def chooses_by_fit(self) -> bool:
        return self.min_fit is not None or self.weigh or self.curriculum

    @property
    def only_frames(self) -> bool:
        """Whether the embeddings of several images are all that learns, of which single images have none."""
        return self.frozen_decoder and self.frozen_encoder == 1

    @property
    def run_directory(self) -> Path:
        return self.out if self.out is not None else Path("runs") / self.name

    def pairs_per_update(self, processes: int) -> int:
        return self.batch_size * self.accumulate * processes

    def save(self, path: Path) -> None:
        write_text(path, json.dumps(dataclasses.asdict(self), indent=2, default=str) + "\n")

    @classmethod
    def load(cls, path: Path) -> TrainConfig:
        """Read a run's config.json.

        Raises:
            ConfigError: missing, not JSON, or with unknown keys.
        """
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            model = _known(NetworkConfig, values.pop("model"), path)
            values |= {"out": Path(values["out"]) if values["out"] else None}
            model = {name: tuple(value) if isinstance(value, list) else value for name, value in model.items()}
            model["encoder_file"] = Path(model["encoder_file"]) if model.get("encoder_file") else None
            return cls(model=NetworkConfig(**model), **_known(cls, values, path))
        except FileNotFoundError as error:
            raise ConfigError(f"{path} does not exist: there is no run to resume") from error
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{path} is not the config.json of a run ({error})") from error


def _argument(text: str) -> tuple[str, Any]:
    """`"patch_size=2"` -> `("patch_size", 2)`; a value that is not JSON is a string."""
    name, sign, value = text.partition("=")
    if not sign or not name.isidentifier():
        raise ConfigError(f"encoder_arguments takes NAME=VALUE, not {text!r}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _known(kind: type[Any], values: dict[str, Any], path: Path) -> dict[str, Any]:
    if unknown := sorted(values.keys() - {field.name for field in dataclasses.fields(kind)}):
        raise ConfigError(f"{path}: unknown keys: {', '.join(unknown)}; was it written by a newer version?")
    return values


def mini() -> TrainConfig:
    """The embedded world from nothing on a 2-core CPU, in minutes."""
    return _preset("mini")


def small() -> TrainConfig:
    """One consumer GPU, 50,000 to 100,000 pairs."""
    return _preset("small")


def base() -> TrainConfig:
    """GIT-base shape, several GPUs, millions of pairs."""
    return _preset("base")


def photos() -> TrainConfig:
    """Captions of photographs on a 2-core CPU, in half an hour: what a published, frozen encoder sees in each, computed once."""
    return _preset("photos")


def mini_git() -> TrainConfig:
    """Hugging Face's GIT from nothing on the embedded world, as many parameters as `mini`."""
    return _preset("mini-git")


def mini_blip() -> TrainConfig:
    """Hugging Face's BLIP from nothing on the embedded world, as many parameters as `mini`."""
    return _preset("mini-blip")


def finetune() -> TrainConfig:
    """A published network (--init) on your pairs."""
    return _preset("finetune")


PRESETS = {"mini": mini, "mini-git": mini_git, "mini-blip": mini_blip, "photos": photos, "finetune": finetune, "small": small, "base": base}
# fmt: off
_ENCODERS = {
    "":          ("encoder",                   "pretrained_encoder", "stage", "image_size"),
    "mini":      ("resnet18",                  False,                2,       48),
    "mini-git":  ("vit_tiny_patch16_224",      False,                None,    48),
    "mini-blip": ("vit_tiny_patch16_224",      False,                None,    48),
    "photos":    ("tf_efficientnet_lite2",     True,                 None,    260),
    "finetune":  ("vit_base_patch16_clip_224", False,                None,    224),
    "small":     ("vit_small_patch16_224",     True,                 None,    224),
    "base":      ("vit_base_patch16_clip_224", True,                 None,    224),
}
_DECODERS = {
    "":          ("width", "layers", "heads", "ffn_width", "dropout", "vocab_size"),
    "mini":      (192,     2,        4,       768,         0.0,       2048),
    "mini-git":  (160,     2,        5,       640,         0.0,       2048),
    "mini-blip": (160,     2,        5,       640,         0.0,       2048),
    "photos":    (384,     2,        6,       1536,        0.2,       4096),
    "finetune":  (768,     6,        12,      3072,        0.1,       30_000),
    "small":     (384,     6,        6,       1536,        0.1,       8192),
    "base":      (768,     6,        12,      3072,        0.1,       30_000),
}
_RUNS = {
    "":          ("network",  "data",            "max_steps", "batch_size", "frozen_encoder", "reuse_features", "augment", "ema_decay"),
    "mini":      ("reprompt", "datasets/mini",   3000,        16,           0.0,              False,            False,     0.0),
    "mini-git":  ("hf-git",   "datasets/mini",   3000,        16,           0.0,              False,            False,     0.0),
    "mini-blip": ("hf-blip",  "datasets/mini",   3000,        16,           0.0,              False,            False,     0.0),
    "photos":    ("reprompt", "datasets/photos", 3000,        80,           1.0,              True,             False,     0.0),
    "finetune":  ("reprompt", "datasets/mini",   3000,        32,           0.0,              False,            False,     0.0),
    "small":     ("reprompt", "datasets/small",  20_000,      128,          0.0,              False,            True,      0.0),
    "base":      ("reprompt", "datasets/base",   200_000,     64,           0.0,              False,            True,      0.9998),
}
_OPTIMIZERS = {
    "":          ("optimizer", "learning_rate", "encoder_rate", "warmup_steps"),
    "mini":      ("muon",      2e-3,            1.0,            100),
    "mini-git":  ("muon",      2e-3,            1.0,            100),
    "mini-blip": ("muon",      2e-3,            1.0,            100),
    "photos":    ("adamw",     5e-4,            1.0,            100),
    "finetune":  ("adamw",     5e-5,            0.2,            200),
    "small":     ("adamw",     5e-4,            0.2,            1000),
    "base":      ("adamw",     2.5e-4,          0.2,            5000),
}
_INTERVALS = {
    "":          ("evaluate_every", "save_every", "workers"),
    "mini":      (1500,             500,          1),
    "mini-git":  (1500,             500,          1),
    "mini-blip": (1500,             500,          1),
    "photos":    (750,              250,          1),
    "finetune":  (500,              250,          1),
    "small":     (1000,             250,          6),
    "base":      (2000,             1000,         6),
}
# fmt: on
_MINI_VIT = ("patch_size=8", "embed_dim=160", "depth=3", "num_heads=5")


def _preset(name: str) -> TrainConfig:
    encoder, decoder, *run = (_row(table, name) for table in (_ENCODERS, _DECODERS, _RUNS, _OPTIMIZERS, _INTERVALS))
    arguments = _MINI_VIT if encoder["encoder"] == "vit_tiny_patch16_224" else ()
    return TrainConfig(name=name, model=NetworkConfig(encoder_arguments=arguments, **encoder, **decoder), **dict(ChainMap(*run)))


def _row(table: dict[str, tuple[Any, ...]], name: str) -> dict[str, Any]:
    return dict(zip(table[""], table[name], strict=True))


def preset_of(arguments: Sequence[str]) -> str:
    """The preset of a command line that names none."""
    if any(argument.split("=")[0] == "--init" for argument in arguments):
        return "finetune"
    words = [word for argument in arguments for word in argument.split("=")]
    network = words[words.index("--network") + 1 :][:1] if "--network" in words else []
    return {"hf-git": "mini-git", "hf-blip": "mini-blip"}.get("".join(network), "mini")
