from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.clip_scores import ClipScores


class Plane:
    """A CLIP of two dimensions: pictures by their red and green, texts by their letters r and g after the prefix."""

    def of_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.tensor([image.getpixel((0, 0))[:2] for image in images], dtype=torch.float32), dim=-1)

    def of_texts(self, texts: Sequence[str]) -> torch.Tensor:
        assert all(text.startswith("A photo depicts ") for text in texts)
        rest = [text.removeprefix("A photo depicts ") for text in texts]
        return torch.nn.functional.normalize(
            torch.tensor([[float(text.count("r")), text.count("g") - 2.0 * text.count("-")] for text in rest]), dim=-1
        )


def test_clip_score_and_its_mean_with_the_references_by_hand() -> None:
    images = [Image.new("RGB", (4, 4), colour) for colour in ((9, 0, 0), (9, 0, 0), (0, 9, 0), (0, 9, 0))]
    references = [["r", "rg"], ["rg"], ["g"], ["g"]]
    found = ClipScores(Plane(), iter(images), references)(["rg", "rg", "r", "-"])  # type: ignore[arg-type]
    diagonal = np.sqrt(0.5)
    assert found["clip_score"].tolist() == pytest.approx([2.5 * diagonal, 2.5 * diagonal, 0, 0])
    mean = 2 * 2.5 * diagonal * 1 / (2.5 * diagonal + 1)
    assert found["ref_clip_score"].tolist() == pytest.approx([mean, mean, 0, 0])
