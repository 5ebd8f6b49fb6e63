"""One network of the study, and how many updates of each take as long."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

import train
from data.files import write_json
from data.sources.chosen import ChosenPairs, PairSource, spread
from data.store.pairs import Pair
from diffusion.mini.world import COUNTS, Scene
from model.files import WEIGHTS_FILE
from tokenizer import PromptTokenizer
from training.config import PRESETS, NetworkName, TrainConfig
from training.data import Batches, TrainingData
from training.health import TrainingError
from training.networks import Network
from training.objective import CaptionLoss
from training.optimizer import build_optimizer
from training.processes import start_accelerator
from training.run_directory import CONFIG_FILE, LOCK_FILE, MODEL, held
from training.starting import build_network

TEXT_TOKENS = 48  # positions of each network's text
RESULT_FILE = "result.json"
_ROUNDS, _AT_ONCE = 9, 8  # of updates that are timed


@dataclass(frozen=True, kw_only=True)
class LearnConfig:
    """One network, its pairs and its time.

    Attributes:
        network: as train.py's.
        preset: whose sizes and optimizer it has.
        tokenizer: a tokenizer.json, the same for all.
        pairs: how many of the training pairs it sees; None for all.
        texts: the prompts, or a plain caption of what is in the picture.
        init: a directory to begin with.
    """

    network: NetworkName
    preset: str
    data: str
    tokenizer: str
    learning_rate: float
    updates: int
    pairs: int | None = None
    texts: Literal["prompts", "captions"] = "prompts"
    init: str | None = None
    seed: int = 0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    evaluations: int = 8


def caption(slots: Mapping[str, str]) -> str:
    """What is in the picture and where, without how it is made: style, light, finish."""
    numbers = {word: number for number, word in COUNTS.items()}
    named = {name: slots[name] for name in ("subject", "background", "style", "colour", "relation", "other")}
    return Scene(count=numbers[slots["count"]], **named).prompt(1).partition(", ")[0]


class Captioned(ChosenPairs):
    """The pairs of another source, with a caption in the place of the prompt."""

    def __init__(self, pairs: PairSource) -> None:
        super().__init__(pairs, range(len(pairs)))

    def __getitem__(self, index: int) -> Pair:
        pair = self.pairs[index]
        return dataclasses.replace(pair, prompt=caption(pair.slots))

    def prompt(self, index: int) -> str:
        return caption(self.metadata(index)["slots"])

    def fingerprint(self) -> str:
        return f"captions of {self.pairs.fingerprint()}"


def learn(config: LearnConfig, out: Path) -> dict[str, Any]:
    """Train into `out`; what was trained there before with the same settings is taken as it is. On one thread, so that two train side by side.

    Returns:
        what `RESULT_FILE` holds: the settings, parameters, core minutes, the curve on validation pairs, and why it ended early if it `diverged`.

    Raises:
        FileExistsError: `out` was trained with other settings.
        RunStateError: another process trains there, or it holds something else.
    """
    if (found := kept_result(config, out)) is not None:
        return found
    torch.set_num_threads(1)
    tokenizer, plan = PromptTokenizer.load(config.tokenizer), _plan(config)
    data = _data(plan, config)
    with held(out):
        for path in out.iterdir():  # of one that did not come to its end
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != LOCK_FILE:
                path.unlink()
        plan.save(out / CONFIG_FILE)
        result = _learn(config, plan, data, tokenizer, out)
        write_json(out / RESULT_FILE, result)
    return result


def kept_result(config: LearnConfig, out: Path) -> dict[str, Any] | None:
    """What `learn` returned before; None where it did not come to its end.

    Raises:
        FileExistsError: of other settings, or begun with other weights.
    """
    path = out / RESULT_FILE
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    if found["config"] != dataclasses.asdict(config) or found["begun_with"] != _begun_with(config):
        raise FileExistsError(f"{out} was trained with other settings; take it away, or give another --runs")
    return dict(found)


def _begun_with(config: LearnConfig) -> str:
    """Which weights lie in `init`: empty without."""
    return hashlib.sha256((Path(config.init) / WEIGHTS_FILE).read_bytes()).hexdigest()[:16] if config.init is not None else ""


def _learn(config: LearnConfig, plan: TrainConfig, data: TrainingData, tokenizer: PromptTokenizer, out: Path) -> dict[str, Any]:
    curve: list[dict[str, float]] = []
    trained, since = 0.0, time.process_time()

    def validate(network: Network, tokenizer: PromptTokenizer, batches: Batches, accelerator: Any, tracker: Any, step: int) -> dict[str, float]:
        nonlocal trained, since
        trained += time.process_time() - since
        values = train.write_validation_pairs(network, tokenizer, batches, accelerator, tracker, step)
        curve.append({"update": step, "pairs": step * plan.batch_size, "minutes": trained / 60, **values})
        since = time.process_time()
        return values

    model = _network(plan, tokenizer)
    since = time.process_time()
    diverged = ""
    try:
        train.fit(plan, start_accelerator(plan.precision), out, data, model, tokenizer, validate=validate)
    except TrainingError as error:
        diverged = str(error)
    return {
        "config": dataclasses.asdict(config),
        "begun_with": _begun_with(config),
        "diverged": diverged,
        "parameters": _count(model),
        "encoder_parameters": _count(model.encoder),
        "pairs_shown": config.updates * plan.batch_size,
        "core_minutes": trained / 60,
        "curve": curve,
    }


def model_of(run: Path) -> Path:
    return run / MODEL


def seconds_per_update(configs: Mapping[str, LearnConfig], scratch: Path) -> dict[str, float]:
    """Of one core: medians of updates on real batches, of all networks in turn, after a round that does not count."""
    torch.set_num_threads(1)
    times: dict[str, list[float]] = {name: [] for name in configs}
    updating = {name: _updating(config, scratch) for name, config in configs.items()}
    for _ in range(1 + _ROUNDS):
        for name, update in updating.items():
            start = time.process_time()
            for _ in range(_AT_ONCE):
                update()
            times[name].append((time.process_time() - start) / _AT_ONCE)
    return {name: statistics.median(each[1:]) for name, each in times.items()}


def _updating(config: LearnConfig, scratch: Path) -> Callable[[], None]:
    plan, tokenizer = _plan(config), PromptTokenizer.load(config.tokenizer)
    accelerator = start_accelerator(plan.precision)
    model = _network(plan, tokenizer)
    objective = CaptionLoss(model).train()
    about = {"encoder_rate": plan.encoder_rate, "weight_decay": plan.weight_decay}
    optimizer = build_optimizer(plan.optimizer, model.encoder, model.decoder, learning_rate=1e-6, **about)
    batches = Batches(_data(plan, config), model, tokenizer, scratch, accelerator)
    coming = batches.after(0)

    def update() -> None:
        batch = next(coming).to(accelerator.device, batches.normalise)
        with accelerator.autocast():
            loss = objective(batch.images, batch.input_ids, batch.labels, batch.pictures) / batch.num_tokens
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return update


def _plan(config: LearnConfig) -> TrainConfig:
    preset = PRESETS[config.preset]()
    return dataclasses.replace(
        preset,
        data=config.data,
        network=config.network,
        init=config.init,
        learning_rate=config.learning_rate,
        seed=config.seed,
        precision=config.precision,
        workers=0,
        max_steps=config.updates,
        warmup_steps=min(preset.warmup_steps, config.updates // 10),
        evaluate_every=-(-config.updates // config.evaluations),
        save_every=10**9,
    )


def _network(config: TrainConfig, tokenizer: PromptTokenizer) -> Network:
    torch.manual_seed(config.seed)
    return build_network(config, tokenizer, text_tokens=TEXT_TOKENS, pretrained=False)


def _data(plan: TrainConfig, config: LearnConfig) -> TrainingData:
    data = TrainingData(plan)
    if config.pairs is not None:
        data.training = ChosenPairs(data.training, spread(data.training)[: config.pairs])
    if config.texts == "captions":
        data.training, data.validation = Captioned(data.training), Captioned(data.validation)
    return data


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
