import json
import time
import weakref
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from examples import painted
from listed import ListedPairs
from PIL import Image

from data.errors import PairError
from data.sources.chosen import spread
from data.sources.held_out import HeldOutPairs
from data.store.pairs import Pair
from diffusion.mini.world import Scene
from evaluation import metrics
from evaluation.report import as_json, markdown_table, score, timed_captions, write_report

SCENES = [Scene(subject=name, background="beach", style="neon") for name in ("cat", "dog", "owl", "fox")]
PROMPTS = [scene.prompt() for scene in SCENES]
SLOTS = [scene.slots() for scene in SCENES]


def held_out(slots: list[dict[str, str]] = SLOTS, side: int = 64) -> HeldOutPairs:
    pairs = [
        Pair(key, painted(scene.subject, "", side), scene.prompt(), {"slots": slot}) for key, scene, slot in zip("abcd", SCENES, slots, strict=True)
    ]
    return in_order(ListedPairs(pairs))


def in_order(source: ListedPairs) -> HeldOutPairs:
    """All pairs as they come."""
    pairs = source.pairs
    return HeldOutPairs(source, range(len(pairs)), [pair.key for pair in pairs], [pair.prompt for pair in pairs], [pair.slots for pair in pairs], 0)


def similarity(prompts: list[str], predictions: list[str]) -> np.ndarray:
    return np.array([float(a == b) for a, b in zip(prompts, predictions, strict=True)])


def results() -> list:
    wrong = [PROMPTS[0], *[scene.prompt().replace(scene.subject, "pig") for scene in SCENES[1:]]]
    return [
        score("right", held_out(), PROMPTS, 12.3, similarity=similarity),
        score("wrong", held_out(), wrong, 4.5, similarity=similarity),
    ]


def test_scores_are_what_the_predictions_deserve() -> None:
    right, wrong = results()
    assert right.metrics["exact_match"].mean == right.metrics["similarity"].mean == right.slots["subject"].mean == 1.0
    assert wrong.metrics["exact_match"].mean == wrong.slots["subject"].mean == 0.25
    assert wrong.slots["style"].mean == wrong.slots["background"].mean == 1.0
    assert "colour" not in right.slots  # nobody asked for one and nobody said one


def test_table_has_a_column_for_each_captioner() -> None:
    table = markdown_table(results())
    assert "| metric | right | wrong |" in table
    assert "| exact_match | 1.000 [1.000, 1.000] | 0.250 [" in table
    assert "| images/s | 12.3 | 4.5 |" in table
    assert table.count("|---|---|---|") == 2


def test_pairs_without_slots_have_no_slot_table() -> None:
    plain = [score("x", held_out([{}] * 4), PROMPTS, 1.0, similarity=similarity)]
    assert "slot" not in markdown_table(plain)
    assert as_json(plain, pairs=4)["results"][0]["slots"] == {}


def test_report_files(tmp_path: Path) -> None:
    write_report(tmp_path / "r", results(), held_out(), heading="# A heading")
    assert (tmp_path / "r" / "report.md").read_text().startswith("# A heading\n\n| metric")
    lines = [json.loads(line) for line in (tmp_path / "r" / "predictions.jsonl").read_text().splitlines()]
    assert lines[0] == {"key": "a", "prompt": PROMPTS[0], "right": PROMPTS[0], "wrong": PROMPTS[0]}
    with Image.open(tmp_path / "r" / "samples.png") as sheet:
        assert sheet.width > 1000
    assert json.loads(json.dumps(as_json(results(), pairs=4)))["pairs"] == 4


def test_timing_counts_every_image_once_and_reading_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now, seen = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    class Slow(ListedPairs):
        def image(self, index: int) -> Image.Image:
            now[0] += 100.0  # of the disk
            return super().image(index)

    def caption(images: list[Image.Image]) -> list[str]:
        now[0] += 0.5 * len(images)
        return [str(image.size) for image in images]

    pairs = in_order(Slow([Pair(str(i), Image.new("RGB", (i + 1, 5)), "x", {}) for i in range(7)]))
    texts, rate = timed_captions(caption, pairs, batch_size=3, progress=seen.append)
    assert texts == [f"({i + 1}, 5)" for i in range(7)]
    assert seen == [3, 3, 1]
    assert rate == 2.0


def test_every_metric_knows_prompt_and_prediction_apart() -> None:
    shorter = [" ".join(prompt.split()[:-1]) for prompt in PROMPTS]
    found = score("x", held_out(), shorter, 1.0, similarity=similarity).metrics
    assert found["bleu_4"].mean == metrics.bleu_4(PROMPTS, shorter)[0] != metrics.bleu_4(shorter, PROMPTS)[0]
    assert found["cider_d"].mean == metrics.cider_d(PROMPTS, shorter).mean() != metrics.cider_d(shorter, PROMPTS).mean()


def test_held_out_pairs_read_pictures_when_they_are_asked_for() -> None:
    class Counting(ListedPairs):
        held: ClassVar[list[weakref.ref[Image.Image]]] = []

        def image(self, index: int) -> Image.Image:
            image = Image.new("RGB", (3000, 2100), (index, 0, 0))
            self.held.append(weakref.ref(image))
            return image

        def __getitem__(self, index: int) -> Pair:
            if index == 2:
                raise PairError("no")
            return Pair(str(index), self.image(index), "" if index == 4 else f"prompt {index}", {})

        def __len__(self) -> int:
            return 8

        def key(self, index: int) -> str:
            return str(index)

    pairs = HeldOutPairs.of(Counting([]), 5)
    order = [str(number) for number in spread(Counting([]))]
    assert pairs.keys == [key for key in order if key not in "24"][:5]
    assert pairs.unread == sum(key in "24" for key in order[: order.index(pairs.keys[-1])])
    assert HeldOutPairs.of(Counting([]), 100).unread == 2
    assert not any(image() for image in Counting.held)
    shown = pairs.images(2, 2)
    assert [(image.size, image.getpixel((9, 9))) for image in shown] == [((1500, 1050), (int(key), 0, 0)) for key in pairs.keys[2:4]]
    assert held_out(side=1500).images(0, 1)[0].size == (1500, 1500)
