"""What a frozen encoder makes of every image, computed once and kept on disk."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from data.loading.examples import Example, Examples
from data.loading.order import Place
from model.encoder import ImageEncoder

_BATCH = 64


class FeatureExamples(Dataset[Example]):
    """The `Examples` that `compute_features` has seen, with features in the place of images."""

    def __init__(self, stem: Path) -> None:
        self.rows = stem.with_suffix(".npy")
        texts = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
        self.tokens: list[list[int]] = texts["tokens"]
        self.skipped: list[dict[str, int]] = texts["skipped"]
        self._open: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, place: Place) -> Example:
        if self._open is None:  # by each worker for itself
            self._open = np.load(self.rows, mmap_mode="r")
        features = torch.from_numpy(self._open[place.index].astype(np.float32))
        return Example(features, self.tokens[place.index], Counter(self.skipped[place.index]))


@torch.no_grad()
def compute_features(stem: Path, encoder: ImageEncoder, examples: Examples, device: torch.device, *, bfloat16: bool, workers: int) -> None:
    """Write `stem`.npy, (pairs, P, width) float16, and `stem`.json, the texts that belong to them; nothing if they are there.

    With `bfloat16` the encoder computes as in training; float16 holds what comes out.
    """
    if stem.with_suffix(".json").exists():  # written last
        return
    count = len(examples.pairs)
    places = [[Place(index, index) for index in range(start, min(start + _BATCH, count))] for start in range(0, count, _BATCH)]
    loader = DataLoader(examples, batch_sampler=places, collate_fn=list, num_workers=workers)
    encoder = encoder.to(device).eval()
    temporary = stem.with_suffix(f".npy.{os.getpid()}.tmp")
    rows: np.memmap | None = None
    tokens: list[list[int]] = []
    skipped: list[dict[str, int]] = []
    try:
        for batch in tqdm(loader, "computing image features", unit="batch"):
            with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                images = examples.preprocess.normalise(torch.stack([example.image for example in batch]).to(device))
                features = encoder.features(images).to(torch.float16).cpu().numpy()
            if rows is None:
                rows = np.lib.format.open_memmap(temporary, "w+", np.float16, (count, *features.shape[1:]))
            rows[len(tokens) : len(tokens) + len(features)] = features
            tokens += [example.tokens for example in batch]
            skipped += [dict(example.skipped) for example in batch]
        if rows is not None:
            rows.flush()
            del rows  # Windows renames nothing that is open
        os.replace(temporary, stem.with_suffix(".npy"))
    finally:
        temporary.unlink(missing_ok=True)
    texts = stem.with_suffix(f".json.{os.getpid()}.tmp")
    texts.write_text(json.dumps({"tokens": tokens, "skipped": skipped}), encoding="utf-8")
    os.replace(texts, stem.with_suffix(".json"))
