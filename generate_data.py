"""Make a data set: render prompts with a diffusion model and keep images and prompts as shards of pairs.

Examples:
    python generate_data.py                                             13,000 pairs of the embedded world
    python generate_data.py --out datasets/large --num-images 20000
    python generate_data.py --prompts prompts.txt --out datasets/mine --model stabilityai/stable-diffusion-2-base
    python generate_data.py --prompts titles.csv --prompt-column title --model stabilityai/sdxl-turbo --out datasets/mine
    python generate_data.py --prompts prompts.txt --images-per-prompt 3 --steps 20 30 --guidance 5 7.5 9 --scheduler euler-a --out datasets/mine
    python generate_data.py --out datasets/mine --only 000000042        one image again, compared with the one in its shard
    accelerate launch generate_data.py --out datasets/large --num-images 20000      several GPUs, each with shards of its own

It can be stopped at any time; the same command goes on with the shards that are missing.
"""

from __future__ import annotations

import signal
import sys
from datetime import timedelta

if __name__ == "__main__":  # Ctrl-C from here on ends the process, whatever is being imported
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from data.console import begin_command, read_command_line
from synthesis.config import GenerateConfig

if __name__ == "__main__":  # --help, a wrong option and Ctrl-C do not wait for the imports below, which take seconds
    CONFIG = read_command_line(GenerateConfig, __doc__)

from accelerate import PartialState

from data.errors import MissingExtraError
from data.splits import SPLITS
from diffusion.pipelines import PipelineError, default_device
from synthesis.prompts import PROMPTS_FILE
from synthesis.run import Work, begin, count_made, join, make_again, num_pairs, own_share, pipeline_precision, render, spread


def main(config: GenerateConfig) -> bool:
    """Whether all that was asked for is there."""
    device = default_device()
    if config.only is not None:
        print(make_again(config, config.only, device))
        return True
    config.check()
    processes = PartialState(cpu=device.type == "cpu", timeout=timedelta(days=1))  # the first to be done waits for the last
    with processes.main_process_first():  # which decides what is to be made; the others find it in the directory
        work = begin(config, device) if processes.is_main_process else join(config, device)
    if work.pipeline is not None:
        if processes.is_main_process:
            print(f"computes in {pipeline_precision(config, work.pipeline, device)}", flush=True)
        own = own_share(work, processes.process_index, processes.num_processes)
        render(config, work.pipeline, own, done=num_pairs(work.shards) - num_pairs(work.missing))
    processes.wait_for_everyone()
    return report(config, work) if processes.is_main_process else True


def report(config: GenerateConfig, work: Work) -> bool:
    """Say what is there, as the shards' stats files count it; whether it is all."""
    made = count_made(config, work.shards)
    if work.notice:
        print(work.notice, file=sys.stderr)
    for place, kind in [one for one in work.prompts.left_out if one[1] == "malformed row"][:10]:
        print(f"{kind}, {place}", file=sys.stderr)
    if work.prompts.left_out:
        kinds = ", ".join(f"{count} x {kind}" for kind, count in work.prompts.kinds.items())
        print(f"{len(work.prompts.left_out)} prompts were left out: {kinds}; they are listed in {config.out / PROMPTS_FILE}", file=sys.stderr)
    cut = sum(record.original_prompt is not None for record in work.prompts.records)
    if cut:
        print(f"{cut} prompts were longer than the text encoder reads and were cut to what it does (--long-prompts)", file=sys.stderr)
    if made.truncated:
        print(f"{made.truncated} pairs have a prompt longer than the text encoder reads; the column truncated says which", file=sys.stderr)
    if made.failed:
        kinds = ", ".join(f"{count} x {kind}" for kind, count in made.failed.items())
        print(f"{sum(made.failed.values())} images could not be made: {kinds}. The tables say which; --retry tries them again.", file=sys.stderr)
    print(f"{config.out}: {sum(made.counts.values())} pairs (" + ", ".join(f"{split} {made.counts[split]}" for split in SPLITS) + ")")
    if config.prompts is not None:
        spreading = spread(work, config)
        print(spreading.text)
        if spreading.warning is not None:
            print(f"Warning: {spreading.warning}", file=sys.stderr)
    if made.shards_done < made.shards:
        left = made.shards - made.shards_done
        print(f"{made.shards_done} of {made.shards} shards are there; {left} are being made by another run, or were left by one", file=sys.stderr)
        print("Run the same command again to be sure of them.", file=sys.stderr)
        return False
    print(f"Next: python train.py --data {config.out}")
    return True


if __name__ == "__main__":
    begin_command()
    try:
        sys.exit(0 if main(CONFIG) else 1)
    except (MissingExtraError, OSError, PipelineError, ValueError) as error:
        sys.exit(f"generate_data.py: {error}")
    except KeyboardInterrupt:
        sys.exit("\ngenerate_data.py: stopped. The finished shards are kept; run the same command to go on.")
