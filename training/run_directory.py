"""A run's directory: who may use it, what it was begun with, and where its checkpoints are."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from data.files import write_text
from tokenizer import TOKENIZER_FILE
from training.config import TrainConfig

CONFIG_FILE, BEGUN_FILE, LOCK_FILE = "config.json", "begun.json", ".lock"
CHECKPOINTS, MODEL, REPORT = "checkpoints", "model", "report"
FEATURES = "features"
# what a run that has no checkpoint yet may have left; models and reports are not among it
_LEFTOVERS = (BEGUN_FILE, TOKENIZER_FILE, f"{FEATURES}.*", "events.out.tfevents.*", f"{CHECKPOINTS}/*.tmp", "*.tmp")
_PATIENCE = 15.0  # seconds; the workers of a run that was killed hold its lock for some


class RunStateError(RuntimeError):
    """A run that cannot be begun, saved or resumed; says what to do."""


def checkpoints(run: Path) -> list[Path]:
    """All whole checkpoints, oldest first."""
    found = [path for path in (run / CHECKPOINTS).glob("step-*") if path.name.removeprefix("step-").isdecimal()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def checkpoint_path(run: Path, step: int) -> Path:
    return run / CHECKPOINTS / f"step-{step:06d}"


@contextmanager
def held(run: Path) -> Iterator[None]:
    """Nobody else trains in this directory inside the `with` block.

    Raises:
        RunStateError: somebody does, or it holds something else than a run.
    """
    if run.is_file() or (run.is_dir() and not _is_run(run)):
        raise RunStateError(f"{run} holds something else than a run; give another --out or --name")
    run.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run / LOCK_FILE)
    try:
        lock.acquire(timeout=_PATIENCE)
    except Timeout as error:
        raise RunStateError(f"another process trains in {run}; wait for it or stop it, or give another --name") from error
    try:
        yield
    finally:
        lock.release()


def _is_run(directory: Path) -> bool:
    """Whether it is empty or a run's: models have a config.json too."""
    names = {path.name for path in directory.iterdir()}
    if names <= {LOCK_FILE}:
        return True
    try:
        content = json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"max_steps", "warmup_steps", "model"} <= content.keys()


def check_new(run: Path, go_on: str) -> None:
    """
    Args:
        go_on: the command that goes on with it.

    Raises:
        RunStateError: something was trained in it.
    """
    if checkpoints(run):
        raise RunStateError(f"{run} holds a run already. Go on with it: {go_on}. Or begin another: --name NEW (or delete {run})")
    if (run / MODEL).exists():
        raise RunStateError(f"{run} holds a trained model, but no checkpoint to go on from. Begin another run: --name NEW (or delete {run})")


def clear(run: Path) -> None:
    """Take away what a run left here that ended before its first checkpoint: the next one may have other data, another tokenizer or seed."""
    for pattern in _LEFTOVERS:
        for path in run.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def begin(run: Path, about: dict[str, Any]) -> None:
    """Remember what a run was begun with: its data, network, tokenizer, pairs per update, precision."""
    write_text(run / BEGUN_FILE, json.dumps(about, indent=2, sort_keys=True) + "\n")


def read_begun(run: Path) -> dict[str, Any]:
    """
    Raises:
        RunStateError: it does not say what it was begun with.
    """
    try:
        before = json.loads((run / BEGUN_FILE).read_text(encoding="utf-8"))
        return {"model": {}} | before
    except (OSError, TypeError, ValueError) as error:
        raise RunStateError(f"{run / BEGUN_FILE} cannot be read ({error}): {run} was not begun by this version, or is damaged") from error


def check_begun(run: Path, about: dict[str, Any]) -> None:
    """Compare all but the precision, which may change from machine to machine: weights and optimizer are float32 in each.

    Raises:
        RunStateError: the run was begun with something else; lists all that differs.
    """
    before = {name: value for name, value in read_begun(run).items() if name != "precision"}
    now = json.loads(json.dumps(about))
    if differing := differences(before, now):
        raise RunStateError(f"{run} was begun with something else: {'; '.join(differing)}. Give the same again, or another --name")


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """What differs between two structures of dictionaries: "name.of.it: one there, other now"."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(before.keys() | now.keys())
        return [line for key in keys for line in differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)]
    return [] if before == now else [f"{name}: {before} there, {now} now"]


def prepare(config: TrainConfig, run: Path, before: TrainConfig | None, resume: str) -> None:
    """Begin a run directory, or check that the run in it, begun with `before`, can be gone on with by the command `resume`.

    Raises:
        RunStateError: it cannot; names the settings that differ, or what to type.
    """
    if before is None:
        check_new(run, resume)
    else:
        # what may change: where things lie, how long and how visibly it trains; data and batches are compared by what they are
        ignored: dict[str, Any] = {"resume": False, "out": None, "name": "", "data": "", "max_steps": 10**9, "workers": 0, "batch_size": 1}
        ignored |= {"accumulate": 1, "evaluate_every": 1, "save_every": 1, "keep_checkpoints": 1, "final_pairs": 1, "compile": False}
        if "fp16" not in (before.precision, config.precision):  # which keeps a scaler of its gradients
            ignored["precision"] = "auto"
        old, new = (json.loads(json.dumps(dataclasses.asdict(dataclasses.replace(one, **ignored)), default=str)) for one in (before, config))
        if differing := differences(old, new):
            raise RunStateError(f"{run} was begun with other settings: {'; '.join(differing)}. Give the same ones, or another --name")
    if not checkpoints(run):
        if before is not None:
            print(f"{run} has no checkpoint yet: it begins anew")
        clear(run)
        config.save(run / CONFIG_FILE)
