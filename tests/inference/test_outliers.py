"""Pictures that are none of a data set's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from inference.outliers import _KINDS, outliers

KINDS = {kind.__name__.strip("_"): kind for kind in _KINDS}


def pictures(count: int = 32, height: int = 30, width: int = 47) -> Tensor:
    """Noise and passages of colours, so that none is like its mirror, its negative or itself turned."""
    generator = torch.Generator().manual_seed(9)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return (255 * (0.9 * smooth + 0.1 * torch.rand(count, 3, height, width, generator=generator))).round().to(torch.uint8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made_by(kind: Callable[[Tensor, torch.Generator], Tensor], seed: int = 0, count: int = 8) -> tuple[Tensor, Tensor]:
    """Pictures, 0 to 1, and what a kind makes of them."""
    pixels = pictures(count).float() / 255
    return pixels, kind(pixels, seeded(seed))


def test_a_generator_decides_what_is_made() -> None:
    some = pictures()
    before = some.clone()
    state = torch.random.get_rng_state()
    one, same, other = outliers(some, seeded(1)), outliers(some, seeded(1)), outliers(some, seeded(2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(some, before)
    assert torch.equal(torch.random.get_rng_state(), state)  # whoever draws beside it draws the same


@pytest.mark.parametrize(("height", "width"), [(30, 47), (47, 30), (8, 8), (9, 15), (32, 32), (64, 64)])
@pytest.mark.parametrize("count", [1, 40])
def test_they_are_as_many_and_as_large(height: int, width: int, count: int) -> None:
    some = pictures(count, height, width)
    for seed in range(3):
        made = outliers(some, seeded(seed))
        assert (made.shape, made.dtype) == (some.shape, torch.uint8)
    for kind in _KINDS:
        assert kind(some.float() / 255, seeded()).shape == some.shape


def test_all_kinds_occur_and_none_leaves_a_picture_as_it_is() -> None:
    some, counts = pictures(64), dict.fromkeys(KINDS, 0)
    for seed in range(40):
        made = outliers(some, seeded(seed))
        assert not (made == some).flatten(1).all(1).any()
        for number in torch.randint(len(_KINDS), (64,), generator=seeded(seed)).tolist():
            counts[_KINDS[number].__name__.strip("_")] += 1
    assert set(counts) == {
        *("blocks", "negative", "recoloured", "blended", "on_plain", "on_smooth", "scrambled", "enlarged", "tiled", "turned", "levels", "noise"),
        "leaves",
    }
    assert min(counts.values()) > 100
    assert counts["leaves"] > 1.5 * counts["noise"]  # twice as often


@pytest.mark.parametrize("name", ["recoloured", "blended", "turned", "blocks", "scrambled"])
def test_a_picture_alone_is_changed_too(name: str) -> None:
    for seed in range(30):
        pixels, made = made_by(KINDS[name], seed, count=1)
        assert (made - pixels).abs().mean() > 0.01


def test_colours_are_reversed_or_change_places() -> None:
    pixels, made = made_by(KINDS["negative"])
    assert torch.allclose(made + pixels, torch.ones(()))
    orders = set()
    for seed in range(60):
        pixels, made = made_by(KINDS["recoloured"], seed, count=2)
        orders.add(tuple(next(place for place in range(3) if torch.equal(pixels[0, place], channel)) for channel in made[0]))
    assert orders == {(0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)}


def test_blocks_are_the_pictures_own() -> None:
    pixels = pictures(4, 32, 32).float() / 255
    for seed in range(5):
        made = KINDS["blocks"](pixels, seeded(seed))
        assert torch.equal(made.flatten(1).sort().values, pixels.flatten(1).sort().values)
        assert not torch.equal(made, pixels)
    across = {4: set(), 8: set(), 16: set()}  # type: ignore[var-annotated]
    marks = torch.arange(16.0).repeat_interleave(16).view(1, 1, 16, 16).expand(1, 3, 16, 16)  # each row says its number
    for seed in range(20):
        made = KINDS["blocks"](marks, seeded(seed))[0, 0]
        size = next(size for size in (8, 4, 2) if all(bool((made[top : top + size].diff(dim=0) == 1).all()) for top in range(0, 16, size)))
        across[2 * size].add(seed)
    assert all(across.values())  # of three sizes


def test_two_pictures_show_through_each_other() -> None:
    pixels, made = made_by(KINDS["blended"])
    for place in range(8):
        other = pixels[(place - 1) % 8].flip(2)
        share = ((made[place] - other) * (pixels[place] - other)).sum() / ((pixels[place] - other) ** 2).sum()
        assert 0.3 <= share <= 0.7
        assert torch.allclose(made[place], share * pixels[place] + (1 - share) * other, atol=1e-4)


@pytest.mark.parametrize("name", ["on_plain", "on_smooth"])
def test_parts_of_a_picture_stay_on_another_ground(name: str) -> None:
    pixels, made = made_by(KINDS[name], count=64)
    stays = (made == pixels).all(1)
    assert 0.3 < stays.float().mean() < 0.7
    assert stays.flatten(1).float().mean(1).min() > 0.02
    ground = [made[place][:, ~stays[place]] for place in range(64)]
    plain = [bool((colours == colours[:, :1]).all()) for colours in ground]
    assert all(plain) if name == "on_plain" else not any(plain)
    if name == "on_plain":
        white = sum(bool((colours == 1).all()) for colours in ground)
        assert 16 < white < 48  # as often as not


def test_scrambled_pictures_have_the_same_frequencies() -> None:
    pixels, made = made_by(KINDS["scrambled"])
    inside = torch.fft.rfft2(made[..., :, 1:]).abs()
    assert inside.isfinite().all()
    ours, theirs = torch.fft.rfft2(made).abs()[..., 1:14, 1:20], torch.fft.rfft2(pixels).abs()[..., 1:14, 1:20]
    assert torch.allclose(ours, theirs, atol=1e-2)
    assert torch.allclose(made.mean((2, 3)), pixels.mean((2, 3)), atol=1e-3)


def test_a_part_fills_the_picture_or_the_picture_is_there_four_times() -> None:
    height, width = 32, 48
    pixels = torch.linspace(0, 1, width).expand(3, 3, height, width)  # brighter to the right
    _, small = made_by(KINDS["tiled"])
    assert small.shape == (8, 3, 30, 47)
    tiled = KINDS["tiled"](pixels, seeded())
    assert torch.allclose(tiled[..., :24], tiled[..., 24:])
    assert torch.allclose(tiled[..., :16, :], tiled[..., 16:, :])
    assert torch.allclose(tiled[0, 0, 0, :24], pixels[0, 0, 0].view(24, 2).mean(1))
    for turned in (False, True):
        spans = []
        for seed in range(60):
            made = KINDS["enlarged"](pixels.transpose(2, 3) if turned else pixels, seeded(seed))[0, 0]
            row = made[:, 7] if turned else made[7]
            spans.append(float(row[-1] - row[0]))
            assert (row.diff() >= -1e-3).all()
        assert 0.15 < min(spans) < 0.3
        assert 0.5 < max(spans) < 0.65


def test_turns_are_quarters() -> None:
    pixels = pictures(2, 24, 24).float() / 255
    turns = {
        next(turn for turn in range(4) if torch.equal(KINDS["turned"](pixels, seeded(seed)), torch.rot90(pixels, turn, (2, 3)))) for seed in range(30)
    }
    assert turns == {1, 2, 3}


def test_levels_go_both_ways() -> None:
    pixels = 0.2 + 0.6 * pictures(200).float() / 255
    made = KINDS["levels"](pixels, seeded())
    brighter = (made.mean((1, 2, 3)) > pixels.mean((1, 2, 3))).float().mean()
    colourful = (made.std(1).mean((1, 2)) > pixels.std(1).mean((1, 2))).float().mean()
    assert 0.3 < brighter < 0.7
    assert 0.2 < colourful < 0.8


def test_noise_is_from_coarse_to_fine_and_leaves_are_shapes() -> None:
    pixels = torch.zeros(20, 3, 64, 64)
    jumps = [float(KINDS["noise"](pixels, seeded(seed)).diff(dim=3).abs().mean()) for seed in range(30)]
    assert min(jumps) < 0.02
    assert max(jumps) > 0.25
    leaves = KINDS["leaves"](pixels, seeded()).clamp(0, 1)
    edges = (leaves.diff(dim=3).abs().amax(1) > 0.1).float().mean()
    assert 0.005 < edges < 0.25  # plain or smooth within, and an edge now and then
    assert len({tuple(picture[:, 5, 5].tolist()) for picture in leaves}) == 20
