"""Write the prompts of pictures: one line each, the file's name and its prompt. Pictures that cannot be read are named on standard error, and then
the exit code is 1.

Examples:
    python caption.py docs/examples
    python caption.py a.png b.jpg --num-return 3
    python caption.py folder --checkpoint runs/mini/model --dtype bfloat16
    python caption.py a.png --prefix "a watercolor painting of" --ban cat kitten
    python caption.py a.png --sample --num-return 5 --seed 1
"""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

if __name__ == "__main__":  # Ctrl-C from here on ends the process, whatever is being imported
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import tyro

from data.console import begin_command, check_finite, check_least, read_command_line
from inference import DEFAULT_CHECKPOINT


@dataclass(frozen=True, kw_only=True)
class CaptionConfig:
    """Which pictures, with which model."""

    paths: tyro.conf.Positional[tuple[Path, ...]]
    """Picture files, and folders of them."""
    checkpoint: str = str(DEFAULT_CHECKPOINT)
    """A checkpoint directory or Hub id, ours or a BLIP or GIT of Hugging Face; the model in the box by default."""
    revision: str | None = None
    """Of a Hub id: a branch, a tag or a commit."""
    num_return: int = 1
    """Prompts to write for each picture, best first (by --length-penalty; samples by their probability)."""
    num_beams: int = 4
    """Hypotheses kept while searching for the likeliest prompt; --num-return raises it where it must."""
    length_penalty: float = 1.0
    """Above 1 favours longer prompts, below 1 shorter ones."""
    sample: bool = False
    """Draw prompts from the model's distribution instead of searching for the likeliest."""
    temperature: float = 1.0
    """With --sample: above 1 more varied, below 1 closer to the likeliest."""
    top_k: int = 0
    """With --sample: draw each token from the likeliest so many (0: all)."""
    top_p: float = 1.0
    """With --sample: draw each token from the fewest likeliest that together have this probability."""
    seed: int | None = None
    """With --sample: draw the same prompts for a picture each time."""
    prefix: str = ""
    """How every prompt must start; whole words."""
    ban: tuple[str, ...] = ()
    """Words and phrases that must not be written, in capitals or not, nor words that begin with them."""
    min_new_tokens: int = 0
    """Tokens of a prompt at least."""
    max_new_tokens: int | None = None
    """Tokens of a prompt at most, the end counted."""
    batch_size: int = 32
    """Pictures that go through the network together; fewer take less memory."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision: auto is float32 on a CPU, bfloat16 on a GPU. bfloat16 is much quicker on a CPU that multiplies in it (AVX512-BF16, AMX)."""

    def __post_init__(self) -> None:
        check_least(1, num_return=self.num_return, num_beams=self.num_beams, batch_size=self.batch_size, max_new_tokens=self.max_new_tokens)
        check_least(0, top_k=self.top_k, min_new_tokens=self.min_new_tokens)
        check_finite(length_penalty=self.length_penalty)


if __name__ == "__main__":  # --help, a wrong option and Ctrl-C do not wait for the imports below, which take seconds
    CONFIG = read_command_line(CaptionConfig, __doc__)

from PIL import Image

from data.errors import ImageError, MissingExtraError
from data.images import read_image
from inference import Prediction, load_inverter
from inference.files import find_images
from inference.loading import Inverter
from model import CheckpointError


def main(config: CaptionConfig) -> int:
    """Returns how many pictures could not be read."""
    if not config.paths:
        raise ValueError("name a picture or a folder, for example: python caption.py docs/examples")
    if not config.sample and (config.temperature, config.top_k, config.top_p, config.seed) != (1.0, 0, 1.0, None):
        raise ValueError("--temperature, --top-k, --top-p and --seed say how to draw prompts; add --sample")
    unreadable = 0

    def closed(folder: Path, error: OSError) -> None:
        nonlocal unreadable
        unreadable += 1
        print(f"skipped {_one_line(folder)}: it cannot be entered ({error.strerror})", file=sys.stderr)

    files = list(find_images(config.paths, closed))
    if not files:
        raise ValueError("there are no pictures in " + ", ".join(map(str, config.paths)))
    inverter = load_inverter(config.checkpoint, dtype=config.dtype, revision=config.revision)
    for start in range(0, len(files), config.batch_size):
        read: list[tuple[Path, Image.Image]] = []
        for file in files[start : start + config.batch_size]:
            try:
                read.append((file, inverter.reduced(read_image(file))))  # large pictures need not all be held
            except ImageError as error:
                unreadable += 1
                print(f"skipped {_one_line(error)}", file=sys.stderr)
        predictions = _predict(config, inverter, [image for _, image in read])
        for (file, _), prediction in zip(read, predictions, strict=True):
            for prompt in (prediction.prompt, *(text for text, _ in prediction.alternatives)):
                print(f"{_one_line(file)}\t{' '.join(prompt.splitlines())}", flush=True)
    if unreadable:
        print(f"{unreadable} of {len(files)} files could not be read as pictures.", file=sys.stderr)
    return unreadable


def _one_line(name: object) -> str:
    """A file's name without what ends the line or moves the cursor."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape", "surrogatepass").decode() for one in str(name))


def _predict(config: CaptionConfig, inverter: Inverter, images: list[Image.Image]) -> list[Prediction]:
    if config.sample:
        return inverter.sample(
            images,
            num_samples=config.num_return,
            temperature=config.temperature,
            top_k=config.top_k,
            top_p=config.top_p,
            seed=config.seed,
            prefix=config.prefix,
            min_new_tokens=config.min_new_tokens,
            max_new_tokens=config.max_new_tokens,
            banned_words=config.ban,
            batch_size=config.batch_size,
        )
    return inverter.predict(
        images,
        num_beams=max(config.num_beams, config.num_return),
        num_return=config.num_return,
        length_penalty=config.length_penalty,
        prefix=config.prefix,
        min_new_tokens=config.min_new_tokens,
        max_new_tokens=config.max_new_tokens,
        banned_words=config.ban,
        batch_size=config.batch_size,
    )


if __name__ == "__main__":
    begin_command()
    try:
        sys.exit(1 if main(CONFIG) else 0)
    except BrokenPipeError:
        sys.exit(0)
    except (CheckpointError, MissingExtraError, OSError, ValueError) as error:
        sys.exit(f"caption.py: {error}")
    except KeyboardInterrupt:
        sys.exit("\ncaption.py: stopped")
