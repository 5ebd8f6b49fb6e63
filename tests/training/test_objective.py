import pytest
import torch
from examples import tiny_config

from model import CaptionModel
from training.objective import CaptionLoss


@pytest.mark.parametrize("from_features", [False, True])
def test_captions_are_scored_on_the_pictures_that_they_share(from_features: bool) -> None:
    """As many captions as divide evenly over the pictures, which says nothing of whom they belong to."""
    torch.manual_seed(0)
    model = CaptionModel(tiny_config()).eval()
    pixels, ids = torch.randn(2, 3, 32, 32), torch.randint(3, 20, (4, 5))
    shown = model.encoder.features(pixels) if from_features else pixels
    found = CaptionLoss(model, from_features=from_features)(shown, ids, ids, torch.tensor([0, 1, 1, 1]))
    assert float(found) == pytest.approx(float(model.summed_loss(pixels[[0, 1, 1, 1]], ids, ids)), rel=1e-5)
