"""Train Reprompt on pairs of images and prompts, from scratch, and compare it with baselines on prompts it has never seen.

Examples:
    python train.py                                        the main job: the embedded world, minutes on a 2-core CPU
    python train.py mini --data datasets/large --max-steps 6000 --name long
    python train.py photos --data PHOTOS --model.encoder-file FILE         captions of photographs, half an hour on a 2-core CPU
    python train.py small --data datasets/mine             one GPU
    python train.py small --data datasets/seeds --joint 4  a model that reads up to four images of a prompt at once
    accelerate launch train.py base --data datasets/mine   several
    python train.py --init microsoft/git-base --data datasets/mine        from GIT's weights, in our network
    python train.py --network hf-blip --init Salesforce/blip-image-captioning-base --data datasets/mine   BLIP itself; hf-git the same way
    python train.py --network hf-git                       Hugging Face's GIT from nothing, to compare with
    python train.py mini --resume                          go on with runs/mini after an interruption

Without --data the embedded data set is made first, if it is not there (python generate_data.py). Without the name of a preset it is mini, with --init
finetune, with --network hf-git or hf-blip mini-git or mini-blip.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # Ctrl-C from here on ends the process, whatever is being imported
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import tyro

from data.console import begin_command, read_arguments
from training.config import PRESETS, ConfigError, TrainConfig, preset_of


def parse(arguments: Sequence[str]) -> TrainConfig:
    """The configuration that a command line asks for."""
    presets = {name: (preset.__doc__ or name, preset()) for name, preset in PRESETS.items()}
    if list(arguments[:1]) not in ([name] for name in (*presets, "-h", "--help")):
        arguments = [preset_of(arguments), *arguments]
    config = tyro.extras.overridable_config_cli(presets, args=arguments, description=__doc__)
    preset = PRESETS[arguments[0]]().model
    if config.model.encoder != preset.encoder and not any(argument.startswith("--model.stage") for argument in arguments):
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, stage=None))  # a stage is one of its encoder's
    return config


if __name__ == "__main__":  # --help, a wrong option and Ctrl-C do not wait for the imports below, which take seconds
    CONFIG = read_arguments(parse)

import torch
from accelerate import Accelerator
from tqdm import tqdm

from core.device import Precision, compute_precision
from core.minutes import about_minutes
from data.embeddings import sentence_model_at_hand
from data.errors import ImageError, MissingExtraError, PairError, ShardError
from data.files import read_json
from data.loading.examples import Batch
from data.store.directory import DATASET_FILE, is_finished
from diffusion.contact_sheet import contact_sheet
from diffusion.mini.world import read_slots
from evaluation.baselines import Known, Settings, build_baseline
from evaluation.captioners import Captioner
from evaluation.inverting import InverterCaptioner
from evaluation.meaning import SentenceSimilarity
from evaluation.measuring import check_libraries, measure
from evaluation.overlap import exact_match, token_f1
from evaluation.provenance import provenance, without_password
from evaluation.report import markdown
from inference import PromptInverter, load_inverter
from inference.card import Training, write_card
from inference.certainty import learn_certainty
from model import CheckpointError, EncoderError, NotFiniteError
from model.familiarity import Familiarity
from peers import PeerNetwork
from tokenizer import TOKENIZER_FILE, PromptTokenizer, TokenizerError
from training.data import MEASURED_PROMPTS, Batches, TrainingData
from training.estimate import describe
from training.health import NormStatistics, TrainingError, check_skipped, check_update, skipped_kinds
from training.lengths import PromptLengths
from training.meter import Meter
from training.networks import Network
from training.objective import CaptionLoss, any_sizes
from training.optimizer import build_optimizer, warmup_cosine
from training.processes import agree, follow_shards, is_sharded, start_accelerator, whole_network
from training.run_directory import (
    CONFIG_FILE,
    MODEL,
    REPORT,
    RunStateError,
    begin,
    check_begun,
    checkpoints,
    held,
    prepare,
    read_begun,
)
from training.run_state import Progress, RunState, full_disk_is_survived
from training.running_mean import RunningMean
from training.starting import build_network, run_tokenizer
from training.stopping import StopRequest, resume_command
from training.time_left import seconds_of_end, seconds_of_training
from training.tracking import Tracker, word_maps

EMBEDDED_DATA = "datasets/mini"
ATTENTION_PAIRS = 4
SHOWN_PROMPTS = 5  # in the model card
LOG_EVERY = 10

Validate = Callable[[Network, PromptTokenizer, Batches, Accelerator, "Tracker | None", int], dict[str, float]]
Export = Callable[[Network, PromptTokenizer, Path], None]


@torch.no_grad()
def write_validation_pairs(
    model: Network,
    tokenizer: PromptTokenizer,
    batches: Batches,
    accelerator: Accelerator,
    tracker: Tracker | None,
    step: int,
) -> dict[str, float]:
    """Loss and greedy predictions on the validation pairs; of a network that computes no numbers the loss alone."""
    model.eval()
    total, count, predictions, words = 0.0, 0, list[str](), []
    pairs = batches.validation
    for batch in pairs.batches(batches.collate, accelerator.device, batches.picture.normalise):
        with accelerator.autocast():
            total += float(model.summed_loss(batch.images, batch.input_ids, batch.labels, batch.pictures))
            if not math.isfinite(total):
                return {"loss": math.nan}
            texts = _until_end(model.generate(batch.images, num_beams=1)[0].tolist(), model.config.eos_token_id)
        count += batch.num_tokens
        predictions += [tokenizer.decode(tokens) for tokens in texts]
        if not words:
            words = [word_maps(model, tokenizer.decode, batch.images[i : i + 1], tokens) for i, tokens in enumerate(texts[:ATTENTION_PAIRS])]
    references = [[prompt] for prompt in pairs.prompts]
    values = {
        "loss": total / count,
        "token_f1": float(token_f1(references, predictions).mean()),
        "exact_match": float(exact_match(references, predictions).mean()),
    }
    if tracker is not None:
        shown = len(pairs.thumbnails)
        tracker.scalars({f"validation/{name}": value for name, value in values.items()}, step)
        tracker.panel(pairs.thumbnails, pairs.prompts[:shown], predictions[:shown], step)
        if any(words):
            tracker.attention(pairs.thumbnails[: len(words)], words, step)
    return values


def _until_end(rows: list[list[int]], end: int) -> list[list[int]]:
    return [row[: row.index(end)] if end in row else row for row in rows]


def _export(model: Network, tokenizer: PromptTokenizer, directory: Path) -> None:
    if isinstance(model, PeerNetwork):
        model.save_pretrained(directory)
    else:
        PromptInverter(model, tokenizer).save_pretrained(directory)


def main(config: TrainConfig) -> None:
    accelerator = start_accelerator(config.precision, all_used=config.joint == 1)  # frames have no part in single images
    first, run = accelerator.is_main_process, config.run_directory
    precision = compute_precision(accelerator.device, config.precision)
    before = TrainConfig.load(run / CONFIG_FILE) if config.resume else None
    with accelerator.main_process_first():
        _prepare_data(config, accelerator.device)
        data = TrainingData(config)
    with held(run) if first else nullcontext():
        with accelerator.main_process_first():
            if first:
                prepare(config, run, before, resume_command())
            tokenizer = run_tokenizer(run / TOKENIZER_FILE, config, data.prompts())
        going_on = bool(checkpoints(run))
        lengths = PromptLengths.of(data.some_prompts(MEASURED_PROMPTS), tokenizer.encode)
        torch.manual_seed(config.seed)
        # of a stream other prompts may come first at another time
        text_tokens = read_begun(run)["model"].get("max_text_tokens", lengths.wanted) if going_on else lengths.wanted
        model = build_network(config, tokenizer, text_tokens=text_tokens, pretrained=not going_on)
        begun = {
            "data": data.fingerprints(),
            "model": dataclasses.asdict(model.config),
            "tokenizer": hashlib.sha256((run / TOKENIZER_FILE).read_bytes()).hexdigest()[:16],
            "pairs per update": config.pairs_per_update(accelerator.num_processes),
        }
        if config.stream:  # each reader has a place of its own in it
            begun["readers of the stream"] = f"{accelerator.num_processes} processes x {max(1, config.workers)} workers"
        if going_on:
            check_begun(run, begun)
        if first:
            _announce(config, model, data, run, lengths, accelerator.num_processes, precision)
            if going_on:
                _say_other_precision(run, precision)
            else:
                begin(run, begun | {"precision": {"dtype": precision.name, "reason": precision.reason}})
            config.save(run / CONFIG_FILE)

        progress = fit(config, accelerator, run, data, model, tokenizer)
        if first:
            _conclude(config, run, data, progress)


def fit(
    config: TrainConfig,
    accelerator: Accelerator,
    run: Path,
    data: TrainingData,
    model: Network,
    tokenizer: PromptTokenizer,
    *,
    validate: Validate = write_validation_pairs,
    export: Export = _export,
) -> Progress:
    """The training loop, from the last checkpoint in `run` to `config.max_steps`, or to a request to stop, which ends the process with what to do
    next."""
    if config.reuse_features and is_sharded(accelerator):
        raise ConfigError("reuse_features needs the whole encoder on every process; leave it out under FSDP, or launch without FSDP")
    batches = Batches(data, model, tokenizer, run, accelerator)
    dtype = compute_precision(accelerator.device, config.precision).dtype
    objective = CaptionLoss(model, from_features=config.reuse_features)
    if config.compile:
        objective.compile()  # in place: the weights keep their names
    optimizer = build_optimizer(
        config.optimizer,
        model.encoder,
        model.decoder,
        learning_rate=config.learning_rate,
        encoder_rate=config.encoder_rate,
        weight_decay=config.weight_decay,
        dtype=compute_precision(accelerator.device).dtype,
    )
    schedule = warmup_cosine(optimizer, warmup_steps=config.warmup_steps, max_steps=config.max_steps)
    wrapped, optimizer = accelerator.prepare(objective, optimizer)
    follow_shards(model)
    average = RunningMean(model, config.ema_decay) if config.ema_decay else None
    statistics = NormStatistics(model)
    scaler = {"scaler": accelerator.scaler} if accelerator.scaler is not None else {}
    state = RunState(wrapped, optimizer.optimizer, schedule, average=average, others=scaler | batches.states)
    if checkpoints(run):  # --resume was given, or there would be none
        state.load(run)
    progress = state.progress
    if progress.step == 0 and not config.stream:
        progress.skipped = dict(+data.training.skipped)

    tracker = Tracker(run, progress.step) if accelerator.is_main_process else None
    bar = tqdm(total=config.max_steps, initial=progress.step, unit="step", desc="training", disable=not accelerator.is_main_process)
    told = False  # how long it will take
    wrapped.train()
    with closing(batches.after(progress.step)) as coming, StopRequest() as stop:
        meter = Meter(accelerator)  # what is computed once before, the features, is no part of an update's time
        while progress.step < config.max_steps:
            meter.wait_begins()
            update: list[Batch] = [next(coming) for _ in range(config.accumulate)]
            meter.wait_ends(update)
            # of all processes: the loss is a mean over the update's tokens, and all stop after the same step
            tokens, stopping = accelerator.reduce(
                torch.tensor([sum(batch.num_tokens for batch in update), stop.asked], device=accelerator.device)
            ).tolist()

            statistics.keep()
            for number, batch in enumerate(update):
                draw = (progress.step * config.accumulate + number) * accelerator.num_processes + accelerator.process_index
                torch.manual_seed(config.seed * 1_000_000_007 + draw)  # dropout, the same after an interruption
                on_device = batch.to(accelerator.device, batches.normalise)
                if config.compile:
                    any_sizes(on_device)
                # gradients are exchanged once, after the update's last batch
                with accelerator.no_sync(wrapped) if number < len(update) - 1 else nullcontext():
                    with accelerator.autocast():
                        summed = wrapped(on_device.images, on_device.input_ids, on_device.labels, on_device.pictures)
                        loss = summed * accelerator.num_processes / tokens
                    accelerator.backward(loss)
                meter.add_loss(loss)
            norm = float(accelerator.clip_grad_norm_(wrapped.parameters(), config.clip_norm))
            finite = check_update(model, progress, loss, norm, schedule.get_last_lr()[-1], dtype)
            if finite or accelerator.scaler is not None:  # the scaler leaves the weights alone by itself, and learns from it
                optimizer.step()
            if not finite:
                statistics.restore()
            elif average is not None:
                average.update(model)
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
                left = about_minutes(meter.seconds_left(config.max_steps - progress.step) + seconds_of_end(config, meter.seconds_left(1)))
                if not told:
                    told = True
                    tokens_per_second, images_per_second = values["speed/tokens_per_second"], values["speed/images_per_second"]
                    bar.write(f"{tokens_per_second:,.0f} tokens/s, {images_per_second:,.0f} images/s: {left} to go, comparison included")
                if tracker is not None:
                    bar.set_postfix_str(f"loss={values['train/loss']:.3f}, {left} left")
                    rates = {f"learning_rate/{group['name']}": group["lr"] for group in optimizer.param_groups}
                    more = {"train/gradient_norm": norm, "train/lost_updates": progress.lost_updates}
                    tracker.scalars(values | rates | more, progress.step)
            paused = time.perf_counter()
            if evaluating:
                with average.in_place(model) if average is not None else nullcontext():
                    network = whole_network(model, accelerator)
                    if network is not None:
                        measured = validate(network, tokenizer, batches, accelerator, tracker, progress.step)
                        bar.write(f"step {progress.step}: " + ", ".join(f"{name} {value:.3f}" for name, value in measured.items()))
                        best = math.isfinite(measured["loss"]) and measured["loss"] <= progress.best_loss  # of equal ones the later
                        if last and not best and progress.best_step == 0:
                            bar.write("No validation loss of this run was a number; the last weights are exported all the same")
                        if best or (last and progress.best_step == 0):
                            with full_disk_is_survived(bar, unless=last or stopping):
                                export(network, tokenizer, run / MODEL)
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
    if int(accelerator.reduce(torch.tensor(int(stop.asked), device=accelerator.device))):  # in the last step or its evaluation too
        if progress.step < config.max_steps:
            sys.exit(f"stopped after step {progress.step}; go on with: {resume_command()}")
        sys.exit(f"stopped after the last step; the model is whole in {run / MODEL}. To have the report later: {resume_command()}")
    return progress


def _prepare_data(config: TrainConfig, device: torch.device) -> None:
    """Make the embedded data set, or finish it, when that is the one asked for."""
    if config.data != EMBEDDED_DATA:
        return
    begun = Path(config.data) / DATASET_FILE
    about = read_json(begun) if begun.exists() else {}
    if "generate_data.py" not in about.get("command", "generate_data.py"):  # imported into it
        return
    if begun.exists() and is_finished(Path(config.data)):
        return
    arguments = about.get("arguments") or ["--out", config.data]
    seconds = seconds_of_training(config, device)
    print(f"{config.data} is rendered first; training and the comparison after it will take {about_minutes(seconds)}", flush=True)
    command = [sys.executable, str(Path(__file__).with_name("generate_data.py")), *arguments, f"--seconds-after={seconds:.0f}"]
    alone = {name: value for name, value in os.environ.items() if not name.endswith(("RANK", "WORLD_SIZE"))}  # not one of our processes
    if subprocess.run(command, check=False, env=alone).returncode != 0:
        raise ShardError(f"the embedded data set in {config.data} could not be made (see above)")


def _say_other_precision(run: Path, precision: Precision) -> None:
    before = read_begun(run).get("precision", {}).get("dtype", precision.name)
    if before != precision.name:
        print(f"{run} was begun in {before} and goes on in {precision.name}. Its weights and optimizer are float32 in either")


def _announce(
    config: TrainConfig, model: Network, data: TrainingData, run: Path, lengths: PromptLengths, processes: int, precision: Precision
) -> None:
    """What is about to be done, and what will be missing at the end."""
    positions = model.config.max_text_tokens
    text_tokens = min(round(float(lengths.tokens.mean())), positions)
    print(f"{run}: {describe(model, config, text_tokens, half=precision.is_half)}")
    print(f"computes in {precision}")
    shown = f" prompts, 1 to {config.joint} images of each" if config.joint > 1 else ""
    print(f"{data}, {config.max_steps} steps of {config.pairs_per_update(processes)}{shown}")
    print(lengths.describe(positions, "" if config.init is not None else "--model.max-text-tokens"))
    try:
        check_libraries()
    except MissingExtraError as error:
        print(f"Training needs nothing more, but the comparison at its end will be left out: {error}")
    else:
        if sentence_model_at_hand() is None:
            print("The sentence model is not here: it will be fetched at the end, or similarity left out. To have it: pip install -e '.[eval]'")


def _conclude(config: TrainConfig, run: Path, data: TrainingData, progress: Progress) -> None:
    """What the model knows of itself, the comparison, if it can be made, and what to do next. By then all that was trained is on the disk."""
    if progress.skipped:
        print(f"skipped: {skipped_kinds(progress)}, of {progress.seen + sum(progress.skipped.values())} pairs shown")
    outcome: dict[str, float] = {}
    table = ""
    try:
        _learn_certainty(config, run, data)
        check_libraries()
        outcome, table = _compare(config, run, data)
    except MissingExtraError as error:
        print(f"The comparison is left out: {error}. Then: {resume_command()}")
    except KeyboardInterrupt:
        sys.exit(f"\nThe comparison was stopped; the model is whole in {run / MODEL}. To have the report later: {resume_command()}")
    if config.network == "reprompt":
        write_card(run / MODEL, _about(config, data, progress, table))
    with closing(Tracker(run, progress.step)) as tracker:
        tracker.settings(config, outcome | {"test/best_validation_loss": progress.best_loss})
    print(f"model         {run / MODEL}")
    if outcome:
        print(f"report        {run / REPORT / 'report.html'}")
    print(f"curves        tensorboard --logdir {run}")
    print(f"caption       python caption.py IMAGE_OR_FOLDER --checkpoint {run / MODEL}")
    print(f"a page        python app.py --checkpoint {run / MODEL}")
    if config.data == EMBEDDED_DATA:
        print("train longer  python generate_data.py --out datasets/large --num-images 50000")
        print(f"              python train.py --data datasets/large --name long --max-steps {4 * config.max_steps}")
    print(f"It knows pictures like those of {without_password(config.data)}, and prompts like theirs; of others it says that they are unlike them.")


def _learn_certainty(config: TrainConfig, run: Path, data: TrainingData) -> None:
    """How sure the best weights may be, and which pictures they know; where an earlier end has not found out."""
    if Familiarity.load(run / MODEL) is not None:
        return
    try:
        print(learn_certainty(run / MODEL, data.known, data.validation, label_smoothing=config.label_smoothing))
    except ShardError as error:
        print(f"How sure the model may be, and of which pictures, is left out: {error}")


def _about(config: TrainConfig, data: TrainingData, progress: Progress, table: str) -> Training:
    """For the model card."""
    shown = "pairs" if config.joint == 1 else f"prompts, 1 to {config.joint} images of each,"
    return Training(
        data=without_password(config.data),
        pairs=str(data),
        steps=f"{progress.step} updates of {config.batch_size * config.accumulate} {shown} on each process",
        base_model=config.init if config.init is not None and not Path(config.init).exists() else "",
        evaluation=table,
        examples=[prompt for prompt in data.some_prompts(SHOWN_PROMPTS) if prompt.strip()],
    )


def _compare(config: TrainConfig, run: Path, data: TrainingData) -> tuple[dict[str, float], str]:
    """Compare the best weights with the training-free baselines on the test split; what came of ours, and the table."""
    pictures = data.test(config.final_pairs)
    if pictures.unread:
        print(f"{pictures.unread.total()} test pairs could not be read and are left out")
    if not len(pictures):
        raise ShardError(f"none of the test pairs of {config.data} can be read: {dict(pictures.unread)}")
    inverter = load_inverter(run / MODEL)
    settings = Settings(known=Known(lambda: data.known), count=len(pictures), device=inverter.device)
    captioners: dict[str, Callable[[], Captioner]] = {config.network: lambda: InverterCaptioner(inverter, str(run / MODEL))}
    captioners |= {name: partial(build_baseline, name, settings) for name in ("nearest", "constant")}
    comparison = measure(
        captioners,
        pictures,
        about=provenance(
            pictures, data=config.data, split="test", splits=data.about_splits, training=lambda: data.known, settings={"seed": config.seed}
        ),
        title=f"{run} on {len(pictures)} test pictures of {without_password(config.data)}",
        read_slots=read_slots,
        contact_sheet=partial(contact_sheet, columns=8, cell=192, lines=7),
        similarity=SentenceSimilarity.if_there(print),
        report=run / REPORT,
    )
    table = markdown(comparison)
    print(f"\nOn {len(pictures)} test pictures of {without_password(config.data)}, held out from training:\n\n{table}\n")
    ours = comparison.columns[0]
    if ours.judgement is None:
        raise TrainingError(f"{run / MODEL} cannot be used: {ours.failed}")
    return {f"test/{name}": found.mean for name, found in {**ours.judgement.estimates, **ours.judgement.slots}.items()}, table


if __name__ == "__main__":
    begin_command()
    try:
        main(CONFIG)
    except (
        *(CheckpointError, ConfigError, EncoderError, ImageError, MissingExtraError, NotFiniteError, OSError, PairError),
        *(RunStateError, ShardError, TokenizerError, TrainingError),
    ) as error:
        sys.exit(f"train.py: {error}")
    except KeyboardInterrupt:
        sys.exit("\ntrain.py: stopped before training began; run the same command again")
