"""What a network learns in ten minutes: ours beside Hugging Face's GIT and BLIP with random weights, as many parameters, the same pairs, the
same tokenizer, the same loop (`train.fit`), the same minutes of training.

    python benchmarks/learning.py --data datasets/mini
    python benchmarks/learning.py --data datasets/mini --minutes 2 --networks git --peer-learning-rate 3e-4
    python benchmarks/learning.py --data datasets/mini --json learning.json --picture docs/learning.png

Each is evaluated on validation pairs while it learns (which does not count as training) and on test pairs at the end, all greedily.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from rounds import machine, markdown

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import train
from diffusion.mini.world import read_slots
from evaluation.judging import Judge
from evaluation.meaning import SentenceSimilarity
from evaluation.overlap import CiderD
from tokenizer import PromptTokenizer
from training.config import TrainConfig, mini, mini_blip, mini_git
from training.data import Batches, TrainingData
from training.objective import CaptionLoss
from training.optimizer import build_optimizer
from training.processes import start_accelerator
from training.starting import build_network
from training.validation import ValidationPairs

TEXT_TOKENS = 48  # positions of each network's text
COLOURS = {"ours": "tab:blue", "git": "tab:orange", "blip": "tab:green"}


@dataclass(frozen=True, kw_only=True)
class LearningConfig:
    """What to compare."""

    data: Path
    """A data set directory."""
    networks: tuple[str, ...] = ("ours", "git", "blip")
    minutes: float = 10.0
    """Of training, for each."""
    learning_rate: float = mini().learning_rate
    """Of ours."""
    peer_learning_rate: float = mini().learning_rate
    """Of the others; all have the preset's optimizer."""
    evaluations: int = 10
    test_pairs: int = 1000
    seed: int = 0
    json: Path | None = None
    picture: Path | None = None


PRESETS = {"ours": mini, "git": mini_git, "blip": mini_blip}


def build(config: TrainConfig, tokenizer: PromptTokenizer) -> Any:
    torch.manual_seed(config.seed)
    return build_network(config, tokenizer, text_tokens=TEXT_TOKENS, pretrained=False)


def seconds_per_step(model: Any, batches: Batches, accelerator: Any) -> float:
    """The median of some updates on real batches, after a few that do not count."""
    objective, times = CaptionLoss(model).train(), list[float]()
    optimizer = build_optimizer(mini().optimizer, model.encoder, model.decoder, learning_rate=1e-6, encoder_rate=1.0, weight_decay=0.0)
    with closing(batches.after(0)) as coming:
        for _ in range(60):
            start = time.perf_counter()
            batch = next(coming).to(accelerator.device, batches.normalise)
            with accelerator.autocast():
                loss = objective(batch.images, batch.input_ids, batch.labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            times.append(time.perf_counter() - start)
    return sorted(times[10:])[25]


def learn(name: str, config: LearningConfig, tokenizer: PromptTokenizer, data: TrainingData, similarity: SentenceSimilarity) -> dict[str, Any]:
    rate = config.learning_rate if name == "ours" else config.peer_learning_rate
    base = dataclasses.replace(PRESETS[name](), data=str(config.data), learning_rate=rate, seed=config.seed, save_every=10**9)
    accelerator = start_accelerator(base.precision)
    with tempfile.TemporaryDirectory() as directory:
        run = Path(directory)
        trial = build(base, tokenizer)
        step = seconds_per_step(trial, Batches(data, trial, tokenizer, run, accelerator), accelerator)
        steps = max(20, int(60 * config.minutes / step))
        plan = dataclasses.replace(
            base, max_steps=steps, warmup_steps=min(base.warmup_steps, steps // 10), evaluate_every=max(1, -(-steps // config.evaluations))
        )
        model = build(plan, tokenizer)
        curve: list[dict[str, float]] = []
        clock = {"trained": 0.0, "since": time.perf_counter()}

        def validate(network: Any, tokenizer: Any, batches: Batches, accelerator: Any, tracker: Any, step: int) -> dict[str, float]:
            clock["trained"] += time.perf_counter() - clock["since"]
            texts, loss = write(network, tokenizer, batches, batches.validation, accelerator)
            references = [[prompt] for prompt in batches.validation.prompts]
            values = {"similarity": float(similarity(references, texts).mean()), "cider_d": float(CiderD(references)(texts).mean()), "loss": loss}
            curve.append({"minutes": clock["trained"] / 60, "step": step} | values)
            clock["since"] = time.perf_counter()
            return values

        train.fit(plan, accelerator, run, data, model, tokenizer, validate=validate, export=lambda *_: None)
        batches, held_out = Batches(data, model, tokenizer, run, accelerator), data.test(config.test_pairs)
        pairs = ValidationPairs.read(
            data.testing, batches.picture, batches.text, count=config.test_pairs, shown=0
        )  # the same, as the network takes them
        texts, _ = write(model.eval(), tokenizer, batches, pairs, accelerator)
        judge = Judge(held_out.references, held_out.groups, similarity=similarity, slots=held_out.slots, read_slots=read_slots)
        judgement = judge(texts)
    found = {key: value.mean for key, value in {**judgement.estimates, **judgement.slots}.items()}
    return {
        "name": name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "learning_rate": rate,
        "steps": steps,
        "minutes": curve[-1]["minutes"],
        "test": found,
        "curve": curve,
    }


@torch.no_grad()
def write(network: Any, tokenizer: Any, batches: Batches, pairs: ValidationPairs, accelerator: Any) -> tuple[list[str], float]:
    """Greedy texts of pairs, and the loss."""
    network.eval()
    texts, total, count = list[str](), 0.0, 0
    for batch in pairs.batches(batches.collate, accelerator.device, batches.picture.normalise):
        with accelerator.autocast():
            total += float(network.summed_loss(batch.images, batch.input_ids, batch.labels))
            texts += [tokenizer.decode(_before(row, network.config.eos_token_id)) for row in network.generate(batch.images, num_beams=1)[0].tolist()]
        count += batch.num_tokens
    return texts, total / count


def _before(row: list[int], end: int) -> list[int]:
    return row[: row.index(end)] if end in row else row


def main(config: LearningConfig) -> None:
    data = TrainingData(dataclasses.replace(mini(), data=str(config.data)))
    tokenizer = PromptTokenizer.train(data.prompts(), mini().model.vocab_size)
    similarity = SentenceSimilarity()
    results = [learn(name, config, tokenizer, data, similarity) for name in config.networks]
    shown = ("similarity", "cider_d", "exact_match", "subject", "count", "background", "style")
    rows = [
        {"network": r["name"], "parameters": f"{r['parameters'] / 1e6:.2f} M", "learning rate": f"{r['learning_rate']:g}", "steps": r["steps"]}
        | {"minutes": r["minutes"]}
        | {name: r["test"].get(name, float("nan")) for name in shown}
        for r in results
    ]
    print(f"\n{config.minutes:g} minutes of training on {config.data}; test pairs, greedy")
    print(f"{machine(torch.device('cpu'))}\n\n{markdown(rows)}")
    if config.json is not None:
        config.json.write_text(json.dumps({"machine": machine(torch.device("cpu")), "results": results}, indent=2) + "\n", encoding="utf-8")
    if config.picture is not None:
        draw(results, config.picture)


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Quality against minutes of training."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4))
    for axis, name, title in zip(axes, ("similarity", "cider_d"), ("Sentence similarity", "CIDEr-D"), strict=True):
        for result in results:
            points = [(point["minutes"], point[name]) for point in result["curve"]]
            label = f"{result['name']} ({result['parameters'] / 1e6:.1f} M)"
            axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label, color=COLOURS.get(result["name"]))
        axis.set_xlabel("minutes of training, two CPU cores")
        axis.set_title(f"{title}, validation pairs")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main(tyro.cli(LearningConfig, description=__doc__))
