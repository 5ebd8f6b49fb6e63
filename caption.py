"""Write the prompts of pictures. A picture that carries its prompt (as AUTOMATIC1111, ComfyUI and others write it) gets that one; for the others the
model writes one.

Examples:
    python caption.py docs/examples                              to the terminal: name, prompt
    python caption.py folder --sidecar .txt                      a text beside each picture, as kohya's trainers read it
    python caption.py folder --sidecar .txt --existing append --trigger "my style"
    python caption.py folder --csv prompts.csv --jsonl prompts.jsonl
    python caption.py "renders/**/*.png" --embed copies          copies that carry their prompt
    find . -name "*.webp" -print0 | python caption.py - --csv prompts.csv
    python caption.py a.png --ignore-metadata --num-return 3     what the model says; --verify compares both
    python caption.py a.png --prefix "a watercolor painting of" --ban cat kitten
    python caption.py a.png --sample --num-return 5 --seed 1
    python caption.py a.png --rerank render                      of 16 drawn prompts the one that paints it best
    python caption.py seeds --joint                              one prompt for the pictures of a folder, made from one
    python caption.py grid.png --grid 2 2                        one for the four pictures that it shows

Each output is gone on with where it stopped. A file that cannot be read or written costs nothing but itself: it is named on standard error, counted
by reason in the last line, and then the exit code is 1.
"""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

if __name__ == "__main__":  # Ctrl-C from here on ends the process, whatever is being imported
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import tyro

from data.console import begin_command, check_finite, check_least, read_command_line
from inference import DEFAULT_CHECKPOINT


@dataclass(frozen=True, kw_only=True)
class CaptionConfig:
    """Which pictures, with which model, to where."""

    paths: tyro.conf.Positional[tuple[Path, ...]]
    """Picture files, folders (and all below them), patterns in quotation marks; - reads names from standard input."""
    checkpoint: str = str(DEFAULT_CHECKPOINT)
    """A checkpoint directory or Hub id, ours or a BLIP or GIT of Hugging Face; the model in the box by default."""
    revision: str | None = None
    """Of a Hub id: a branch, a tag or a commit."""

    jsonl: Path | None = None
    """Write a line of JSON for each picture: file, prompt, source, confidence, familiarity, alternatives, and the prompt's subject, medium and
    modifiers."""
    csv: Path | None = None
    """Write a table: a line for each picture, whatever is in its name or prompt."""
    sidecar: Literal[".txt", ".caption"] | None = None
    """Write a text beside each picture, under its name with this suffix."""
    embed: Path | None = None
    """Write copies into this folder that carry the prompt, as AUTOMATIC1111 notes it, and that it is a guess; pictures that are no PNG or JPEG become
    PNG. Never the originals."""
    existing: Literal["skip", "overwrite", "append", "prepend"] = "skip"
    """What becomes of texts, rows and copies that are there: left as they are, written anew, or (texts alone) added to."""
    json: bool = False
    """Print JSON, as --jsonl has it, instead of name and prompt."""

    ignore_metadata: bool = False
    """Do not look for the prompt that a picture carries."""
    verify: bool = False
    """Ask the model also where a picture carries its prompt, and say how much both have in common (sentence similarity; extra 'eval')."""
    trigger: tuple[str, ...] = ()
    """Words to put before every prompt, with commas between; those that it has already are not put again."""
    suffix: str = ""
    """Words to put after every prompt."""
    min_confidence: Annotated[float, tyro.conf.arg(metavar="0-1")] = 0.0
    """Say of every prompt that the model holds right with less probability than this that it is unsure."""

    joint: bool = False
    """The pictures of each folder were made from one prompt: read it from several of them at once."""
    grid: Annotated[tuple[int, int], tyro.conf.arg(metavar="ROWS COLUMNS")] = (1, 1)
    """Each file shows so many pictures of one prompt, without margins: read it from several of them at once."""
    num_return: int = 1
    """Prompts to write for each picture, best first (by --length-penalty; samples by their probability). Texts and copies have the first."""
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
    """With --sample: draw the same prompts for a picture each time, whatever the other pictures are."""
    rerank: Literal["none", "mbr", "clip", "render"] = "none"
    """Draw --candidates prompts and keep the one that is nearest in meaning to all of them (mbr: minimum Bayes risk; extra 'eval'), that a CLIP finds
    to fit best (clip: --clip), or that paints the most similar pictures (render: --paint; extra 'generate')."""
    candidates: int = 16
    """With --rerank: prompts drawn for each picture, beside those of the search."""
    clip: str | None = None
    """With --rerank clip: a directory or Hub id of a CLIP or SigLIP."""
    paint: str = "mini"
    """With --rerank render: what paints: mini (the embedded model), a directory or Hub id of diffusers."""
    prefix: str = ""
    """How every prompt of the model must start; whole words, from which it goes on."""
    ban: tuple[str, ...] = ()
    """Words and phrases that the model must not write, in capitals or not, nor words that begin with them: "camera" bans "cameras" too, "era" does
    not ban "camera"."""
    min_new_tokens: int = 0
    """Tokens of a prompt at least."""
    max_new_tokens: int | None = None
    """Tokens of a prompt at most, the end counted."""
    batch_size: int = 32
    """Pictures that go through the network together, with --joint and --grid prompts; fewer take less memory."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision: auto is float32 on a CPU, bfloat16 on a GPU. bfloat16 is much quicker on a CPU that multiplies in it (AVX512-BF16, AMX)."""

    def __post_init__(self) -> None:
        check_least(1, num_return=self.num_return, num_beams=self.num_beams, batch_size=self.batch_size, max_new_tokens=self.max_new_tokens)
        check_least(0, top_k=self.top_k, min_new_tokens=self.min_new_tokens)
        check_least(2, candidates=self.candidates)
        if (self.rerank == "clip") != (self.clip is not None):
            raise ValueError("--rerank clip needs a CLIP, and nothing else does: --rerank clip --clip DIR_OR_ID")
        if min(self.grid) < 1:
            raise ValueError(f"--grid takes rows and columns, each 1 or more, not {self.grid[0]} {self.grid[1]}")
        if self.rerank != "none" and (self.joint or self.grid != (1, 1)):
            raise ValueError("--rerank is of one picture at a time; leave it, or --joint and --grid out")
        if self.rerank != "none" and self.sample:
            raise ValueError("--rerank draws prompts by itself; leave --sample out")
        check_finite(length_penalty=self.length_penalty)
        if not 0 <= self.min_confidence <= 1:
            raise ValueError(f"--min-confidence must be between 0 and 1, not {self.min_confidence}")
        if not self.sample and (self.temperature, self.top_k, self.top_p, self.seed) != (1.0, 0, 1.0, None):
            raise ValueError("--temperature, --top-k, --top-p and --seed say how to draw prompts; add --sample")
        if self.existing in ("append", "prepend") and self.sidecar is None:
            raise ValueError(f"--existing {self.existing} adds to texts beside the pictures; add --sidecar .txt")
        if self.ignore_metadata and self.verify:
            raise ValueError("--verify compares with the prompts in the pictures, which --ignore-metadata does not read; leave one out")
        if self.json and (self.jsonl or self.csv or self.sidecar or self.embed):
            raise ValueError("--json is for standard output, where nothing is written when there is another output; leave it out")


if __name__ == "__main__":  # --help, a wrong option and Ctrl-C do not wait for the imports below, which take seconds
    CONFIG = read_command_line(CaptionConfig, __doc__)

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

from tqdm import tqdm

from data.embeddings import SentenceEncoder, SentenceModelError
from data.errors import MissingExtraError
from diffusion.painting import painting_with
from diffusion.pipelines import PipelineError
from inference import load_inverter
from inference.beside import Copies, Sidecars
from inference.captioning import Captioning, Outcome, Wording
from inference.files import find_images, listed_paths
from inference.line_files import JsonLines, Table
from inference.loading import Inverter
from inference.outputs import Output, Printed, opened
from inference.reranking import BayesRisk, ClipFit, Rendering, Reranker
from inference.rows import printable
from model import CheckpointError, NotFiniteError
from peers.clip import Clip, ClipError

_PLACES = ("paths", "jsonl", "csv", "sidecar", "embed", "existing", "json", "batch_size", "checkpoint", "revision")  # which change no prompt


def main(config: CaptionConfig) -> Outcome:
    """How many files went which way."""
    outcome = Outcome()
    if not config.paths:
        raise ValueError("name a picture or a folder, for example: python caption.py docs/examples")

    def closed(folder: Path, error: OSError) -> None:
        outcome.failed["folder that cannot be entered"] += 1
        print(f"{printable(folder)}: it cannot be entered ({error.strerror})", file=sys.stderr)

    def listed() -> Iterator[Path]:
        """Of a list too one name costs nothing but itself."""
        for path in listed_paths(sys.stdin.buffer):
            if path.exists():
                yield path
            else:
                outcome.failed["missing image"] += 1
                print(f"{printable(path)}: no such file", file=sys.stderr)

    named = [path for name in config.paths for path in (listed() if str(name) == "-" else [name])]
    files = {file: root for file, root in find_images(named, closed) if config.embed is None or not _is_copy(file, root, config.embed)}
    if not files:
        raise ValueError("there are no pictures in " + (", ".join(map(str, config.paths)) if named else "the list on standard input"))
    inverter = load_inverter(config.checkpoint, dtype=config.dtype, revision=config.revision)
    options = {name: value for name, value in dataclasses.asdict(config).items() if name not in _PLACES}
    by = hashlib.sha256(f"{inverter.fingerprint()} {sorted(options.items())}".encode()).hexdigest()[:12]
    captioning = Captioning(
        inverter=inverter,
        decoding=decoding(config),
        batch_size=config.batch_size,
        joint=config.joint,
        grid=config.grid,
        reranker=reranker(config, inverter),
        candidates=config.candidates,
        metadata=not config.ignore_metadata,
        verify=config.verify,
        wording=Wording(triggers=config.trigger, suffix=config.suffix),
        min_confidence=config.min_confidence,
        by=by,
    )
    with opened(outputs(config, files, by)) as places, tqdm(total=len(files), unit="picture", disable=None) as bar:

        def tell(message: str) -> None:
            bar.clear()
            print(message, file=sys.stderr)

        captioning.run(files, places, outcome, failed=tell, done=bar.update)
    return outcome


def _is_copy(file: Path, root: Path, embed: Path) -> bool:
    """Whether a file was only found because the copies lie below where was looked."""
    folder, beginning = embed.resolve(), root.resolve()
    return not beginning.is_relative_to(folder) and file.resolve().is_relative_to(folder)


def outputs(config: CaptionConfig, files: dict[Path, Path], by: str) -> list[Callable[[], Output]]:
    builds: list[Callable[[], Output]] = []
    if config.jsonl is not None:
        path = config.jsonl
        builds.append(lambda: JsonLines(path, config.existing, by))
    if config.csv is not None:
        table = config.csv
        builds.append(lambda: Table(table, config.existing, by))
    if config.sidecar is not None:
        suffix = config.sidecar
        builds.append(lambda: Sidecars(suffix, config.existing))
    if config.embed is not None:
        folder = config.embed
        builds.append(lambda: Copies(folder, config.existing, files))
    return builds or [lambda: Printed(lambda line: print(line, flush=True), as_json=config.json)]


def reranker(config: CaptionConfig, inverter: Inverter) -> Reranker | None:
    if config.rerank == "mbr":
        return BayesRisk(SentenceEncoder(bfloat16=True))
    if config.rerank == "clip" and config.clip is not None:
        return ClipFit(Clip(config.clip))
    if config.rerank == "render":
        return Rendering(painting_with(config.paint, inverter.device)[0], inverter.features)
    return None


def decoding(config: CaptionConfig) -> dict[str, Any]:
    """As `inference.Decoding` has it."""
    about: dict[str, Any] = {"num_return_sequences": config.num_return, "prefix": config.prefix, "bad_words": config.ban}
    about |= {"min_new_tokens": config.min_new_tokens, "max_new_tokens": config.max_new_tokens}
    if config.sample:
        return about | {"do_sample": True, "temperature": config.temperature, "top_k": config.top_k, "top_p": config.top_p, "seed": config.seed}
    return about | {"num_beams": max(config.num_beams, config.num_return), "length_penalty": config.length_penalty}


if __name__ == "__main__":
    begin_command()
    try:
        FOUND = main(CONFIG)
        print(FOUND, file=sys.stderr)
        sys.exit(1 if FOUND.failed else 0)
    except BrokenPipeError:
        sys.exit(0)
    except (
        *(CheckpointError, ClipError, MissingExtraError, NotFiniteError, OSError),
        *(PipelineError, SentenceModelError, ValueError),
    ) as error:
        sys.exit(f"caption.py: {error}")
    except KeyboardInterrupt:
        sys.exit("\ncaption.py: stopped; what was written is whole, and the same command goes on")
