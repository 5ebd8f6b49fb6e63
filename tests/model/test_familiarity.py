"""Familiarity of simulated pictures, and its file."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import safetensors.torch
import torch
from examples import tiny_config
from torch import Tensor

from model import CaptionModel, CheckpointError, save_model
from model.familiarity import FAMILIARITY_FILE, Familiarity
from model.files import clear_checkpoint

WIDTH, PLACES = 6, 9


def features(count: int, *, shift: float = 0.0, spread: float = 1.0, seed: int = 0) -> Tensor:
    """(N, P, C) of pictures that differ in their means and spreads."""
    generator = torch.Generator().manual_seed(seed)
    means, inner = torch.randn(count, 1, WIDTH, generator=generator), torch.randn(count, PLACES, WIDTH, generator=generator)
    return shift + means + spread * inner


def familiar_with(known: Tensor, held_out: Tensor, seed: int = 0) -> Familiarity:
    """A measure that has learned nothing, whose ranks are right all the same."""
    torch.manual_seed(seed)
    found = Familiarity(WIDTH, hidden=8, members=3, known=len(held_out))
    found.standardise(Familiarity.pooled(known))
    with torch.no_grad():
        found.own.copy_(found.strangeness(held_out).sort().values)
    return found.eval()


@pytest.fixture(scope="module")
def measure() -> Familiarity:
    return familiar_with(features(400), features(199, seed=1))


def test_of_pictures_like_those_known_a_share_p_gets_at_most_p(measure: Familiarity) -> None:
    shares = torch.tensor(measure(features(20_000, seed=2)))
    for p in (0.01, 0.05, 0.25, 0.5, 0.9):
        assert (shares <= p).float().mean().item() == pytest.approx(p, abs=3.5 * math.sqrt(p * (1 - p) / 199) + 0.002)  # 199 say what is strange
    # over many such measures exactly: p is the mean, and no more
    found = [
        (torch.tensor(familiar_with(features(50, seed=3 * i), features(19, seed=3 * i + 1), i)(features(400, seed=3 * i + 2)))) for i in range(60)
    ]
    assert (torch.cat(found) <= 0.2).float().mean().item() == pytest.approx(0.2, abs=0.03)
    assert (torch.cat(found) <= 0.05).float().mean().item() <= 0.07


def test_it_is_the_share_that_is_as_strange(measure: Familiarity) -> None:
    some = features(300, shift=0.5, seed=4)
    strange = measure.strangeness(some)
    expected = [(1 + int((measure.own >= one).sum())) / 200 for one in strange]
    inside = [place for place, one in enumerate(strange) if one <= measure.own[-1]]
    shares = measure(some)
    assert len(inside) > 100
    assert [shares[place] for place in inside] == pytest.approx([expected[place] for place in inside])
    own = measure(features(199, seed=1))  # of the strangest itself, and of the least strange
    assert min(own) == pytest.approx(2 / 200)
    assert max(own) == pytest.approx(1.0)


def test_beyond_the_strangest_it_falls_on_with_the_odds(measure: Familiarity, monkeypatch: pytest.MonkeyPatch) -> None:
    last = float(measure.own[-1])
    beyond = torch.tensor([last - 1e-4, last, last + 1e-4, last + 0.5, last + 1, last + 5, last + 300])
    monkeypatch.setattr(Familiarity, "strangeness", lambda self, features: beyond)
    shares = measure(torch.zeros(7, 1, WIDTH))
    assert shares == sorted(shares, reverse=True)
    assert shares[:2] == pytest.approx([2 / 200, 2 / 200])
    assert shares[2:6] == pytest.approx([math.exp(-step) / 200 for step in (1e-4, 0.5, 1, 5)], rel=1e-3)
    assert 0 <= shares[6] < 1e-100


def test_a_picture_has_its_familiarity_whatever_the_batch(measure: Familiarity) -> None:
    some = features(33, shift=1.0, seed=5)
    together = measure(some)
    alone = [measure(one[None])[0] for one in some]
    assert together == pytest.approx(alone, rel=1e-3)
    assert measure(some.flip(0)) == pytest.approx(together[::-1], rel=1e-3)
    assert measure(some.to(torch.float64)) == pytest.approx(together, rel=1e-3)


def test_it_sees_the_mean_and_the_spread_over_all_places() -> None:
    some = features(5)
    pooled = Familiarity.pooled(some)
    assert torch.allclose(pooled[:, :WIDTH], some.mean(1))
    assert torch.allclose(pooled[:, WIDTH:].exp(), some.std(1), atol=2e-3)
    assert torch.equal(Familiarity.pooled(some.unflatten(1, (3, 3))), pooled)  # several images of one prompt
    assert torch.allclose(Familiarity.pooled(some[:, torch.randperm(PLACES)]), pooled, atol=1e-5)
    assert Familiarity.pooled(some.bfloat16()).dtype == torch.float32
    assert Familiarity.pooled(torch.ones(2, PLACES, WIDTH)).isfinite().all()  # pictures of one colour


def test_features_are_measured_in_deviations_of_those_known() -> None:
    """Whatever the encoder's own scale is."""
    known, some = features(300), features(20, seed=1)
    measures = []
    for scale, shift in ((1.0, 0.0), (40.0, 300.0)):
        pooled, ours = Familiarity.pooled(known) * scale + shift, Familiarity.pooled(some) * scale + shift
        torch.manual_seed(0)
        measure = Familiarity(WIDTH)
        measure.standardise(pooled)
        measures.append(measure.log_odds(ours))
        assert torch.allclose(measure.mean, pooled.mean(0))
    assert torch.allclose(*measures, atol=2e-2)


def test_features_far_out_say_no_more_than_eight_deviations(measure: Familiarity) -> None:
    far, farther = features(3, shift=1e4), features(3, shift=1e6)
    assert torch.allclose(measure.strangeness(far), measure.strangeness(farther), atol=1e-2)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save_model(CaptionModel(tiny_config()), tmp_path / "model")
    return tmp_path / "model"


def test_what_is_loaded_is_what_was_saved(measure: Familiarity, checkpoint: Path) -> None:
    assert Familiarity.load(checkpoint) is None
    measure.save(checkpoint)
    again = Familiarity.load(checkpoint)
    assert again is not None
    assert again.state_dict().keys() == measure.state_dict().keys()
    assert all(torch.equal(tensor, measure.state_dict()[name]) for name, tensor in again.state_dict().items())
    some = features(20, shift=0.5)
    assert again(some) == measure(some)
    assert not again.training
    assert not list(checkpoint.glob("*.tmp"))


def test_its_file_is_read_by_whoever_reads_the_config(measure: Familiarity, checkpoint: Path) -> None:
    for mode in (0o644, 0o640):
        (checkpoint / "config.json").chmod(mode)
        measure.save(checkpoint)
        assert (checkpoint / FAMILIARITY_FILE).stat().st_mode & 0o777 == mode


def test_what_was_fitted_to_other_weights_is_refused(measure: Familiarity, checkpoint: Path) -> None:
    measure.save(checkpoint)
    weights = safetensors.torch.load_file(checkpoint / "model.safetensors")
    weights["decoder.output_bias"][0] += 1e-3
    safetensors.torch.save_file(weights, checkpoint / "model.safetensors")
    remedy = r"was fitted to other weights than lie beside it; delete it, or fit it again: python -m inference\.certainty --help"
    with pytest.raises(CheckpointError, match=rf"familiarity\.safetensors {remedy}"):
        Familiarity.load(checkpoint)
    measure.save(checkpoint)
    assert Familiarity.load(checkpoint) is not None
    (checkpoint / "config.json").write_text("{}")  # which is no weight
    assert Familiarity.load(checkpoint) is not None
    (checkpoint / "model-00002-of-00002.safetensors").write_bytes(b"more weights")
    with pytest.raises(CheckpointError, match=remedy):
        Familiarity.load(checkpoint)


def test_a_broken_file_is_named(measure: Familiarity, checkpoint: Path) -> None:
    measure.save(checkpoint)
    path = checkpoint / FAMILIARITY_FILE
    whole = path.read_bytes()
    tensors = safetensors.torch.load_file(path)
    for content in (b"", b"no tensors", whole[:50], whole[:-50]):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"familiarity\.safetensors is broken \(.+\); delete it, or fit it again"):
            Familiarity.load(checkpoint)
    path.write_bytes(whole)
    about = {"weights": metadata_of(path)["weights"]}
    for changed in (
        {name: tensor for name, tensor in tensors.items() if name != "inner"},
        {name: tensor for name, tensor in tensors.items() if name != "mean"},
        tensors | {"inner": torch.zeros(3)},
        tensors | {"outer": torch.zeros(3, 9, 1)},
        tensors | {"more": torch.zeros(3)},
    ):
        safetensors.torch.save_file(changed, path, metadata=about)
        with pytest.raises(CheckpointError, match=r"familiarity\.safetensors is broken \(.+\)"):
            Familiarity.load(checkpoint)
    for changed in (
        tensors | {"own": torch.zeros(0)},
        tensors | {"inner": tensors["inner"] * math.nan},
        tensors | {"own": tensors["own"] + math.inf},
    ):
        safetensors.torch.save_file(changed, path, metadata=about)
        with pytest.raises(CheckpointError, match=r"familiarity\.safetensors holds something else than numbers"):
            Familiarity.load(checkpoint)
    safetensors.torch.save_file(tensors, path)  # without a word of what it was fitted to
    with pytest.raises(CheckpointError, match="was fitted to other weights"):
        Familiarity.load(checkpoint)


def metadata_of(path: Path) -> dict[str, str]:
    with safetensors.safe_open(path, "pt") as file:
        return file.metadata()


def test_the_next_model_in_a_directory_does_not_have_the_formers(measure: Familiarity, checkpoint: Path) -> None:
    measure.save(checkpoint)
    clear_checkpoint(checkpoint)
    assert Familiarity.load(checkpoint) is None
    measure.save(checkpoint)
    save_model(CaptionModel(tiny_config()), checkpoint)
    assert not (checkpoint / FAMILIARITY_FILE).exists()
