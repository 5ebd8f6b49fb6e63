"""Decoding beside Hugging Face's `GitForCausalLM.generate`: the same weights, images and number of tokens, in alternating rounds.

    python benchmarks/decode.py                          git-base's shape with random weights
    python benchmarks/decode.py --source microsoft/git-base
    python benchmarks/decode.py --batches 8 --modes "beam 4" --dtypes bfloat16 --json decode.json
    python benchmarks/decode.py --memory                 peak memory at beam 4, batch 32, a process for each
    python benchmarks/decode.py --checkpoint assets/mini-inverter --before ../older     two states of this project, prompts as they end

The ratio is hf_seconds / our_seconds, with --before that of the older state to this one. Greedy and beam search must write the same tokens, and the
table says whether they did.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
import tyro
from gits import build_pair, pictures
from PIL import Image
from rounds import median_seconds, report, usual_dtypes

MODES = ("greedy", "beam 4", "8 samples")


@dataclass(frozen=True, kw_only=True)
class DecodeConfig:
    """What to compare."""

    source: str | None = None
    """A GIT directory or Hub id; random weights of git-base's shape without it."""
    batches: tuple[int, ...] = (1, 8, 32)
    modes: tuple[str, ...] = MODES
    dtypes: tuple[Literal["float32", "bfloat16", "float16"], ...] = field(default_factory=usual_dtypes)
    """By default float32, and bfloat16 where the device multiplies in it."""
    tokens: int = 20
    """New tokens, forced in both."""
    rounds: int = 3
    compile: bool = False
    """Write ours in compiled steps of one shape (`CaptionModel.compile_decoding`)."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    checkpoint: str | None = None
    """One of our checkpoints, writing whole prompts of pictures of the embedded world, in place of a GIT."""
    before: Path | None = None
    """Another checkout of this project to compare --checkpoint in, such as a `git worktree`."""
    worker: bool = False
    """Used by --before for its child processes: writes whenever it is asked to on standard input."""
    json: Path | None = None
    memory: bool = False
    """Measure peak memory instead of time."""
    memory_of: Literal["", "theirs", "ours"] = ""
    """Used by --memory for its child processes."""


def runners(theirs: Any, ours: Any, pixels: torch.Tensor, mode: str, tokens: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Two functions that write `tokens` tokens for each image: theirs and ours."""
    forced = {"min_new_tokens": tokens, "max_new_tokens": tokens}
    their_arguments: dict[str, Any] = {"greedy": {}, "beam 4": {"num_beams": 4}, "8 samples": {"do_sample": True, "num_return_sequences": 8}}[mode]

    def run_theirs() -> Any:
        with torch.inference_mode():
            return theirs.generate(pixel_values=pixels, **({"do_sample": False} | their_arguments), **forced)[:, 1:].tolist()

    def run_ours() -> Any:
        if mode == "8 samples":
            return ours.sample(pixels, num_return_sequences=8, **forced)
        return [list(found[0].tokens) for found in ours.search(pixels, num_beams=1 if mode == "greedy" else 4, **forced)]

    return run_theirs, run_ours


def same_tokens(their: list[list[int]], our: list[list[int]]) -> str:
    """How many texts are equal; in half precision two orders of summation may part ways at a near tie."""
    return f"{sum(a == b for a, b in zip(their, our, strict=True))} of {len(their)}"


def measure_memory(config: DecodeConfig) -> None:
    rows = []
    for dtype in config.dtypes:
        peaks = {}
        for who in ("theirs", "ours"):
            command = [sys.executable, __file__, "--memory-of", who, "--dtypes", dtype, "--tokens", str(config.tokens), "--device", config.device]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            peaks[who] = float(json.loads(output.splitlines()[-1])["mib"])
        rows.append({"dtype": dtype, "hf MiB": peaks["theirs"], "our MiB": peaks["ours"], "ours / hf": peaks["ours"] / peaks["theirs"]})
    report("Peak memory over the weights, beam 4, batch 32, git-base shape", rows, torch.device(config.device), config.json)


def print_memory(config: DecodeConfig) -> None:
    """The most memory that one generation takes beyond what the process held before it, in MiB."""
    device, dtype = torch.device(config.device), getattr(torch, config.dtypes[0])
    theirs, ours = build_pair(config.source, device=device, dtype=dtype)
    pixels = pictures(32, device=device, dtype=dtype)
    run = dict(zip(("theirs", "ours"), runners(theirs, ours, pixels, "beam 4", config.tokens), strict=True))[config.memory_of]
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        peak = torch.cuda.max_memory_allocated() - before
    else:
        process, most, done = psutil.Process(), [0], threading.Event()
        before = process.memory_info().rss

        def watch() -> None:
            while not done.is_set():
                most[0] = max(most[0], process.memory_info().rss)
                time.sleep(0.005)

        watcher = threading.Thread(target=watch)
        watcher.start()
        run()
        done.set()
        watcher.join()
        peak = most[0] - before
    print(json.dumps({"mib": peak / 2**20}))


def work(config: DecodeConfig) -> None:
    """Write when asked: each line of standard input is (mode, batch, dtype); answers with seconds and texts."""
    from inference import PromptInverter

    images = [Image.open(io.BytesIO(base64.b64decode(line))) for line in json.loads(sys.stdin.readline())]
    inverters: dict[str, Any] = {}
    for line in sys.stdin:
        mode, batch, dtype = json.loads(line)
        if dtype not in inverters:
            inverters[dtype] = PromptInverter.from_pretrained(config.checkpoint or "", device=config.device, dtype=dtype)
        some = [images[i % len(images)] for i in range(batch)]
        start = time.perf_counter()
        if mode == "8 samples":
            found = inverters[dtype].predict(some, do_sample=True, num_return_sequences=8, seed=0, batch_size=batch)
        else:
            found = inverters[dtype].predict(some, num_beams=1 if mode == "greedy" else 4, batch_size=batch)
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "texts": [prediction.prompt for prediction in found]}), flush=True)


def measure_states(config: DecodeConfig) -> None:
    """This checkout beside another one, a process for each, one of which works at a time."""
    here = Path(__file__).resolve().parents[1]
    checkouts = {"before": (config.before or here).resolve(), "now": here}
    command = [sys.executable, str(Path(__file__).resolve()), "--worker", "--checkpoint", str(Path(config.checkpoint or "").resolve())]
    command += ["--device", config.device]
    workers = {
        name: subprocess.Popen(
            command, cwd=place, env=os.environ | {"PYTHONPATH": str(place)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name, place in checkouts.items()
    }

    def ask(name: str, *question: object) -> Any:
        pipe_in, pipe_out = workers[name].stdin, workers[name].stdout
        assert pipe_in is not None
        assert pipe_out is not None
        pipe_in.write(json.dumps(question[0] if len(question) == 1 else question) + "\n")
        pipe_in.flush()
        return json.loads(pipe_out.readline()) if len(question) > 1 else None

    for name in workers:
        ask(name, [base64.b64encode(picture).decode() for picture in painted(32)])
    rows = []
    for dtype in config.dtypes:
        for mode in config.modes:
            for batch in config.batches:
                answers = {name: [ask(name, mode, batch, dtype) for _ in range(2)][1:] for name in workers}  # the first one warms up
                for _ in range(config.rounds - 1):
                    for name in workers:
                        answers[name].append(ask(name, mode, batch, dtype))
                seconds = {name: statistics.median(answer["seconds"] for answer in found) for name, found in answers.items()}
                equal = sum(a == b for a, b in zip(answers["before"][0]["texts"], answers["now"][0]["texts"], strict=True))
                row = {"dtype": dtype, "mode": mode, "batch": batch} | {f"{name} images/s": batch / took for name, took in seconds.items()}
                rows.append(row | {"ratio": seconds["before"] / seconds["now"], "same texts": f"{equal} of {batch}"})
                print(rows[-1], file=sys.stderr)
    for worker in workers.values():
        worker.terminate()
    report(f"Prompts of {config.checkpoint}, medians of {config.rounds} rounds", rows, torch.device(config.device), config.json)


def painted(count: int) -> list[bytes]:
    """So many pictures of the embedded world, as files."""
    from diffusion.mini.world import random_scenes
    from diffusion.pipelines import load_pipeline, synthesize

    prompts = [prompt for _, prompt in itertools.islice(random_scenes(31, held_out=True), count)]
    found = []
    for image in synthesize(load_pipeline("mini", device=torch.device("cpu")), prompts, range(count), steps=4, guidance_scale=1.0):
        buffer = io.BytesIO()
        image.save(buffer, "png")
        found.append(buffer.getvalue())
    return found


def main(config: DecodeConfig) -> None:
    if config.compile and (config.checkpoint is not None or config.memory):
        sys.exit("--compile is for the times beside Hugging Face's alone; leave it out, or --checkpoint and --memory")
    if config.worker:
        work(config)
    elif config.checkpoint is not None:
        measure_states(config)
    elif config.memory_of:
        print_memory(config)
    elif config.memory:
        measure_memory(config)
    else:
        measure_time(config)


def measure_time(config: DecodeConfig) -> None:
    device, rows = torch.device(config.device), []
    for dtype in config.dtypes:
        theirs, ours = build_pair(config.source, device=device, dtype=getattr(torch, dtype))
        if config.compile:
            ours.compile_decoding()
        for mode in config.modes:
            for batch in config.batches:
                pixels = pictures(batch, device=device, dtype=getattr(torch, dtype))
                run_theirs, run_ours = runners(theirs, ours, pixels, mode, config.tokens)
                equal = "random" if mode == "8 samples" else same_tokens(run_theirs(), run_ours())
                seconds = median_seconds({"hf": run_theirs, "ours": run_ours}, rounds=config.rounds, device=device)
                row = {"dtype": dtype, "mode": mode, "batch": batch, "hf s": seconds["hf"], "our s": seconds["ours"]}
                rows.append(row | {"ratio": seconds["hf"] / seconds["ours"], "same tokens": equal})
                print(rows[-1], file=sys.stderr)
    report(f"Decoding {config.tokens} tokens, git-base shape, 224 px, medians of {config.rounds} rounds", rows, device, config.json)


if __name__ == "__main__":
    main(tyro.cli(DecodeConfig, description=__doc__))
