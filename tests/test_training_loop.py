"""train.py's loop beside one written by hand, from the same beginning on the same pairs."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from commands import TINY
from left_by_runs import curve
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import train
import training.data
from data.loading.augmentation import RandomCrop
from data.loading.examples import Batch, Collate, Examples, TextFormat
from data.loading.order import ShuffledBatches
from data.store.pairs import PairDataset
from inference import PromptInverter
from model import CaptionModel
from tokenizer import PromptTokenizer
from training.config import TrainConfig
from training.objective import CaptionLoss
from training.starting import build_network

LOST = 7  # the forward pass, counted from 1, whose loss is no number: the first of update 3
RECIPE = ["--max-steps", 12, "--evaluate-every", 2, "--save-every", 12, "--warmup-steps", 3, "--learning-rate", 0.03, "--encoder-rate", 0.3]
RECIPE += ["--weight-decay", 0.5, "--clip-norm", 0.4, "--label-smoothing", 0.2, "--ema-decay", 0.7, "--seed", 7, "--precision", "fp32"]
RECIPE += ["--batch-size", 6, "--accumulate", 2, "--model.encoder", "test_resnet", "--model.dropout", 0.2, "--model.max-text-tokens", 80]


def recipe(data: Path, out: Path) -> list[str]:
    return list(map(str, ["mini", "--data", data, "--out", out, *TINY, *RECIPE]))


@dataclass
class ByHand:
    """What the loop below finds: losses by update, weights (the running mean) at every evaluation."""

    losses: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    validation: dict[int, float] = field(default_factory=dict)
    weights: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    last: dict[str, Tensor] = field(default_factory=dict)


def train_by_hand(config: TrainConfig, run: Path, *, steps: int = 12, bfloat16: bool = False) -> ByHand:
    """GIT's recipe in plain PyTorch: warmup and cosine, AdamW in two groups of rates, clipping, label smoothing, a running mean."""
    tokenizer = PromptTokenizer.load(run / "tokenizer.json")
    torch.manual_seed(config.seed)
    model = build_network(config, tokenizer, text_tokens=80, pretrained=False).train()
    decays = {id(p) for name, p in model.named_parameters() if p.ndim > 1 and "embedding" not in name and name != "encoder.position"}
    groups = [
        {"params": [p for p in part.parameters() if (id(p) in decays) == decayed], "rate": rate, "weight_decay": 0.5 if decayed else 0.0}
        for part, rate in ((model.encoder, 0.3 * 0.03), (model.decoder, 0.03))
        for decayed in (True, False)
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-6, foreach=False)
    mean, found, passes, updates = copy.deepcopy(model), ByHand(), 0, 0
    batches = training_batches(config, model, tokenizer)
    autocast = torch.autocast("cpu", torch.bfloat16) if bfloat16 else nullcontext()
    for step in range(steps):
        before = {name: buffer.clone() for name, buffer in model.named_buffers()}
        update = [next(batches), next(batches)]
        tokens, total = sum(int((batch.labels != -100).sum()) for batch in update), 0.0
        for number, batch in enumerate(update):
            torch.manual_seed(7 * 1_000_000_007 + 2 * step + number)
            with autocast:
                logits = model(model.config.preprocessing.normalise(batch.images), batch.input_ids)
            loss = F.cross_entropy(logits.float().transpose(1, 2), batch.labels, ignore_index=-100, label_smoothing=0.2, reduction="sum") / tokens
            passes += 1
            loss = loss * (math.nan if passes == LOST else 1)
            loss.backward()
            total += float(loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.4)
        factor = (step + 1) / 3 if step < 3 else 0.5 * (1 + math.cos(math.pi * (step - 3) / 9))
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * factor
        if math.isfinite(norm):
            optimizer.step()
            updates += 1
            kept = min(0.7, (1 + updates) / (10 + updates))
            for ours, theirs in zip(mean.parameters(), model.parameters(), strict=True):
                ours.data = kept * ours.data + (1 - kept) * theirs.data
        else:
            for name, buffer in model.named_buffers():
                buffer.copy_(before[name])
        optimizer.zero_grad()
        found.losses.append(total)
        found.rates.append(0.03 * factor)
        if step % 2 == 1:
            for ours, theirs in zip(mean.buffers(), model.buffers(), strict=True):
                ours.data = theirs.data.clone()
            found.validation[step + 1] = validation_loss(config, mean, tokenizer)
            found.weights[step + 1] = {name: tensor.clone() for name, tensor in mean.state_dict().items()}
    found.last = model.state_dict()
    return found


def training_batches(config: TrainConfig, model: CaptionModel, tokenizer: PromptTokenizer) -> Iterator[Batch]:
    preprocess = model.config.preprocessing
    text = TextFormat(tokenizer.encode, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, 80)
    pairs = PairDataset(Path(config.data), "train")
    examples = Examples(pairs, preprocess, text, augment=RandomCrop(preprocess.size, preprocess.interpolation), seed=7)
    return (Collate(tokenizer.pad_id, -100)(examples.__getitems__(places)) for places in ShuffledBatches(len(pairs), 6, seed=7))


@torch.no_grad()
def validation_loss(config: TrainConfig, model: CaptionModel, tokenizer: PromptTokenizer) -> float:
    """Per token, without label smoothing, pair by pair."""
    model.eval()
    total, count = 0.0, 0
    pairs = PairDataset(Path(config.data), "val")
    for pair in (pairs[number] for number in range(len(pairs))):
        ids = torch.tensor([[tokenizer.bos_id, *tokenizer.encode(pair.prompt), tokenizer.eos_id]])
        logits = model(model.config.preprocessing(pair.image)[None], ids[:, :-1])
        total += float(F.cross_entropy(logits[0].float(), ids[0, 1:], reduction="sum"))
        count += ids.shape[1] - 1
    return total / count


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(float((one[name].float() - other[name].float()).abs().max()) for name in one)


def test_the_loop_is_the_one_written_by_hand(
    trained: tuple[Path, Path, str], tmp_path: Path, train_here: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []

    class Broken(CaptionLoss):
        def forward(self, images: Tensor, input_ids: Tensor, labels: Tensor, pictures: Tensor | None = None) -> Tensor:
            passes.append(1)
            return super().forward(images, input_ids, labels, pictures) * (math.nan if len(passes) == LOST else 1)

    monkeypatch.setattr(train, "CaptionLoss", Broken)
    monkeypatch.setattr(train, "LOG_EVERY", 1)
    data, out = trained[0], tmp_path / "run"
    train_here(*recipe(data, out), compare=True)
    config = train.parse(recipe(data, out))
    hand = train_by_hand(config, out)

    seen, losses = curve(out, "train/loss"), hand.losses
    assert [math.isnan(loss) for loss in seen] == [math.isnan(loss) for loss in losses] == [number == 3 for number in range(12)]
    assert [loss for loss in seen if loss == loss] == pytest.approx([loss for loss in losses if loss == loss], rel=1e-5)
    assert curve(out, "learning_rate/decoder/decayed")[:-1] == pytest.approx(hand.rates[1:], rel=1e-5)  # of the update after
    assert curve(out, "train/lost_updates")[-1] == 1
    assert curve(out, "validation/loss") == pytest.approx(list(hand.validation.values()), rel=1e-4)

    last = safetensors.torch.load_file(out / "checkpoints" / "step-000012" / "model.safetensors")
    assert distance({f"model.{name}": tensor for name, tensor in hand.last.items()}, last) < 3e-3
    best = min(hand.validation, key=lambda step: hand.validation[step])
    assert best < 12, hand.validation  # or it would not show whether the best weights were exported, or the last
    exported = safetensors.torch.load_file(out / "model" / "model.safetensors")
    assert distance(hand.weights[best], exported) < 3e-3
    assert min(distance(weights, exported) for step, weights in hand.weights.items() if step != best) > 1e-2

    test = PairDataset(data, "test")
    compared = [json.loads(line)["key"] for line in (out / "report" / "predictions.jsonl").read_text().splitlines()]
    assert len(compared) == min(6, len(test))
    assert set(compared) <= {test.key(number) for number in range(len(test))}


def test_it_computes_in_the_precision_that_is_asked_for(trained: tuple[Path, Path, str], tmp_path: Path, train_here: Callable[..., None]) -> None:
    more = ["--precision", "bf16", "--max-steps", "3", "--evaluate-every", "3"]
    train_here(*recipe(trained[0], tmp_path / "run"), *more)
    config = train.parse([*recipe(trained[0], tmp_path / "run"), *more])
    half, single = (train_by_hand(config, tmp_path / "run", steps=3, bfloat16=bfloat16).losses for bfloat16 in (True, False))
    logged = curve(tmp_path / "run", "train/loss")[0]  # the mean of the three
    assert abs(logged - sum(half) / 3) < 0.2 * abs(logged - sum(single) / 3)


def noting(of: Callable[..., Any], name: str, order: list[str]) -> Callable[..., Any]:
    def called(*arguments: Any, **more: Any) -> Any:
        order.append(name)
        return of(*arguments, **more)

    return called


@pytest.mark.parametrize("reuse", [False, True])
def test_captions_of_one_picture_are_trained_on_it(
    tmp_path: Path, train_here: Callable[..., None], reuse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One, two and three captions: an update of all six, whose loss is that of each caption on its own picture."""
    colours = ("red", "green", "blue")
    for split in ("train", "val", "test"):
        (tmp_path / split).mkdir()
        lines = []
        for number, colour in enumerate(colours):
            Image.new("RGB", (32, 32), colour).save(tmp_path / split / f"{colour}.png")
            captions = [f"{split} {colour} {word}" for word in ("a picture", "all of it", "plain")[: number + 1]]
            lines.append(json.dumps({"file_name": f"{colour}.png", "caption": captions}))
        (tmp_path / split / "metadata.jsonl").write_text("\n".join(lines))
    neighbours: list[Sequence[int]] = []
    batches = training.data.ShuffledBatches
    monkeypatch.setattr(training.data, "ShuffledBatches", lambda *some, **more: neighbours.append(list(more["pictures"])) or batches(*some, **more))
    once = ["--max-steps", 1, "--evaluate-every", 1, "--warmup-steps", 0, "--learning-rate", 1e-12, "--precision", "fp32", "--model.dropout", 0]
    frozen = ["--frozen-encoder", 1, "--reuse-features"] if reuse else []
    order = list[str]()
    for place, name in ((train, "Meter"), (training.data, "compute_features")):
        monkeypatch.setattr(place, name, noting(getattr(place, name), name, order))
    train_here("mini", "--data", tmp_path, "--out", tmp_path / "run", *TINY, *once, "--batch-size", 6, "--no-augment", *frozen)
    assert order == [*["compute_features"] * reuse, "Meter"]  # what is computed before counts as no update's time
    assert neighbours == [[0, 1, 1, 3, 3, 3]]
    inverter = PromptInverter.from_pretrained(tmp_path / "run" / "model")
    model, preprocess = inverter.model.train(), inverter.model.config.preprocessing
    total, count = 0.0, 0
    for number, colour in enumerate(colours):
        pixels = preprocess.normalise(preprocess.pixels(Image.new("RGB", (32, 32), colour))[None])
        for word in ("a picture", "all of it", "plain")[: number + 1]:
            tokens = torch.tensor([[inverter.tokenizer.bos_id, *inverter.tokenizer.encode(f"train {colour} {word}"), inverter.tokenizer.eos_id]])
            total += float(model.summed_loss(pixels, tokens[:, :-1], tokens[:, 1:]))
            count += tokens.shape[1] - 1
    assert curve(tmp_path / "run", "train/loss") == [pytest.approx(total / count, abs=2e-3 if reuse else 1e-5)]  # features are kept as float16
