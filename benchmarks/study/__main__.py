"""The study of docs/STUDY.md, from nothing to the page: how well ours, Hugging Face's GIT and Hugging Face's BLIP recover the prompts of the embedded
world when all are trained alike, and why they differ.

    python -m benchmarks.study                     all of it, an hour and a half of two cores; stopped, the same command goes on
    python -m benchmarks.study --minutes 1 --rate-minutes 0.3 --images 4000 --runs runs/trial --data datasets/trial --out /tmp/trial    a trial

1 pairs: made by generate_data.py where they are not there
2 rates: each network for a minute or two at each learning rate; it keeps the one with the lowest validation loss
3 networks: each at its rate, with several seeds, for as many updates as fit into the same minutes of one core, two at a time
4 comparison on the pictures in the box; drift over rounds of painting and captioning; where they look
5 fine-tuning: what a network that learnt other texts of the same pictures gains, beside one from nothing
6 the page, from the JSON files of the steps before
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import multiprocessing
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from jinja2 import Environment, StrictUndefined

from benchmarks.rounds import machine
from benchmarks.study.comparing import METRICS, compare_runs, differences, judgements, mistakes, pictures_in_the_box
from benchmarks.study.drawing import draw_attention, draw_drift, draw_learning, draw_slots
from benchmarks.study.learning import LearnConfig, kept_result, learn, seconds_per_update
from benchmarks.study.looking import Look, looks, summary, trained_network
from core.device import compute_precision
from data.embeddings import sentence_model_at_hand
from data.errors import MissingExtraError, ShardError
from data.files import write_json, write_text
from data.sources.chosen import PairSource, prompts
from data.sources.opening import open_splits
from data.store.directory import DATASET_FILE, is_finished
from diffusion.mini import MINI
from diffusion.painting import painting_with
from evaluation.judging import SLOT, Judgement
from evaluation.measuring import check_libraries
from evaluation.round_trip import Painter
from inference import load_inverter
from tokenizer import TOKENIZER_FILE
from training.config import NetworkName, mini
from training.run_directory import BEGUN_FILE, RunStateError, begin, check_begun
from training.starting import run_tokenizer

NETWORKS: dict[str, tuple[NetworkName, str]] = {  # name: --network and preset
    "reprompt": ("reprompt", "mini"),
    "reprompt-vit": ("reprompt", "mini-git"),
    "hf-git": ("hf-git", "mini-git"),
    "hf-blip": ("hf-blip", "mini-blip"),
}
PAIRED = (("reprompt", "reprompt-vit"), ("reprompt-vit", "hf-git"), ("hf-git", "hf-blip"), ("reprompt-vit", "hf-blip"))
TUNED = ("hf-git", "hf-blip")
TUNING_PAIRS, TUNING_UPDATES = 1000, 300
LOOKED_AT = 300  # pictures
ATTENTION_SLOTS, ATTENTION_ROWS = ("subject", "background"), 4
STUDY_FILE = "study.json"
_AT_ONCE = 2  # trainings


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """How long, on how much, and where to."""

    data: Path = Path("datasets/study")
    images: int = 40_000
    """Pairs of the embedded world that are made, validation and test pairs among them."""
    runs: Path = Path("runs/study")
    """For what is trained; taken as it is where it is there already with the same settings."""
    out: Path = Path("docs")
    """STUDY.md, and a directory study with its pictures and JSON files."""
    minutes: float = 8.0
    """Of one core, for each network and seed."""
    rates: tuple[float, ...] = (2e-3, 4e-3, 8e-3, 1.6e-2)
    """Learning rates that each network is tried with."""
    rate_minutes: float = 1.5
    """Of one core, for each network and rate."""
    seeds: int = 2
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    drift_pictures: int = 200
    rounds: int = 4
    """Of painting and captioning."""


def main(config: StudyConfig) -> None:
    check_libraries()
    if sentence_model_at_hand() is None:
        raise MissingExtraError("the study compares what sentences say: pip install -e '.[eval]'")
    make_pairs(config)
    training = open_splits(str(config.data))["train"]
    tokenizer = config.runs / TOKENIZER_FILE
    config.runs.mkdir(parents=True, exist_ok=True)
    tokens = run_tokenizer(tokenizer, mini(), prompts(training)).vocab_size
    begun: dict[str, Any] = {"training pairs": training.fingerprint(), "tokenizer": hashlib.sha256(tokenizer.read_bytes()).hexdigest()[:16]}
    begun |= {
        "model": {name: " ".join(one) for name, one in NETWORKS.items()},
        "computed in": compute_precision(torch.device("cpu"), config.precision).name,
        "machine": machine(torch.device("cpu")),
    }
    if (config.runs / BEGUN_FILE).exists():
        check_begun(config.runs, begun)
    else:
        begin(config.runs, begun)
    shared: dict[str, Any] = {"data": str(config.data), "tokenizer": str(tokenizer), "precision": config.precision}
    plain = {
        name: LearnConfig(network=network, preset=preset, learning_rate=mini().learning_rate, updates=1, **shared)
        for name, (network, preset) in NETWORKS.items()
    }
    paces = time_updates(config, plain)
    plain = {name: dataclasses.replace(one, updates=in_minutes(config.minutes, paces[name])) for name, one in plain.items()}
    tried = try_rates(config, plain, paces)
    rates = {name: min(losses, key=lambda rate: losses[rate]) for name, losses in tried.items()}  # those that diverged have an infinite loss
    jobs = {
        config.runs / f"{name}-{seed}": dataclasses.replace(one, learning_rate=rates[name], seed=seed)
        for name, one in plain.items()
        for seed in range(config.seeds)
    }
    trained = learn_all(jobs)
    check_trained(trained)

    directory = config.out / "study"
    study: dict[str, Any] = {
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in dataclasses.asdict(config).items()},
        "machine": begun["machine"],
        "training_pairs": len(training),
        "tokens": tokens,
        "rates": {name: {f"{rate:g}": loss if math.isfinite(loss) else None for rate, loss in losses.items()} for name, losses in tried.items()},
        "chosen_rates": rates,
        "seconds_per_update": paces,
        "networks": {name: [trained[config.runs / f"{name}-{seed}"] for seed in range(config.seeds)] for name in NETWORKS},
    }
    study |= compare_seeds(config, training, directory)
    drift(config, training, directory)
    study["looking"] = look(config, jobs, directory)
    study |= tune(config, plain, rates, directory)
    write_json(directory / STUDY_FILE, study)
    write_page(config.out)


def make_pairs(config: StudyConfig) -> None:
    if config.data.exists() and is_finished(config.data):
        about = json.loads((config.data / DATASET_FILE).read_text(encoding="utf-8"))
        if about.get("settings", {}).get("num_images", config.images) != config.images:
            raise ValueError(f"{config.data} holds {about['settings']['num_images']} pairs: give --images so, or another --data")
        return
    command = ["generate_data.py", "--seed", "1", "--num-images", str(config.images), "--shard-size", "512", "--out", str(config.data)]
    subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *command], check=True)


def time_updates(config: StudyConfig, plain: Mapping[str, LearnConfig]) -> dict[str, float]:
    """Seconds of one core that an update of each network takes, measured once."""
    path = config.runs / "seconds.json"
    if not path.exists():
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            write_json(path, pool.submit(seconds_per_update, plain, config.runs).result())
    return dict(json.loads(path.read_text(encoding="utf-8")))


def in_minutes(minutes: float, seconds: float) -> int:
    return max(2, int(60 * minutes / seconds))


def try_rates(config: StudyConfig, plain: Mapping[str, LearnConfig], paces: Mapping[str, float]) -> dict[str, dict[float, float]]:
    """The lowest validation loss of each network by learning rate."""
    jobs = {
        config.runs / "rates" / f"{name}-{rate:g}": dataclasses.replace(
            one, learning_rate=rate, updates=in_minutes(config.rate_minutes, paces[name]), evaluations=1
        )
        for name, one in plain.items()
        for rate in config.rates
    }
    results = learn_all(jobs)
    found: dict[str, dict[float, float]] = {name: {} for name in plain}
    for (name, rate), result in zip(itertools.product(plain, config.rates), results.values(), strict=True):
        found[name][rate] = min((point["loss"] for point in result["curve"] if math.isfinite(point["loss"])), default=math.inf)
    return found


def learn_all(jobs: Mapping[Path, LearnConfig]) -> dict[Path, dict[str, Any]]:
    """Two at a time, each in a process of its own."""
    for out, job in jobs.items():
        kept_result(job, out)  # which says at once what does not fit
    waiting, running, results = list(jobs.items()), dict[Future[dict[str, Any]], Path](), dict[Path, dict[str, Any]]()
    with ProcessPoolExecutor(_AT_ONCE, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        while waiting or running:
            while waiting and len(running) < _AT_ONCE:  # the pool would take one more, and end it before it lets go after Ctrl-C or an error
                out, job = waiting.pop(0)
                running[pool.submit(learn, job, out)] = out
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                results[running.pop(done)] = done.result()
    return {out: results[out] for out in jobs}


def check_trained(results: Mapping[Path, Mapping[str, Any]]) -> None:
    """
    Raises:
        RuntimeError: one diverged, and has no weights to compare.
    """
    if lost := [f"{out}: {result['diverged']}" for out, result in results.items() if result["diverged"]]:
        raise RuntimeError("; ".join(lost))


def compare_seeds(config: StudyConfig, training: PairSource, directory: Path) -> dict[str, Any]:
    """A comparison of each seed's networks, with the floors, and what is to be said of the seeds together."""
    pictures = pictures_in_the_box(10**6)
    judged: list[dict[str, Judgement]] = []
    for seed in range(config.seeds):
        comparison = compare_runs(
            {name: config.runs / f"{name}-{seed}" for name in NETWORKS},
            pictures,
            training=lambda: training,
            title=f"Seed {seed} of the study",
            report=config.runs / f"report-{seed}",
            json=directory / f"seed-{seed}.json",
        )
        judged.append(judgements(comparison))
    found = json.loads((directory / "seed-0.json").read_text(encoding="utf-8"))
    draw_slots(found["results"], directory / "slots.png")
    return {
        "pictures": len(pictures),
        "paired": [_paired(one, other, judged, pictures.groups) for one, other in PAIRED],
        "mistakes": {name: mistakes(pictures.slots, [seed[name].predictions for seed in judged]) for name in NETWORKS},
    }


def _paired(one: str, other: str, judged: Sequence[Mapping[str, Judgement]], groups: Sequence[str]) -> dict[str, Any]:
    found = differences([seed[one] for seed in judged], [seed[other] for seed in judged], groups)
    return {"one": one, "other": other, "differences": found}


def drift(config: StudyConfig, training: PairSource, directory: Path) -> None:
    """Rounds of painting and captioning with the first seed's networks."""
    judge = load_inverter(dtype="float32")  # the model in the box, which is none of those compared
    render, name = painting_with(MINI, judge.device)
    path = directory / "drift.json"
    compare_runs(
        {name: config.runs / f"{name}-0" for name in NETWORKS},
        pictures_in_the_box(config.drift_pictures),
        training=lambda: training,
        title="Drift",
        report=config.runs / "report-drift",
        json=path,
        painter=Painter(config.rounds, render, judge.features, name=name, encoder="the encoder of assets/mini-inverter"),
    )
    draw_drift(json.loads(path.read_text(encoding="utf-8"))["round_trip"], directory / "drift.png")


def look(config: StudyConfig, jobs: Mapping[Path, LearnConfig], directory: Path) -> dict[str, Any]:
    pictures = pictures_in_the_box(LOOKED_AT)
    found: dict[str, list[Look]] = {}
    image_tokens: dict[str, int] = {}
    for name in NETWORKS:
        run = config.runs / f"{name}-0"
        network, tokenizer = trained_network(run, jobs[run])
        image_tokens[name] = network.num_image_tokens
        found[name] = list(looks(network, tokenizer, pictures))
    seen = found["reprompt"]
    whole = [place for place in range(len(pictures)) if {look.slot for look in seen if look.place == place} >= set(ATTENTION_SLOTS)]
    images = {place: pictures.images(place, 1)[0] for place in whole[:ATTENTION_ROWS]}
    draw_attention(images, found, ATTENTION_SLOTS, directory / "attention.png")
    return {"pictures": len(pictures), "image_tokens": image_tokens, "lost": {name: summary(some, pictures.groups) for name, some in found.items()}}


def tune(config: StudyConfig, plain: Mapping[str, LearnConfig], rates: Mapping[str, float], directory: Path) -> dict[str, Any]:
    """A network that learnt captions of the pictures: as it is, fine-tuned on a few prompts, and beside it one that learnt those prompts alone."""
    base = {
        config.runs / "tuning" / f"{name}-captions": dataclasses.replace(
            plain[name], learning_rate=rates[name], updates=plain[name].updates // 2, texts="captions"
        )
        for name in TUNED
    }
    check_trained(learn_all(base))
    few: dict[str, Any] = {"updates": TUNING_UPDATES, "pairs": TUNING_PAIRS, "evaluations": 3}
    jobs: dict[Path, LearnConfig] = {}
    for name in TUNED:
        captions = config.runs / "tuning" / f"{name}-captions"
        alone = dataclasses.replace(plain[name], learning_rate=rates[name], **few)
        jobs[config.runs / "tuning" / f"{name}-tuned"] = dataclasses.replace(alone, init=str(captions / "model"), learning_rate=rates[name] / 2)
        jobs[config.runs / "tuning" / f"{name}-alone"] = alone
    check_trained(learn_all(jobs))
    pictures = pictures_in_the_box(10**6)
    comparison = compare_runs(
        {run.name: run for name in TUNED for run in (*jobs, *base) if run.name.startswith(name)},
        pictures,
        training=None,
        title="Fine-tuning",
        report=config.runs / "report-tuning",
        json=directory / "tuning.json",
    )
    judged = [judgements(comparison)]
    gains = [_paired(f"{name}-tuned", f"{name}-{other}", judged, pictures.groups) for name in TUNED for other in ("alone", "captions")]
    return {"tuning": {"pairs": TUNING_PAIRS, "updates": TUNING_UPDATES, "gains": gains}}


def write_page(out: Path) -> None:
    """STUDY.md and the learning curves, from the JSON files alone."""
    directory = out / "study"
    study = json.loads((directory / STUDY_FILE).read_text(encoding="utf-8"))
    draw_learning({name: [run["curve"] for run in runs] for name, runs in study["networks"].items()}, directory / "learning.png")
    files = {name: json.loads((directory / f"{name}.json").read_text(encoding="utf-8")) for name in ("drift", "tuning")}
    seeds = [json.loads((directory / f"seed-{seed}.json").read_text(encoding="utf-8")) for seed in range(study["settings"]["seeds"])]
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters |= {"estimate": estimate, "gain": gain, "named": named}
    template = environment.from_string(Path(__file__).with_name("page.md").read_text(encoding="utf-8"))
    write_text(out / "STUDY.md", template.render(study=study, seeds=seeds, metrics=METRICS, **files))


def estimate(one: Mapping[str, Any]) -> str:
    return f"{one['mean']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"


def named(score: str) -> str:
    """A metric or a slot as it is read."""
    words = score.removeprefix(SLOT).replace("_", " ")
    return {"other": "second subject", "cider d": "CIDEr-D"}.get(words, words)


def gain(one: Mapping[str, Any]) -> str:
    """A difference, in bold where it is established."""
    text = f"{one['mean']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]"
    return f"**{text}**" if one["established"] else text


if __name__ == "__main__":
    try:
        main(tyro.cli(StudyConfig, description=__doc__))
    except (MissingExtraError, OSError, RunStateError, RuntimeError, ShardError, ValueError) as error:
        sys.exit(f"study: {error}")
    except KeyboardInterrupt:
        sys.exit("\nstudy: stopped; the same command goes on with what is not yet trained")
