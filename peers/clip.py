"""Images and texts by a CLIP model (arXiv 2103.00020): their embeddings, and how well one fits the other."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch.nn import functional as F

from data.errors import MissingExtraError
from data.images import to_rgb
from model.fingerprint import add_weights


class ClipError(ValueError):
    """A CLIP model that cannot be loaded; says what to do."""


class Clip:
    """Scores pairs by any CLIP or SigLIP of transformers."""

    def __init__(self, name: str) -> None:
        """
        Args:
            name: a directory or a Hub id such as openai/clip-vit-large-patch14.

        Raises:
            MissingExtraError: transformers is not installed.
            ClipError: no such model, or one of another kind.
        """
        try:
            from transformers import AutoModel, AutoProcessor
        except ImportError as error:
            raise MissingExtraError(f"scoring by CLIP needs the extra 'generate' ({error}): pip install -e '.[generate]'") from error
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.float16 if self.device.type == "cuda" else torch.float32
        try:
            model, loaded = AutoModel.from_pretrained(name, dtype=dtype, use_safetensors=True, output_loading_info=True)
            self.processor: Any = AutoProcessor.from_pretrained(name)
        except Exception as error:  # the libraries behind it raise many kinds
            message = f"the CLIP model {name!r} could not be loaded: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
            raise ClipError(f"{message}. Give a directory, or a Hub id while there is a network; weights must be safetensors") from error
        if not hasattr(model, "get_image_features") or not hasattr(model, "get_text_features"):
            raise ClipError(f"{name} is a {type(model).__name__}, which has no embeddings of images and texts; give a CLIP or a SigLIP")
        if lacking := sorted({*loaded["missing_keys"], *(str(key) for key in loaded["mismatched_keys"])}):
            raise ClipError(f"the weights of {name} lack {lacking[0]} and {len(lacking) - 1} more, which would be drawn by chance; give a whole CLIP")
        tokenizer = getattr(self.processor, "tokenizer", None)
        if tokenizer is None or len(tokenizer) <= len(tokenizer.all_special_ids):  # where there is none, transformers makes one without words
            raise ClipError(f"{name} has no tokenizer (tokenizer.json); copy it again, whole")
        self.model: Any = model.to(self.device).eval()
        self.padding = "max_length" if "siglip" in self.model.config.model_type else True  # SigLIP was trained with full lengths

    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """The cosine of each image and prompt, -1 to 1; of a longer prompt only the beginning is seen (77 tokens of CLIP)."""
        cosines = (self.of_images(images) * self.of_texts(prompts)).sum(-1)
        return list(cosines.tolist())

    @torch.inference_mode()
    def of_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """(N, D) embeddings of length 1."""
        pixels = self.processor(images=[to_rgb(image) for image in images], return_tensors="pt")["pixel_values"]
        return self._embedding(self.model.get_image_features(pixel_values=pixels.to(self.device, self.model.dtype), return_dict=True))

    @torch.inference_mode()
    def of_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """(N, D) embeddings of length 1."""
        tokens = self.processor(text=list(texts), padding=self.padding, truncation=True, return_tensors="pt").to(self.device)
        return self._embedding(self.model.get_text_features(**tokens, return_dict=True))

    def _embedding(self, features: Any) -> torch.Tensor:
        vectors = features if isinstance(features, torch.Tensor) else features.pooler_output  # newer versions of transformers wrap it
        vectors = F.normalize(vectors.float(), dim=-1)
        if not bool(vectors.isfinite().all()):
            raise ClipError("the CLIP model computed NaN or infinity instead of a cosine: its weights are damaged, or too large for float16")
        return vectors

    def fingerprint(self) -> str:
        """By which the model is known again."""
        digest = hashlib.sha256()
        add_weights(digest, self.model)
        return digest.hexdigest()[:16]
