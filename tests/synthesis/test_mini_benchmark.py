"""The benchmark in the box, as it lies there."""

import itertools
import json
from pathlib import Path

import pytest

from data.sources.held_out import HeldOutPictures
from data.sources.opening import open_splits
from data.store.pairs import PairDataset
from diffusion.mini.world import random_scenes, read_slots
from synthesis.mini_benchmark import MEASURED_ON, SEED, TEST, TRAIN, test_scenes, train_scenes
from synthesis.plan import image_seed

DIRECTORY = Path(__file__).parents[2] / "assets" / "mini-benchmark"
test_scenes.__test__ = False  # type: ignore[attr-defined]  # its name is no test's


@pytest.fixture(scope="module")
def test_metadata() -> list[dict]:
    pairs = PairDataset(DIRECTORY, "test")
    return [pairs.metadata(number) for number in range(len(pairs))]


def test_it_is_a_data_set_of_500_pictures_with_a_card_and_small() -> None:
    splits = open_splits(str(DIRECTORY))
    pictures = HeldOutPictures.of(splits["test"], 10_000)
    assert len(pictures) == len(set(pictures.groups)) == TEST == 500
    assert not pictures.unread
    assert len(PairDataset(DIRECTORY, "train")) == TRAIN
    assert sum(path.stat().st_size for path in DIRECTORY.rglob("*") if path.is_file()) <= 4_000_000
    assert (DIRECTORY / "README.md").read_text().startswith("---\nlicense: apache-2.0")
    for about, prompts in zip(pictures.slots, pictures.references, strict=True):
        assert read_slots(prompts[0]) == dict(about)


@pytest.mark.slow
def test_its_scenes_are_no_network_s(test_metadata: list[dict]) -> None:
    """Diffusion model, student and captioners are trained on scenes that are not held out; of the others some were looked at while they were made."""
    keys = {about["prompt_group"] for about in test_metadata}
    scenes = test_scenes()
    assert [about["prompt"] for about in test_metadata] == [prompt for _, prompt in scenes]
    assert all(scene.held_out and scene.key in keys for scene, _ in scenes)
    for seed, count in MEASURED_ON.items():
        assert not keys & {scene.key for scene, _ in itertools.islice(random_scenes(seed, held_out=True), count)}
    for seed in (0, 1):  # generate_data.py's default, and the 100,000 pairs of the captioners in the box
        assert not keys & {scene.key for scene, _ in itertools.islice(random_scenes(seed, held_out=False), 2000)}


def test_its_seeds_are_no_other_data_set_s(test_metadata: list[dict]) -> None:
    seeds = {about["seed"] for about in test_metadata}
    assert seeds == {image_seed(SEED, number) for number in range(TEST)}
    for other in (0, 1):
        assert not seeds & {image_seed(other, number) for number in range(100_000)}


def test_what_the_floors_know_is_of_ordinary_scenes() -> None:
    pairs = PairDataset(DIRECTORY, "train")
    assert [pairs.prompt(number) for number in range(len(pairs))] == [prompt for _, prompt in train_scenes()]
    assert not any(scene.held_out for scene, _ in train_scenes())
    about = json.loads((DIRECTORY / "dataset.json").read_text())
    assert about["counts"] == {"test": TEST, "train": TRAIN}
    assert not list(DIRECTORY.rglob("*.lock"))
