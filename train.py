"""Train Reprompt on pairs of images and prompts, from scratch, and compare it with baselines on prompts it has never seen.

Examples:
    python train.py                                        the main job: the embedded world, minutes on a 2-core CPU
    python train.py mini --data datasets/large --max-steps 6000 --name long
    python train.py small --data datasets/mine             one GPU
    accelerate launch train.py base --data datasets/mine   several
    python train.py base --init microsoft/git-base --data datasets/mine   from GIT's weights
    python train.py mini --resume                          go on with runs/mini after an interruption

Without --data the embedded data set is made first, if it is not there (python generate_data.py).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

if __name__ == "__main__":  # Ctrl-C while libraries are imported ends the process
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import torch
import tyro
from accelerate import Accelerator
from tqdm import tqdm

from data.console import begin_command
from data.embeddings import SentenceModelError
from data.errors import ImageError, MissingExtraError, PairError, ShardError
from data.files import read_json, write_json
from data.loading.examples import Batch, Collate, Examples, readable_pairs
from data.store.directory import DATASET_FILE
from evaluation.baselines import Constant, Nearest
from evaluation.metrics import SentenceSimilarity, exact_match, token_f1
from evaluation.report import Result, as_json, markdown_table, score, timed_captions, write_report
from inference import PromptInverter
from model import IGNORED_LABEL, CaptionModel, CheckpointError, EncoderError, NotFiniteError, find_checkpoint
from tokenizer import TOKENIZER_FILE, PromptTokenizer, TokenizerError
from training.config import PRESETS, ConfigError, TrainConfig
from training.data import Batches, TrainingData
from training.estimate import estimate
from training.health import TrainingError, check_skipped, check_update, skipped_kinds
from training.meter import Meter
from training.objective import CaptionLoss
from training.optimizer import build_optimizer, warmup_cosine
from training.processes import agree, follow_shards, running_mean, start_accelerator, whole_network
from training.run_state import Progress, RunState, RunStateError, begin, check_begun, checkpoints, differences, full_disk_is_survived
from training.starting import build_network
from training.tracking import Tracker, word_maps

EMBEDDED_DATA = "datasets/mini"
VALIDATION_PAIRS = 256
PANEL_PAIRS, ATTENTION_PAIRS = 16, 4
KNOWN_PAIRS = 20_000  # training pairs that the baselines of the comparison know
LOG_EVERY = 10
CHARACTERS_PER_TOKEN = 4  # roughly, for the estimate of memory


Validate = Callable[[CaptionModel, PromptTokenizer, Examples, Accelerator, "Tracker | None", int], dict[str, float]]
Export = Callable[[CaptionModel, PromptTokenizer, Path], None]


@torch.no_grad()
def _validate(
    model: CaptionModel,
    tokenizer: PromptTokenizer,
    examples: Examples,
    accelerator: Accelerator,
    tracker: Tracker | None,
    step: int,
) -> dict[str, float]:
    """Loss and greedy predictions on the first validation pairs."""
    model.eval()
    pairs = list(readable_pairs(examples.pairs, VALIDATION_PAIRS))
    total, count, predictions = 0.0, 0, list[str]()
    for start in range(0, len(pairs), 64):
        batch = Collate(tokenizer.pad_id, IGNORED_LABEL)([examples.of(pair) for pair in pairs[start : start + 64]])
        batch = batch.to(accelerator.device, examples.preprocess.normalise)
        with accelerator.autocast():
            total += float(model.summed_loss(batch.images, batch.input_ids, batch.labels))
            texts = model.search(batch.images, num_beams=1)
        count += batch.num_tokens
        predictions += [tokenizer.decode(found[0].tokens) for found in texts]
        if start == 0:
            words = [word_maps(model, tokenizer.decode, batch.images[i : i + 1], texts[i][0].tokens) for i in range(min(ATTENTION_PAIRS, len(texts)))]
    prompts = [pair.prompt for pair in pairs]
    values = {
        "loss": total / count,
        "token_f1": float(token_f1(prompts, predictions).mean()),
        "exact_match": float(exact_match(prompts, predictions).mean()),
    }
    if tracker is not None:
        tracker.scalars({f"validation/{name}": value for name, value in values.items()}, step)
        tracker.panel([pair.image for pair in pairs[:PANEL_PAIRS]], prompts[:PANEL_PAIRS], predictions[:PANEL_PAIRS], step)
        if any(words):
            tracker.attention([pair.image for pair in pairs[: len(words)]], words, step)
    return values


def _export(model: CaptionModel, tokenizer: PromptTokenizer, directory: Path) -> None:
    PromptInverter(model, tokenizer).save_pretrained(directory)


def main(config: TrainConfig) -> None:
    accelerator = start_accelerator(config.precision)
    run = config.run_directory
    with accelerator.main_process_first():
        _prepare_data(config)
        data = TrainingData(config)
        if accelerator.is_main_process:
            _prepare_run(config, run)
        tokenizer = _tokenizer(run, data, config)

    torch.manual_seed(config.seed)
    model = build_network(config, tokenizer, pretrained=not checkpoints(run))
    pairs_per_update = config.pairs_per_update(accelerator.num_processes)
    begun = {
        "data": data.fingerprints(),
        "model": dataclasses.asdict(model.config),
        "tokenizer": hashlib.sha256((run / TOKENIZER_FILE).read_bytes()).hexdigest()[:16],
        "pairs per update": pairs_per_update,
    }
    if config.stream:  # each reader has a place of its own in it
        begun["readers of the stream"] = f"{accelerator.num_processes} processes x {max(1, config.workers)} workers"
    if config.resume:
        check_begun(run, begun)
    elif accelerator.is_main_process:
        begin(run, begun)

    progress = fit(config, accelerator, run, data, model, tokenizer)
    if progress.step < config.max_steps:
        sys.exit(f"stopped after step {progress.step}; go on with: {_resume_command(config)}")
    if accelerator.is_main_process:
        if progress.skipped:
            print(f"skipped: {skipped_kinds(progress)}, of {progress.seen + sum(progress.skipped.values())} pairs shown")
        outcome = _finish(config, run, data) | {"test/best_validation_loss": progress.best_loss}
        with closing(Tracker(run, progress.step)) as tracker:
            tracker.settings(config, outcome)


def fit(
    config: TrainConfig,
    accelerator: Accelerator,
    run: Path,
    data: TrainingData,
    model: CaptionModel,
    tokenizer: PromptTokenizer,
    *,
    validate: Validate = _validate,
    export: Export = _export,
) -> Progress:
    """The training loop, from the last checkpoint in `run` to `config.max_steps` or a request to stop."""
    batches = Batches(data, model, tokenizer, run, accelerator)
    objective = CaptionLoss(model, from_features=config.reuse_features)
    if config.compile:
        objective.compile(dynamic=True)  # in place: the weights keep their names
    optimizer = build_optimizer(
        model.encoder, model.decoder, learning_rate=config.learning_rate, encoder_rate=config.encoder_rate, weight_decay=config.weight_decay
    )
    schedule = warmup_cosine(optimizer, warmup_steps=config.warmup_steps, max_steps=config.max_steps)
    wrapped, optimizer = accelerator.prepare(objective, optimizer)
    follow_shards(model)
    average = running_mean(model, config.ema_decay, accelerator) if config.ema_decay else None
    scaler = {"scaler": accelerator.scaler} if accelerator.scaler is not None else {}
    state = RunState(wrapped, optimizer.optimizer, schedule, average=average, others=scaler | batches.states)
    if checkpoints(run):  # --resume was given, or there would be none
        state.load(run)
    progress = state.progress
    if progress.step == 0 and not config.stream:
        progress.skipped = dict(+data.training.skipped)

    pairs_per_update = config.pairs_per_update(accelerator.num_processes)
    coming = batches.after(progress.step)
    tracker = Tracker(run, progress.step) if accelerator.is_main_process else None
    meter = Meter(accelerator)
    stop = _StopRequest()
    if accelerator.is_main_process:
        _announce(config, model, data, run, pairs_per_update)
    bar = tqdm(total=config.max_steps, initial=progress.step, unit="step", desc="training", disable=not accelerator.is_main_process)
    begun_at = progress.step
    wrapped.train()
    while progress.step < config.max_steps:
        meter.wait_begins()
        update: list[Batch] = [next(coming) for _ in range(config.accumulate)]
        meter.wait_ends(update)
        # of all processes: the loss is a mean over the update's tokens, and all stop after the same step
        tokens, stopping = accelerator.reduce(
            torch.tensor([sum(batch.num_tokens for batch in update), stop.asked], device=accelerator.device)
        ).tolist()

        for number, batch in enumerate(update):
            draw = (progress.step * config.accumulate + number) * accelerator.num_processes + accelerator.process_index
            torch.manual_seed(config.seed * 1_000_000_007 + draw)  # dropout, the same after an interruption
            on_device = batch.to(accelerator.device, batches.normalise)
            # gradients are exchanged once, after the update's last batch
            with accelerator.no_sync(wrapped) if number < len(update) - 1 else nullcontext():
                with accelerator.autocast():
                    loss = wrapped(on_device.images, on_device.input_ids, on_device.labels) * accelerator.num_processes / tokens
                accelerator.backward(loss)
            meter.add_loss(loss)
        norm = float(accelerator.clip_grad_norm_(wrapped.parameters(), config.clip_norm))
        finite = check_update(model, progress, loss, norm, schedule.get_last_lr()[-1], config.precision)
        if finite or accelerator.scaler is not None:  # the scaler leaves the weights alone by itself, and learns from it
            optimizer.step()
        if finite and average is not None:
            average.update_parameters(model)
        schedule.step()
        optimizer.zero_grad()

        progress.step += 1
        bar.update()
        last = progress.step == config.max_steps
        evaluating = last or progress.step % config.evaluate_every == 0
        saving = last or stopping or progress.step % config.save_every == 0
        if progress.step % LOG_EVERY == 0 or evaluating or saving:
            values = meter.read(progress)
            check_skipped(progress)
            if begun_at == progress.step - LOG_EVERY:
                tokens_per_second, images_per_second = values["speed/tokens_per_second"], values["speed/images_per_second"]
                left = (config.max_steps - progress.step) * pairs_per_update / images_per_second / 60
                bar.write(f"{tokens_per_second:,.0f} tokens/s, {images_per_second:,.0f} images/s: about {left:,.0f} min to go")
            if tracker is not None:
                bar.set_postfix(loss=f"{values['train/loss']:.3f}")
                rates = {f"learning_rate/{group['name']}": group["lr"] for group in optimizer.param_groups}
                tracker.scalars(values | rates | {"train/gradient_norm": norm, "train/lost_updates": progress.lost_updates}, progress.step)
        paused = time.perf_counter()
        if evaluating:
            network = whole_network(model if average is None else average.module, accelerator)
            if network is not None:
                measured = validate(network, tokenizer, batches.validation, accelerator, tracker, progress.step)
                bar.write(f"step {progress.step}: " + ", ".join(f"{name} {value:.3f}" for name, value in measured.items()))
                if measured["loss"] < progress.best_loss:
                    with full_disk_is_survived(bar, unless=last or stopping):
                        export(network, tokenizer, run / "model")
                        progress.best_loss, progress.best_step, saving = measured["loss"], progress.step, True
            saving = agree(saving)
            wrapped.train()
        if saving:
            with full_disk_is_survived(bar, unless=last or stopping):
                state.save(run, keep=config.keep_checkpoints, write=accelerator.is_main_process)
        meter.pause(time.perf_counter() - paused)
        if stopping:
            break
    accelerator.wait_for_everyone()
    bar.close()
    if tracker is not None:
        tracker.close()
    return progress


def _prepare_data(config: TrainConfig) -> None:
    """Make the embedded data set, or finish it, when that is the one asked for."""
    if config.data != EMBEDDED_DATA:
        return
    begun = Path(config.data) / DATASET_FILE
    about = read_json(begun) if begun.exists() else {}
    if "generate_data.py" not in about.get("command", "generate_data.py"):  # imported into it
        return
    arguments = about.get("arguments") or ["--out", config.data]
    command = [sys.executable, str(Path(__file__).with_name("generate_data.py")), *arguments]
    alone = {name: value for name, value in os.environ.items() if not name.endswith(("RANK", "WORLD_SIZE"))}  # not one of our processes
    if subprocess.run(command, check=False, env=alone).returncode != 0:
        raise ShardError(f"the embedded data set in {config.data} could not be made (see above)")


def _prepare_run(config: TrainConfig, run: Path) -> None:
    """Begin a run directory, or check that it can be resumed."""
    if config.resume:
        before = TrainConfig.load(run / "config.json")
        # what may change: where things lie, how long and how visibly it trains; data and batches are compared by what they are
        ignored: dict[str, Any] = {"resume": False, "out": None, "name": "", "data": "", "max_steps": 1, "workers": 0, "batch_size": 1}
        ignored |= {"accumulate": 1, "evaluate_every": 1, "save_every": 1, "keep_checkpoints": 1, "final_pairs": 1, "compile": False}
        old, new = (json.loads(json.dumps(dataclasses.asdict(dataclasses.replace(one, **ignored)), default=str)) for one in (before, config))
        if differing := differences(old, new):
            raise RunStateError(f"{run} was begun with other settings: {'; '.join(differing)}. Give the same ones, or another --name")
        return
    if run.exists() and checkpoints(run):
        raise RunStateError(f"{run} holds a run already. Go on with it: {_resume_command(config)}. Or begin another: --name NEW (or delete {run})")
    if run.is_file() or (run.is_dir() and any(run.iterdir()) and not (run / "config.json").exists()):
        raise RunStateError(f"{run} holds something else than a run; give another --out or --name")
    run.mkdir(parents=True, exist_ok=True)
    config.save(run / "config.json")


def _tokenizer(run: Path, data: TrainingData, config: TrainConfig) -> PromptTokenizer:
    """The run's tokenizer: that of --init, or learnt from the training prompts at the run's beginning."""
    path = run / TOKENIZER_FILE
    if config.init is not None and not path.exists():
        PromptTokenizer.load(find_checkpoint(config.init) / TOKENIZER_FILE).save(path)
    if not path.exists():
        prompts = list(tqdm(data.prompts(), "reading prompts", unit="prompt", leave=False))
        PromptTokenizer.train(prompts, config.model.vocab_size).save(path)
    return PromptTokenizer.load(path)


def _announce(config: TrainConfig, model: CaptionModel, data: TrainingData, run: Path, pairs_per_update: int) -> None:
    lengths = [len(prompt) for prompt in islice(data.prompts(), 200)]
    tokens = round(sum(lengths) / max(1, len(lengths)) / CHARACTERS_PER_TOKEN)
    needs = estimate(
        model.config,
        batch_size=config.batch_size,
        text_tokens=max(1, min(tokens, model.config.max_text_tokens)),
        half=config.precision != "fp32",
        frozen=config.frozen_encoder,
        average=config.ema_decay > 0,
    )
    print(f"{run}: {model.config.encoder.name}, {model.num_image_tokens} image tokens, {needs}")
    print(f"{data}, {config.max_steps} steps of {pairs_per_update}")


def _finish(config: TrainConfig, run: Path, data: TrainingData) -> dict[str, float]:
    """Compare the best weights with the training-free baselines on the test split, and say what to do next; what came of ours."""
    pairs = data.test(config.final_pairs)
    if pairs.unread:
        print(f"{pairs.unread} test pairs could not be read and are left out")
    inverter = PromptInverter.from_pretrained(run / "model")
    captioners = {
        "reprompt": lambda some: [prediction.prompt for prediction in inverter.predict(some)],
        "nearest": Nearest((pair.image, pair.prompt) for pair in data.known(KNOWN_PAIRS)).caption,
        "constant": Constant(list(islice(data.prompts(), KNOWN_PAIRS))).caption,
    }
    similarity = SentenceSimilarity()
    results: list[Result] = []
    for name, caption in captioners.items():
        with tqdm(total=len(pairs), desc=name, unit="image", leave=False) as bar:
            texts, rate = timed_captions(caption, pairs, batch_size=64, progress=bar.update)
        results.append(score(name, pairs, texts, rate, similarity=similarity))
    heading = f"# {run}\n\n{len(pairs)} test pairs of {config.data}; 95 % bootstrap intervals."
    write_report(run / "report", results, pairs, heading=heading)
    write_json(run / "report" / "results.json", as_json(results, checkpoint=str(run / "model"), data=config.data, pairs=len(pairs)))
    print(f"\nOn {len(pairs)} pairs whose prompts were never trained on:\n\n{markdown_table(results)}\n")
    print(f"model         {run / 'model'}")
    print(f"report        {run / 'report' / 'report.md'}, pictures in {run / 'report' / 'samples.png'}")
    print(f"curves        tensorboard --logdir {run}")
    print(f"caption       python caption.py IMAGE_OR_FOLDER --checkpoint {run / 'model'}")
    print("train longer  python generate_data.py --out datasets/large --num-images 20000")
    print(f"              python train.py --data datasets/large --name long --max-steps {4 * config.max_steps}")
    return {f"test/{name}": found.mean for name, found in (results[0].metrics | results[0].slots).items()}


def _resume_command(config: TrainConfig) -> str:
    given = [argument for argument in sys.argv[1:] if argument not in ("--resume", "--no-resume")]
    return " ".join(["python train.py", *given, "--resume"])


class _StopRequest:
    """Ctrl-C and SIGTERM let the running step finish; a second one ends the process at once."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(number, signal.SIG_DFL)
        print("\nfinishing this step, then saving ...", file=sys.stderr)


def parse(arguments: Sequence[str]) -> TrainConfig:
    """The configuration that a command line asks for."""
    presets = {name: (preset.__doc__ or name, preset()) for name, preset in PRESETS.items()}
    if list(arguments[:1]) not in ([name] for name in (*presets, "-h", "--help")):
        arguments = ["mini", *arguments]  # the main job
    return tyro.extras.overridable_config_cli(presets, args=arguments, description=__doc__)


if __name__ == "__main__":
    begin_command()
    try:
        main(parse(sys.argv[1:]))
    except (
        *(CheckpointError, ConfigError, EncoderError, ImageError, MissingExtraError, NotFiniteError, OSError, PairError),
        *(RunStateError, SentenceModelError, ShardError, TokenizerError, TrainingError),
    ) as error:
        sys.exit(f"train.py: {error}")
    except KeyboardInterrupt:
        sys.exit("\ntrain.py: stopped before training began; run the same command again")
