"""A folder of pictures to text, from files on disk to strings: `PromptInverter` beside Hugging Face's GIT as its documentation uses it.

    python benchmarks/folder.py --images folder/           your pictures
    python benchmarks/folder.py --count 100                pictures drawn for the occasion, 512 x 512 PNG

Without --source the weights are random, in git-base's shape, with a WordPiece vocabulary made up for them; both sides use the same. How many
texts are equal is reported: the two resize pictures with different libraries, so pixels can be one level of 255 apart.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from gits import build_pair
from PIL import Image
from rounds import median_seconds_when_warm, report

from data.images import pictures_below
from inference import PromptInverter


@dataclass(frozen=True, kw_only=True)
class FolderConfig:
    """What to read and how."""

    source: str | None = None
    """A GIT directory or Hub id."""
    images: Path | None = None
    """A folder of pictures."""
    count: int = 500
    """How many pictures, at most."""
    batch_size: int = 32
    num_beams: int = 1
    max_new_tokens: int = 20
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of both."""
    rounds: int = 1
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    json: Path | None = None


def save_random_git(directory: Path) -> None:
    """A GIT directory as its authors publish it, with random weights."""
    from transformers import BertTokenizerFast, CLIPImageProcessor, GitProcessor

    theirs, _ = build_pair(None, device=torch.device("cpu"), dtype=torch.float32)
    words = ["[PAD]", *(f"[unused{i}]" for i in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += [f"word{i}" for i in range(theirs.config.vocab_size - len(words))]
    (directory / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    processor = CLIPImageProcessor(size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224})
    GitProcessor(processor, BertTokenizerFast(str(directory / "vocab.txt"))).save_pretrained(directory)
    theirs.save_pretrained(directory)


def draw_pictures(directory: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        coarse.resize((512, 512), Image.Resampling.BICUBIC).save(directory / f"{i:05d}.png")


def their_way(source: str, device: torch.device, config: FolderConfig) -> Any:
    from transformers import AutoProcessor, GitForCausalLM

    processor = AutoProcessor.from_pretrained(source)
    dtype = getattr(torch, config.dtype)
    model = GitForCausalLM.from_pretrained(source, dtype=dtype).eval().to(device)

    @torch.inference_mode()
    def run(paths: list[Path]) -> list[str]:
        texts: list[str] = []
        for start in range(0, len(paths), config.batch_size):
            images = [Image.open(path).convert("RGB") for path in paths[start : start + config.batch_size]]
            pixel_values = processor(images=images, return_tensors="pt").pixel_values.to(device, dtype)
            ids = model.generate(pixel_values=pixel_values, num_beams=config.num_beams, max_new_tokens=config.max_new_tokens, do_sample=False)
            texts += processor.batch_decode(ids, skip_special_tokens=True)
        return texts

    return run


def main(config: FolderConfig) -> None:
    device = torch.device(config.device)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        if config.source is None:
            (root / "git").mkdir()
            save_random_git(root / "git")
        source, folder = config.source or str(root / "git"), config.images or root / "pictures"
        if config.images is None:
            folder.mkdir()
            draw_pictures(folder, config.count)
        paths = list(pictures_below(folder, lambda closed, why: print(closed, why)))[: config.count]
        theirs = their_way(source, device, config)
        inverter = PromptInverter.from_pretrained(source, device=config.device, dtype=config.dtype)
        found: dict[str, list[str]] = {}

        def run_theirs(some: list[Path] = paths) -> None:
            found["hf"] = theirs(some)

        def run_ours(some: list[Path] = paths) -> None:
            predictions = inverter.predict(some, num_beams=config.num_beams, max_new_tokens=config.max_new_tokens, batch_size=config.batch_size)
            found["ours"] = [prediction.prompt for prediction in predictions]

        for run in (run_theirs, run_ours):
            run(paths[: config.batch_size])
        seconds = median_seconds_when_warm({"hf": run_theirs, "ours": run_ours}, rounds=config.rounds, device=device)
    equal = sum(a.strip() == b for a, b in zip(found["hf"], found["ours"], strict=True))
    row = {"images": len(paths), "beams": config.num_beams, "batch": config.batch_size, "hf s": seconds["hf"], "our s": seconds["ours"]}
    row |= {"ratio": seconds["hf"] / seconds["ours"], "hf images/s": len(paths) / seconds["hf"], "our images/s": len(paths) / seconds["ours"]}
    title = f"A folder of pictures to text, {config.dtype}, {config.max_new_tokens} tokens at most, medians of {config.rounds} rounds"
    report(title, [row | {"same texts": f"{equal} of {len(paths)}"}], device, config.json)


if __name__ == "__main__":
    main(tyro.cli(FolderConfig, description=__doc__))
