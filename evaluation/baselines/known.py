"""The floors, which know training pairs and learn nothing from them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from evaluation.captioners import About, Caption, CaptionerError
from model.fingerprint import add_weights

_SIDE = 16  # pixels of a thumbnail


class Constant:
    """Always the same text: the most frequent training prompt, or, where none repeats, the one nearest to all others in words. Its confidence is the
    prompt's share of them."""

    def __init__(self, prompts: Sequence[str]) -> None:
        """
        Raises:
            CaptionerError: no prompts.
        """
        if not prompts:
            raise CaptionerError("there is no training prompt to know")
        counts = Counter(prompts)
        word_counts = Counter(word for prompt in prompts for word in set(prompt.split()))

        def commonness(prompt: str) -> float:
            found = set(prompt.split())
            return sum(word_counts[word] for word in found) / len(found) if found else 0.0

        most = max(counts.values())
        self.text = max((prompt for prompt, count in counts.items() if count == most), key=commonness)
        self.share = most / len(prompts)
        self.about = About(source=f"{len(prompts)} training prompts", fingerprint=_digest(prompts), blind=True)

    def caption(self, images: Sequence[Image.Image]) -> list[Caption]:
        return [Caption(self.text, self.share)] * len(images)


class Nearest:
    """The prompt of the training image that looks most alike: smallest squared distance of pixels at 16 x 16, or by an encoder's features the largest
    cosine."""

    def __init__(self, pairs: Iterable[tuple[Image.Image, str]], encoder: ImageFeatures | None = None) -> None:
        """
        Args:
            pairs: as they come: the pictures need not fit into memory.
            encoder: a timm model; without one pixels are compared.

        Raises:
            CaptionerError: no pairs.
        """
        self.encoder = encoder
        self.prompts: list[str] = []
        vectors: list[np.ndarray] = []
        waiting: list[Image.Image] = []
        for image, prompt in pairs:
            self.prompts.append(prompt)
            waiting.append(image)
            if len(waiting) == 64:
                vectors.append(self._vectors(waiting))
                waiting = []
        if waiting:
            vectors.append(self._vectors(waiting))
        if not vectors:
            raise CaptionerError("there is no training pair to know")
        self.known = np.concatenate(vectors)
        seen = hashlib.sha256(self.known.tobytes()).hexdigest()
        fingerprint = _digest([*self.prompts, seen, encoder.fingerprint if encoder is not None else f"{_SIDE} pixels"])
        by = f", by {encoder.name}" if encoder is not None else ""
        parameters = encoder.parameters if encoder is not None else 0
        self.about = About(source=f"{len(self.prompts)} training pairs{by}", fingerprint=fingerprint, precision="float32", parameters=parameters)

    def caption(self, images: Sequence[Image.Image]) -> list[Caption]:
        queries = self._vectors(images)
        distances = (self.known**2).sum(1)[None] - 2 * queries @ self.known.T
        return [Caption(self.prompts[i]) for i in distances.argmin(1)]

    def _vectors(self, images: Sequence[Image.Image]) -> np.ndarray:
        return np.stack([_thumbnail(image) for image in images]) if self.encoder is None else self.encoder(images)


class ImageFeatures:
    """What a timm model sees in pictures: its pooled features, of length 1."""

    def __init__(self, name: str, device: torch.device | str = "cpu") -> None:
        """
        Args:
            name: of a model of timm's with published weights, or a directory or file that timm.create_model loads ("hf-hub:...", "local-dir:...").

        Raises:
            CaptionerError: no such model, or its weights cannot be had.
        """
        import timm
        from timm.data.config import resolve_model_data_config
        from timm.data.transforms_factory import create_transform

        self.name = name
        wanted = f"local-dir:{name}" if Path(name).is_dir() else name
        try:
            self.model = timm.create_model(wanted, pretrained=True, num_classes=0).eval().to(device)
        except Exception as error:  # of the library, and of the network behind it
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise CaptionerError(
                f"timm's {name} could not be loaded: {first}\nWithout a network give a directory of timm's (config.json and model.safetensors)"
            ) from error
        self.transform = create_transform(**resolve_model_data_config(self.model), is_training=False)
        self.device = torch.device(device)
        self.parameters = sum(parameter.numel() for parameter in self.model.parameters())
        digest = hashlib.sha256(f"{name} {self.transform}".encode())
        add_weights(digest, self.model)
        self.fingerprint = digest.hexdigest()[:16]

    @torch.inference_mode()
    def __call__(self, images: Sequence[Image.Image]) -> np.ndarray:
        """(N, D) float32."""
        pixels = torch.stack([self.transform(image.convert("RGB")) for image in images]).to(self.device)
        return torch.nn.functional.normalize(self.model(pixels).float(), dim=-1).cpu().numpy()


def _thumbnail(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float32).ravel() / 255


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode("utf-8", "replace")).hexdigest()[:16]
