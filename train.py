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
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

import torch
import tyro
from accelerate import Accelerator
from torch.utils.data import DataLoader
from tqdm import tqdm

from data.batches import ShuffledBatches
from data.images import AugmentedPreprocess, ImageError, Preprocess
from data.pairs import IGNORED_LABEL, Batch, Collate, PairDataset, SeededCollate
from data.shards import DATASET_FILE, ShardError, read_json, write_json
from evaluation.baselines import Constant, Nearest
from evaluation.metrics import MissingExtraError, SentenceSimilarity, exact_match, token_f1
from evaluation.report import Result, as_json, markdown_table, score, timed_captions, write_report
from inference import PromptInverter
from model import CaptionModel, CheckpointError, EncoderError, find_checkpoint, load_model
from tokenizer import PromptTokenizer, TokenizerError
from training.config import PRESETS, ConfigError, TrainConfig
from training.objective import CaptionLoss
from training.optimizer import build_optimizer, warmup_cosine
from training.run_state import Progress, RunStateError, checkpoints, load_state, save_state
from training.tracking import Tracker

EMBEDDED_DATA = Path("datasets/mini")
VALIDATION_PAIRS = 256
PANEL_PAIRS = 16


def main(config: TrainConfig) -> None:
    accelerator = Accelerator(mixed_precision="bf16", cpu=not torch.accelerator.is_available())  # without it torchrun on CPUs starts strangers
    run = config.run_directory
    with accelerator.main_process_first():
        _prepare_data(config)
        training, validation = PairDataset(config.data, "train"), PairDataset(config.data, "val")
        _prepare_run(config, run)
        tokenizer = _tokenizer(run, training, config)

    torch.manual_seed(config.seed)
    model = _network(config, tokenizer)
    if accelerator.device.type == "cpu":
        model.to(memory_format=torch.channels_last)
    if config.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    objective = CaptionLoss(model)
    if config.compile:
        objective.compile(dynamic=True)  # in place: the weights keep their names
    optimizer = build_optimizer(
        model.encoder, model.decoder, learning_rate=config.learning_rate, encoder_rate=config.encoder_rate, weight_decay=config.weight_decay
    )
    schedule = warmup_cosine(optimizer, warmup_steps=config.warmup_steps, max_steps=config.max_steps)
    progress = load_state(run, model, optimizer, schedule) if config.resume else Progress()
    wrapped, optimizer = accelerator.prepare(objective, optimizer)

    preprocess, collate = _collate(model, tokenizer)
    order = ShuffledBatches(
        len(training),
        config.batch_size,
        seed=config.seed,
        start_step=progress.step,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
    )
    augmented = SeededCollate(dataclasses.replace(collate, preprocess=AugmentedPreprocess(preprocess)), config.seed)
    loader = DataLoader(training, batch_sampler=order, collate_fn=augmented, num_workers=config.workers, worker_init_fn=_ignore_ctrl_c)

    tracker = Tracker(run) if accelerator.is_main_process else None
    stop = _StopRequest()
    if accelerator.is_main_process:
        _announce(config, model, training, run)
    bar = tqdm(total=config.max_steps, initial=progress.step, unit="step", desc="training", disable=not accelerator.is_main_process)
    batches = iter(loader)
    model.train()
    while progress.step < config.max_steps and not stop.asked:
        waiting = time.perf_counter()
        batch: Batch = next(batches)
        working = time.perf_counter()
        pixel_values, input_ids, labels = (tensor.to(accelerator.device) for tensor in (batch.pixel_values, batch.input_ids, batch.labels))
        torch.manual_seed(_step_seed(config.seed, progress.step, accelerator.process_index))  # dropout, the same after an interruption
        tokens = accelerator.reduce((labels != IGNORED_LABEL).sum())  # of all processes: the loss is a mean over the step's tokens

        with accelerator.autocast():
            loss = wrapped(pixel_values, input_ids, labels) * accelerator.num_processes / tokens
        accelerator.backward(loss)
        norm = accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()

        progress.step += 1
        bar.update()
        if tracker is not None and progress.step % 10 == 0:
            done = time.perf_counter()
            bar.set_postfix(loss=f"{float(loss.detach()):.3f}")
            tracker.scalars(
                {
                    "train/loss": float(loss.detach()),
                    "train/gradient_norm": float(norm),
                    "train/learning_rate": schedule.get_last_lr()[-1],
                    "speed/images_per_second": config.batch_size * accelerator.num_processes / (done - waiting),
                    "speed/tokens_per_second": float(tokens) / (done - waiting),
                    "speed/data_wait": (working - waiting) / (done - waiting),
                },
                progress.step,
            )
        last = progress.step == config.max_steps
        if accelerator.is_main_process and (last or progress.step % config.evaluate_every == 0):
            values = _validate(model, tokenizer, validation, collate, accelerator, tracker, progress.step)
            bar.write(f"step {progress.step}: " + ", ".join(f"{name} {value:.3f}" for name, value in values.items()))
            if values["loss"] < progress.best_loss:
                progress.best_loss = values["loss"]
                PromptInverter(model, tokenizer).save_pretrained(run / "model")
            model.train()
        if accelerator.is_main_process and (last or stop.asked or progress.step % config.save_every == 0):
            save_state(run, progress, model, optimizer, schedule, keep=config.keep_checkpoints)
        accelerator.wait_for_everyone()
    bar.close()
    if tracker is not None:
        tracker.close()
    if stop.asked:
        sys.exit(f"stopped after step {progress.step}; go on with: {_resume_command(config)}")
    if accelerator.is_main_process:
        _finish(config, run, training)


def _prepare_data(config: TrainConfig) -> None:
    """Make the embedded data set, or finish it, when that is the one asked for."""
    if config.data != EMBEDDED_DATA:
        return
    begun = config.data / DATASET_FILE
    arguments = read_json(begun)["arguments"] if begun.exists() else ["--out", str(config.data)]
    command = [sys.executable, str(Path(__file__).with_name("generate_data.py")), *arguments]
    alone = {name: value for name, value in os.environ.items() if not name.endswith(("RANK", "WORLD_SIZE"))}  # not one of our processes
    if subprocess.run(command, check=False, env=alone).returncode != 0:
        raise ShardError(f"the embedded data set in {config.data} could not be made (see above)")


def _prepare_run(config: TrainConfig, run: Path) -> None:
    """Begin a run directory, or check that it can be resumed."""
    if config.resume:
        before = TrainConfig.load(run / "config.json")
        ignored = {"resume": False, "out": None, "max_steps": 1, "workers": 0}
        if dataclasses.replace(before, **ignored) != dataclasses.replace(config, **ignored):
            old, new = dataclasses.asdict(before), dataclasses.asdict(config)
            differing = [f"{name}: {old[name]} there, {new[name]} now" for name in old if name not in ignored and old[name] != new[name]]
            raise RunStateError(f"{run} was begun with other settings: {'; '.join(differing)}. Give the same ones, or another --name")
        return
    if run.exists() and checkpoints(run):
        raise RunStateError(f"{run} holds a run already. Go on with it: {_resume_command(config)}. Or begin another: --name NEW (or delete {run})")
    if run.is_file() or (run.is_dir() and any(run.iterdir()) and not (run / "config.json").exists()):
        raise RunStateError(f"{run} holds something else than a run; give another --out or --name")
    run.mkdir(parents=True, exist_ok=True)
    config.save(run / "config.json")


def _tokenizer(run: Path, training: PairDataset, config: TrainConfig) -> PromptTokenizer:
    """The run's tokenizer: that of --init, or learnt from the training prompts at the run's beginning."""
    path = run / "tokenizer.json"
    if config.init is not None and not path.exists():
        PromptTokenizer.load(find_checkpoint(config.init) / "tokenizer.json").save(path)
    if not path.exists():
        prompts = [training.metadata(i)["prompt"] for i in tqdm(range(len(training)), "reading prompts", unit="prompt", leave=False)]
        PromptTokenizer.train(prompts, config.network.vocab_size).save(path)
    return PromptTokenizer.load(path)


def _network(config: TrainConfig, tokenizer: PromptTokenizer) -> CaptionModel:
    if config.init is None:
        return CaptionModel(config.network.model_config(tokenizer))
    return load_model(find_checkpoint(config.init)).float()


def _collate(model: CaptionModel, tokenizer: PromptTokenizer) -> tuple[Preprocess, Collate]:
    seen = model.config.preprocessing
    preprocess = Preprocess(seen.size, seen.mean, seen.std, seen.interpolation, seen.crop)
    return preprocess, Collate(preprocess, tokenizer.encode, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, model.config.max_text_tokens)


@torch.no_grad()
def _validate(
    model: CaptionModel,
    tokenizer: PromptTokenizer,
    validation: PairDataset,
    collate: Collate,
    accelerator: Accelerator,
    tracker: Tracker | None,
    step: int,
) -> dict[str, float]:
    """Loss and greedy predictions on the first validation pairs."""
    model.eval()
    pairs = [validation[i] for i in range(min(VALIDATION_PAIRS, len(validation)))]
    total, count, predictions = 0.0, 0, list[str]()
    for start in range(0, len(pairs), 64):
        batch: Batch = collate(pairs[start : start + 64])
        pixel_values, labels = batch.pixel_values.to(accelerator.device), batch.labels.to(accelerator.device)
        with accelerator.autocast():
            total += float(model.summed_loss(pixel_values, batch.input_ids.to(accelerator.device), labels))
            texts = model.search(pixel_values, num_beams=1)
        count += int((labels != IGNORED_LABEL).sum())
        predictions += [tokenizer.decode(found[0].tokens) for found in texts]
    prompts = [pair.prompt for pair in pairs]
    values = {
        "loss": total / count,
        "token_f1": float(token_f1(prompts, predictions).mean()),
        "exact_match": float(exact_match(prompts, predictions).mean()),
    }
    if tracker is not None:
        tracker.scalars({f"validation/{name}": value for name, value in values.items()}, step)
        tracker.panel([pair.image for pair in pairs[:PANEL_PAIRS]], prompts[:PANEL_PAIRS], predictions[:PANEL_PAIRS], step)
    return values


def _announce(config: TrainConfig, model: CaptionModel, training: PairDataset, run: Path) -> None:
    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    encoder = sum(parameter.numel() for parameter in model.encoder.parameters()) / 1e6
    print(
        f"{run}: {parameters:.1f} M parameters ({encoder:.1f} M in {model.config.encoder.name}), {model.num_image_tokens} image tokens, "
        f"{len(training)} training pairs, {config.max_steps} steps of {config.batch_size}"
    )


def _finish(config: TrainConfig, run: Path, training: PairDataset) -> None:
    """Compare the best weights with the training-free baselines on the test split, and say what to do next."""
    test = PairDataset(config.data, "test")
    pairs = [test[i] for i in range(min(config.final_pairs, len(test)))]
    images, prompts = [pair.image for pair in pairs], [pair.prompt for pair in pairs]
    known = [training[i] for i in range(min(len(training), 20_000))]
    inverter = PromptInverter.from_pretrained(run / "model")
    captioners = {
        "reprompt": lambda some: [prediction.prompt for prediction in inverter.predict(some)],
        "nearest": Nearest([pair.image for pair in known], [pair.prompt for pair in known]).caption,
        "constant": Constant([pair.prompt for pair in known]).caption,
    }
    similarity = SentenceSimilarity()
    results: list[Result] = []
    for name, caption in captioners.items():
        with tqdm(total=len(images), desc=name, unit="image", leave=False) as bar:
            texts, rate = timed_captions(caption, images, batch_size=64, progress=bar.update)
        results.append(score(name, prompts, [pair.slots for pair in pairs], texts, rate, similarity=similarity))
    heading = f"# {run}\n\n{len(pairs)} test pairs of {config.data}; 95 % bootstrap intervals."
    write_report(run / "report", results, [pair.key for pair in pairs], prompts, images, heading=heading)
    write_json(run / "report" / "results.json", as_json(results, checkpoint=str(run / "model"), data=str(config.data), pairs=len(pairs)))
    print(f"\nOn {len(pairs)} pairs whose prompts were never trained on:\n\n{markdown_table(results)}\n")
    print(f"model         {run / 'model'}")
    print(f"report        {run / 'report' / 'report.md'}, pictures in {run / 'report' / 'samples.png'}")
    print(f"curves        tensorboard --logdir {run}")
    print(f"caption       python caption.py IMAGE_OR_FOLDER --checkpoint {run / 'model'}")
    print("train longer  python generate_data.py --out datasets/large --num-images 20000")
    print(f"              python train.py --data datasets/large --name long --max-steps {4 * config.max_steps}")


def _step_seed(seed: int, step: int, rank: int) -> int:
    return (seed * 1_000_003 + step) * 1_009 + rank


def _resume_command(config: TrainConfig) -> str:
    given = [argument for argument in sys.argv[1:] if argument not in ("--resume", "--no-resume")]
    return " ".join(["python train.py", *given, "--resume"])


def _ignore_ctrl_c(worker: int) -> None:
    """Ctrl-C reaches the workers too; the main process decides when they end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


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


if __name__ == "__main__":
    presets = {name: (preset.__doc__ or name, preset()) for name, preset in PRESETS.items()}
    arguments = sys.argv[1:]
    if arguments[:1] not in ([name] for name in (*presets, "-h", "--help")):
        arguments = ["mini", *arguments]  # the main job
    try:
        main(
            tyro.extras.overridable_config_cli(
                {name: (text, config) for name, (text, config) in presets.items()}, args=arguments, description=__doc__
            )
        )
    except (CheckpointError, ConfigError, EncoderError, ImageError, MissingExtraError, OSError, RunStateError, ShardError, TokenizerError) as error:
        sys.exit(f"train.py: {error}")
    except KeyboardInterrupt:
        sys.exit("\ntrain.py: stopped before training began; run the same command again")
