"""How like the pictures that a network was trained on a picture is, by what its image encoder makes of it."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from model.files import CONFIG_FILE, CheckpointError

FAMILIARITY_FILE = "familiarity.safetensors"
_FITTED_TO, _PART = "weights", 1 << 20
_FARTHEST = 8.0  # standard deviations of a feature; more says no more
_LEAST_SPREAD = 1e-3


class Familiarity(nn.Module):
    """The share of pictures like those trained on that are at least as strange as a picture: conformal, so that of them a share p gets at most p
    (Vovk et al., "Algorithmic learning in a random world", section 2.2). Above the strangest of them it falls on with the odds.

    Strange is what a small network, an ensemble of two-layer ones, holds for an altered or artificial picture and not for one of the training data
    (outlier exposure: Hendrycks et al., arXiv 1812.04606). It sees the mean and the log standard deviation of the encoder's features over the places
    of the picture, so that it costs next to nothing beside the encoder.
    """

    def __init__(self, features: int, *, hidden: int = 128, members: int = 5, known: int = 0) -> None:
        """
        Args:
            features: width of what the encoder gives.
            members: of the ensemble.
            known: how many pictures like those trained on say what is strange.
        """
        super().__init__()
        inputs = 2 * features
        self.mean, self.spread = nn.Buffer(torch.zeros(inputs)), nn.Buffer(torch.ones(inputs))
        self.own = nn.Buffer(torch.zeros(known))  # their strangeness, ascending
        self.inner, self.inner_bias = nn.Parameter(torch.randn(members, inputs, hidden) / inputs**0.5), nn.Parameter(torch.zeros(members, 1, hidden))
        self.outer, self.outer_bias = nn.Parameter(torch.randn(members, hidden, 1) / hidden**0.5), nn.Parameter(torch.zeros(members, 1, 1))

    @staticmethod
    def pooled(features: Tensor) -> Tensor:
        """(B, P, C), or (B, F, P, C) of several images of one prompt, -> (B, 2 C) float32, over all places."""
        features = features.float().flatten(1, -2)
        return torch.cat([features.mean(1), (features.std(1) + _LEAST_SPREAD).log()], dim=1)

    def standardise(self, pooled: Tensor) -> None:
        """Learn the mean and spread of the training pictures, (N, 2 C)."""
        self.mean.copy_(pooled.mean(0))
        self.spread.copy_(pooled.std(0) + _LEAST_SPREAD)

    def log_odds(self, pooled: Tensor, dropout: float = 0.0) -> Tensor:
        """(B, 2 C) -> (members, B): that a picture is none of the training data's."""
        inputs = ((pooled - self.mean) / self.spread).clamp(-_FARTHEST, _FARTHEST)
        hidden = nn.functional.dropout(nn.functional.gelu(inputs @ self.inner + self.inner_bias), dropout, training=dropout > 0)
        return (hidden @ self.outer + self.outer_bias).squeeze(-1)

    @torch.inference_mode()
    def strangeness(self, features: Tensor) -> Tensor:
        """(B,): the ensemble's mean log-odds."""
        return self.log_odds(self.pooled(features).to(self.mean.device)).mean(0)

    def __call__(self, features: Tensor) -> list[float]:
        """Of what `CaptionModel.encode` makes of B images (of each or, of several of one prompt, of all of them) the familiarity, 0 to 1."""
        strange, own, count = self.strangeness(features).double(), self.own.double(), len(self.own)
        stranger = count - torch.searchsorted(own, strange)  # or as strange
        beyond = torch.exp(own[-1] - strange).clamp(max=1.0)
        shares: list[float] = torch.where(strange > own[-1], beyond, 1.0 + stranger).div(count + 1).tolist()
        return shares

    def save(self, directory: Path) -> None:
        """Write it beside the weights to whose features it was fitted."""
        temporary = directory / f"{FAMILIARITY_FILE}.tmp"
        safetensors.torch.save_file(self.state_dict(), temporary, metadata={_FITTED_TO: _fingerprint(directory)})
        shutil.copymode(directory / CONFIG_FILE, temporary)  # safetensors makes files that nobody else can read
        temporary.replace(directory / FAMILIARITY_FILE)

    @classmethod
    def load(cls, directory: Path) -> Familiarity | None:
        """What `save` wrote; None where there is nothing.

        Raises:
            CheckpointError: broken, or fitted to other weights than lie beside it.
        """
        path = directory / FAMILIARITY_FILE
        if not path.is_file():
            return None
        remedy = "delete it, or fit it again: python -m inference.certainty --help"
        try:
            with safe_open(path, "pt") as file:
                about = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
            members, inputs, hidden = tensors["inner"].shape
            found = cls(inputs // 2, hidden=hidden, members=members, known=len(tensors["own"]))
            found.load_state_dict(tensors)
        except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path} is broken ({str(error).splitlines()[0]}); {remedy}") from error
        if not len(found.own) or not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
            raise CheckpointError(f"{path} holds something else than numbers; {remedy}")
        if about.get(_FITTED_TO) != _fingerprint(directory):
            raise CheckpointError(f"{path} was fitted to other weights than lie beside it; {remedy}")
        return found.eval()


def _fingerprint(directory: Path) -> str:
    """Of the files of weights."""
    digest = hashlib.sha256()
    for path in sorted([*directory.glob("*.safetensors"), *directory.glob("*.onnx")]):
        if path.name != FAMILIARITY_FILE:
            with path.open("rb") as file:
                while part := file.read(_PART):
                    digest.update(part)
    return digest.hexdigest()[:16]
