import itertools
import random

import pytest

from diffusion.mini.world import PHRASINGS, SUBJECTS, Scene, count_scenes, random_scene, random_scenes, read_slots, with_article

FOX = Scene(subject="fox", background="forest", style="watercolor")


@pytest.mark.parametrize(
    ("scene", "phrasing", "prompt"),
    [
        (FOX, 0, "a watercolor painting of a fox in a forest"),
        (FOX, 1, "a fox in a forest, watercolor, soft washes on paper"),
        (FOX, 2, "a fox, forest, watercolor, soft washes on paper"),
        (
            Scene(subject="owl", background="beach", style="oil painting", count=3, colour="blue", weather="rain", light="night"),
            0,
            "an oil painting of three blue owls on a beach, rain, night",
        ),
        (
            Scene(subject="cat", background="underwater", style="neon", colour="orange", relation="behind", other="elephant"),
            1,
            "an orange cat behind an elephant underwater, neon, glowing outlines",
        ),
        (Scene(subject="unicorn", background="desert", style="mosaic", close_up=True), 2, "a unicorn, desert, mosaic, close-up, ceramic tiles"),
    ],
)
def test_phrasings_by_hand(scene: Scene, phrasing: int, prompt: str) -> None:
    assert scene.prompt(phrasing) == prompt


def test_slots_are_read_back_from_every_phrasing() -> None:
    rng = random.Random(0)
    for _ in range(3000):
        scene = random_scene(rng)
        for phrasing in range(PHRASINGS):
            assert read_slots(scene.prompt(phrasing)) == scene.slots()


@pytest.mark.parametrize("text", ["", "nothing of this world", "an owl owl owl, neon neon", ",,,", "two foxes two foxes"])
def test_any_text_has_slots(text: str) -> None:
    assert read_slots(text).keys() == FOX.slots().keys()


def test_more_than_ten_million_scenes_counted_independently() -> None:
    assert count_scenes() > 10_000_000
    # 60 subjects: 7 styles show colour. Without colours: (4 + 3 * 59) casts each, 11 styles, 13 places, 4 weathers, 4 lights
    plain = 60 * (4 + 3 * 59) * 11 * 13 * 4 * 4
    tints = sum(6 if subject.natural_colour else 7 for subject in SUBJECTS.values()) * (4 + 3 * 59) * 7 * 13 * 4 * 4
    assert count_scenes() == plain + tints


def test_streams_are_reproducible_and_keep_held_out_scenes_apart() -> None:
    def draw(seed: int, held_out: bool) -> list[str]:
        return [scene.key for scene, _ in itertools.islice(random_scenes(seed, held_out=held_out), 1500)]

    assert draw(1, False) == draw(1, False)
    assert not set(draw(1, False)) & set(draw(2, True))
    share = sum(random_scene(random.Random(i)).held_out for i in range(4000)) / 4000
    assert share == pytest.approx(0.05, abs=0.015)


def test_scenes_make_sense() -> None:
    for scene, _ in itertools.islice(random_scenes(4, held_out=False), 3000):
        assert scene.other != scene.subject
        assert bool(scene.other) == bool(scene.relation)
        assert scene.count == 1 or not scene.other
        assert scene.colour != SUBJECTS[scene.subject].natural_colour or not scene.colour


def test_articles() -> None:
    assert [with_article(noun) for noun in ("owl", "unicorn", "umbrella", "orange cat", "house")] == [
        "an owl",
        "a unicorn",
        "an umbrella",
        "an orange cat",
        "a house",
    ]


def test_an_unknown_phrasing_is_an_error() -> None:
    with pytest.raises(ValueError, match="phrasing must be 0 to 2"):
        FOX.prompt(3)
