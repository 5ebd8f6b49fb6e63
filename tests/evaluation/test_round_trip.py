"""A painter that paints a prompt as a colour, so that what comes back can be worked out."""

import dataclasses
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from compared import PROMPTS, Told, judge_of, pictures
from PIL import Image

from evaluation.captioners import About, Caption
from evaluation.processes import Processes
from evaluation.round_trip import Painter, round_trip

WORDS = ["cat", "dog", "owl", "fox"]
APART = (2 * 0.1 + 8 * 0.01) / (1 + 9 * 0.01)  # the cosine of two words' pictures as `see` has them


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
    assert [one.mean for one in drift.image] == pytest.approx([1, APART, APART])
    assert drift.sentence[0].mean == pytest.approx(1.0)
    shifted = [PROMPTS[(i + 1) % 4] for i in range(20)]
    twice = [PROMPTS[(i + 2) % 4] for i in range(20)]
    assert drift.sentence[1].mean == pytest.approx(judge.sentence(shifted).mean())
    assert drift.sentence[2].mean == pytest.approx(judge.sentence(twice).mean())


def test_pictures_of_every_round_are_compared_with_the_originals() -> None:
    class There(Reading):
        """And back again."""

        def caption(self, images: Sequence[Image.Image]) -> list[Caption]:
            return [Caption(PROMPTS[(image.getpixel((0, 0))[0] + 2) % 4]) for image in images]

    some = pictures(8)
    painter = Painter(4, paint, see, name="", encoder="")
    found = round_trip(painter, {"it": PROMPTS * 2}, {"it": There}, some, judge_of(some), batch_size=4)
    assert found is not None
    assert [one.mean for one in found.drifts["it"].image] == pytest.approx([1, APART, 1, APART])


def test_the_floor_is_painted_from_prompts_of_other_groups() -> None:
    asked: list[list[str]] = []

    def render(prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        asked.append(list(prompts))
        return paint(prompts, seeds)

    some = pictures(8)
    for number, prompts in enumerate(some.references):
        prompts[:] = [PROMPTS[number // 2]]  # type: ignore[index]
    some = dataclasses.replace(some, groups=[str(number // 2) for number in range(8)])

    def see_pairs(images: Sequence[Image.Image]) -> np.ndarray:
        return see([image if image.size == (8, 8) else Image.new("RGB", (9, 9), (image.getpixel((0, 0))[0] // 2, 0, 0)) for image in images])

    round_trip(Painter(1, render, see_pairs, name="", encoder=""), {}, {}, some, judge_of(some), batch_size=4)
    true, floor = asked
    assert true == [prompts[0] for prompts in some.references]
    assert not any(one == other for one, other in zip(true, floor, strict=True))


def test_processes_share_the_painting_and_the_first_has_the_outcome_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.round_trip._BATCH", 3)
    some, board, barrier = pictures(8), [None, None], threading.Barrier(2)
    painted: dict[int, list[int]] = {0: [], 1: []}
    found: list[object] = [None, None]

    class OfThreads(Processes):
        def gather(self, thing: object) -> list:  # type: ignore[override]
            board[self.index] = thing  # type: ignore[call-overload]
            barrier.wait(20)
            every = list(board)
            barrier.wait(20)
            return every

    def work(index: int) -> None:
        def render(prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
            painted[index].append(len(prompts))
            return paint(prompts, seeds)

        texts = {"it": PROMPTS[1:] * 2 + PROMPTS[:2]}
        painter = Painter(1, render, see, name="", encoder="")
        found[index] = round_trip(painter, texts, {}, some, judge_of(some), batch_size=4, processes=OfThreads(index, 2))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert painted == {0: [3, 2] * 3, 1: [3] * 3}
    alone = Painter(1, paint, see, name="", encoder="")
    assert found == [round_trip(alone, {"it": PROMPTS[1:] * 2 + PROMPTS[:2]}, {}, some, judge_of(some), batch_size=4), None]


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


def test_where_true_prompts_paint_nothing_like_the_pictures_there_is_no_recovery() -> None:
    black = dataclasses.replace(PAINTER, render=lambda prompts, seeds: [Image.new("RGB", (8, 8))] * len(prompts))
    with pytest.raises(ValueError, match="there is no recovery to measure"):
        trip(black, {"right": PROMPTS * 5})
