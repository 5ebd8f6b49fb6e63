"""The commands, with every product in a half precision an error: run as a process of its own under variables that hide a CPU's bfloat16.

python tests/half_products.py DIRECTORY PAIRS
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import tyro
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import app
import caption
import evaluate
import generate_data
import score
import train
from core.device import multiplies_in
from data import importers

_PRODUCTS = ("mm", "mv", "dot", "conv", "linear", "attention", "matmul")


class NoHalfProducts(TorchDispatchMode):
    """Fails on a product or convolution of which an operand is in bfloat16 or float16; counts the others."""

    def __init__(self) -> None:
        super().__init__()
        self.products = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        name = str(func)
        if any(word in name for word in _PRODUCTS):
            self.products += 1
            halves = [leaf.dtype for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor) and leaf.dtype.itemsize == 2]
            if any(kind.is_floating_point for kind in halves):
                raise AssertionError(f"{name} in {halves[0]}")
        return func(*args, **(kwargs or {}))


def main(directory: Path, pairs: Path) -> None:
    if multiplies_in(torch.bfloat16, torch.device("cpu")):
        raise SystemExit("this CPU multiplies in bfloat16, and the variables do not hide it")
    run, written = directory / "run", directory / "made"
    brief = ["--max-steps", "3", "--warmup-steps", "1", "--final-pairs", "8", "--workers", "0"]
    commands = {
        "train.py": lambda: train.main(train.parse(["mini", "--data", str(pairs), "--out", str(run), *brief])),
        "train.py with cached features": lambda: train.main(
            train.parse(["photos", "--data", str(pairs), "--out", str(directory / "photos"), *brief, *_SMALL_PHOTOS])
        ),
        "caption.py": lambda: caption.main(tyro.cli(caption.CaptionConfig, args=["docs/examples", "--jsonl", str(directory / "rows.jsonl")])),
        "caption.py, reranked by rendering": lambda: caption.main(
            tyro.cli(caption.CaptionConfig, args=["docs/examples/1.png", "--rerank", "render", "--candidates", "2"])
        ),
        "caption.py, reranked by sentences": lambda: caption.main(
            tyro.cli(caption.CaptionConfig, args=["docs/examples/1.png", "--rerank", "mbr", "--candidates", "2"])
        ),
        "evaluate.py": lambda: evaluate.main(tyro.cli(evaluate.EvaluateConfig, args=["--limit", "4", "--baseline", "mini-git", "nearest"])),
        "score.py": lambda: score.main(tyro.cli(score.ScoreConfig, args=["--data", str(pairs), "--checkpoint", str(run / "model")])),
        "app.py": lambda: app.build_reader(tyro.cli(app.AppConfig, args=[])).read("docs/examples/1.png"),
        "generate_data.py": lambda: generate_data.main(tyro.cli(generate_data.GenerateConfig, args=["--out", str(written), "--num-images", "3"])),
        "data.importers": lambda: importers.main(importers.parse(["webdataset", str(pairs / "train"), "--out", str(directory / "imported")])),
    }
    for name, command in commands.items():
        with NoHalfProducts() as mode:
            command()
        print(f"{name}: {mode.products} products", flush=True)


# the cache of features and its order, with an encoder that needs no published weights
_SMALL_PHOTOS = [
    "--model.encoder", "test_convnext", "--model.no-pretrained-encoder", "--model.image-size", "32", "--batch-size", "8",
]  # fmt: skip

if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
