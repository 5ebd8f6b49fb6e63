import json
from pathlib import Path

import numpy as np
from examples import painted
from PIL import Image

from diffusion.mini.world import Scene
from evaluation.report import as_json, markdown_table, score, timed_captions, write_report

SCENES = [Scene(subject=name, background="beach", style="neon") for name in ("cat", "dog", "owl", "fox")]
PROMPTS = [scene.prompt() for scene in SCENES]
SLOTS = [scene.slots() for scene in SCENES]


def similarity(prompts: list[str], predictions: list[str]) -> np.ndarray:
    return np.array([float(a == b) for a, b in zip(prompts, predictions, strict=True)])


def results() -> list:
    wrong = [PROMPTS[0], *[scene.prompt().replace(scene.subject, "pig") for scene in SCENES[1:]]]
    return [
        score("right", PROMPTS, SLOTS, PROMPTS, 12.3, similarity=similarity),
        score("wrong", PROMPTS, SLOTS, wrong, 4.5, similarity=similarity),
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
    plain = [score("x", PROMPTS, [{}] * 4, PROMPTS, 1.0, similarity=similarity)]
    assert "slot" not in markdown_table(plain)
    assert as_json(plain, pairs=4)["results"][0]["slots"] == {}


def test_report_files(tmp_path: Path) -> None:
    images = [painted(scene.subject, "") for scene in SCENES]
    write_report(tmp_path / "r", results(), list("abcd"), PROMPTS, images, heading="# A heading")
    assert (tmp_path / "r" / "report.md").read_text().startswith("# A heading\n\n| metric")
    lines = [json.loads(line) for line in (tmp_path / "r" / "predictions.jsonl").read_text().splitlines()]
    assert lines[0] == {"key": "a", "prompt": PROMPTS[0], "right": PROMPTS[0], "wrong": PROMPTS[0]}
    with Image.open(tmp_path / "r" / "samples.png") as sheet:
        assert sheet.width > 1000
    assert json.loads(json.dumps(as_json(results(), pairs=4)))["pairs"] == 4


def test_timing_counts_every_image_once() -> None:
    seen = []
    texts, rate = timed_captions(lambda images: ["x"] * len(images), [painted("cat", "")] * 7, batch_size=3, progress=seen.append)
    assert texts == ["x"] * 7
    assert seen == [3, 3, 1]
    assert rate > 0
