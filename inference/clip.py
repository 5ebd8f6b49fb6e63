"""How well a prompt fits its image by a CLIP model (arXiv 2103.00020): the cosine of their embeddings."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch.nn import functional as F

from data.errors import MissingExtraError
from data.images import to_rgb
from inference.fingerprint import add_weights


class ClipError(ValueError):
    """A CLIP model that cannot be loaded; says what to do."""


class ClipFit:
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

    @torch.inference_mode()
    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """The cosine of each image and prompt, -1 to 1; of a longer prompt only the beginning is seen (77 tokens of CLIP)."""
        pixels = self.processor(images=[to_rgb(image) for image in images], return_tensors="pt")["pixel_values"]
        texts = self.processor(text=list(prompts), padding=self.padding, truncation=True, return_tensors="pt").to(self.device)
        seen = self.model.get_image_features(pixel_values=pixels.to(self.device, self.model.dtype), return_dict=True)
        read = self.model.get_text_features(**texts, return_dict=True)
        cosines = F.cosine_similarity(_pooled(seen).float(), _pooled(read).float())
        if not bool(cosines.isfinite().all()):
            raise ClipError("the CLIP model computed NaN or infinity instead of a cosine: its weights are damaged, or too large for float16")
        return list(cosines.tolist())

    def fingerprint(self) -> str:
        """By which the model is known again."""
        digest = hashlib.sha256()
        add_weights(digest, self.model)
        return digest.hexdigest()[:16]


def _pooled(features: Any) -> torch.Tensor:
    """Newer versions of transformers wrap the embedding."""
    return features if isinstance(features, torch.Tensor) else features.pooler_output
