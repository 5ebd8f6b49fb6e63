"""A painter that paints a prompt as a colour, so that what comes back can be worked out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from compared import PROMPTS, Told, judge_of, pictures
from PIL import Image

from evaluation.captioners import About, Caption
from evaluation.round_trip import Painter, round_trip

WORDS = ["cat", "dog", "owl", "fox"]


def paint(prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
    """Red says which word the prompt has (as the first pixel of the pictures does), blue which seed."""
    place = [next((i for i, word in enumerate(WORDS) if word in prompt), 9) for prompt in prompts]
    return [Image.new("RGB", (8, 8), (number, 0, seed % 3)) for number, seed in zip(place, seeds, strict=True)]


def see(images: Sequence[Image.Image]) -> np.ndarray:
    """One direction for each word; the originals have it by their first pixel."""
    vectors = np.full((len(images), 10), 0.1, dtype=np.float32)
    for row, image in enumerate(images):
        vectors[row, image.getpixel((0, 0))[0] % 4 if image.size != (8, 8) else image.getpixel((0, 0))[0]] = 1
    return vectors


PAINTER = Painter(1, paint, see, name="colours", encoder="first pixels")


def trip(painter: Painter, texts: dict[str, list[str]], **how: object) -> object:
    some = pictures(20)
    captioners = {name: (lambda text=text: Told(text)) for name, text in texts.items()}
    return round_trip(painter, texts, captioners, some, judge_of(some), batch_size=4, **how)  # type: ignore[arg-type]


def test_recovery_is_nothing_at_the_floor_and_one_at_the_ceiling() -> None:
    others = PROMPTS[1:] + PROMPTS[:1]
    half = [text for pair in zip(PROMPTS * 5, others * 5, strict=True) for text in pair][:40]
    mixed = [half[2 * i + i % 2] for i in range(20)]
    found = trip(PAINTER, {"right": PROMPTS * 5, "wrong": others * 5, "half": mixed})
    assert found.ceiling.mean == pytest.approx(1.0)  # type: ignore[attr-defined]
    recovery = found.recovery  # type: ignore[attr-defined]
    assert recovery["right"].mean == pytest.approx(1.0)
    assert recovery["wrong"].mean == pytest.approx(0.0, abs=1e-6)
    assert 0.3 < recovery["half"].mean < 0.7
    assert recovery["half"].low < recovery["half"].mean < recovery["half"].high
    assert found.floor.mean < 0.5  # type: ignore[attr-defined]
    assert (found.painter, found.encoder) == ("colours", "first pixels")  # type: ignore[attr-defined]


def test_seeds_differ_by_picture_and_round_and_not_by_captioner() -> None:
    asked: list[tuple[str, list[int]]] = []

    def render(prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        asked.append((prompts[0], list(seeds)))
        return paint(prompts, seeds)

    trip(Painter(2, render, see, name="", encoder=""), {"one": PROMPTS * 5, "other": PROMPTS * 5})
    ceiling, floor, one, one_again, other, other_again = [seeds for _, seeds in asked]
    assert ceiling == floor == one == other
    assert one_again == other_again
    assert not set(one) & set(one_again)
    assert len(set(one)) == 20


class Reading:
    """Reads the painted picture and says the next word: it drifts by one each round."""

    about = About(fingerprint="reading")

    def caption(self, images: Sequence[Image.Image]) -> list[Caption]:
        return [Caption(PROMPTS[(image.getpixel((0, 0))[0] + 1) % 4]) for image in images]


def test_what_drifts_is_seen_round_by_round() -> None:
    some = pictures(20)
    judge = judge_of(some)
    found = round_trip(Painter(3, paint, see, name="", encoder=""), {"it": PROMPTS * 5}, {"it": Reading}, some, judge, batch_size=4)
    assert found is not None
    drift = found.drifts["it"]
    assert [round(one.mean, 3) for one in drift.image] == [
        1.0,
        pytest.approx(drift.image[1].mean, abs=1e-3),
        pytest.approx(drift.image[1].mean, abs=1e-3),
    ]
    assert drift.sentence[0].mean == pytest.approx(1.0)
    shifted = [PROMPTS[(i + 1) % 4] for i in range(20)]
    twice = [PROMPTS[(i + 2) % 4] for i in range(20)]
    assert drift.sentence[1].mean == pytest.approx(judge.sentence(shifted).mean())
    assert drift.sentence[2].mean == pytest.approx(judge.sentence(twice).mean())


def test_a_captioner_that_fails_in_a_later_round_keeps_its_first(tmp_path: Path) -> None:
    class Fails(Reading):
        def caption(self, images: Sequence[Image.Image]) -> list[Caption]:
            raise RuntimeError("no more")

    some = pictures(8)
    texts = {"it": PROMPTS * 2, "other": PROMPTS * 2}
    painter = Painter(2, paint, see, name="", encoder="")
    found = round_trip(painter, texts, {"it": Fails, "other": Reading}, some, judge_of(some), batch_size=4, keep=tmp_path)
    assert found is not None
    assert found.failed == {"it": "round 2: no more"}
    assert len(found.drifts["it"].image) == 1
    assert len(found.drifts["other"].image) == 2
    assert found.recovery["it"].mean == pytest.approx(1.0)
