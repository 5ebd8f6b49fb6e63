"""benchmarks/study: what it concludes from scores, and from what pictures lose when parts of them are hidden."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from compared import PROMPTS, SCENES, in_order, judge_of, pictures
from examples import painted
from listed import ListedPairs
from PIL import Image
from torch import Tensor

import train
from benchmarks.study import __main__ as study
from benchmarks.study import comparing, learning
from benchmarks.study.__main__ import NETWORKS, STUDY_FILE, StudyConfig, check_trained, learn_all, main
from benchmarks.study.comparing import compare_runs, differences, mistakes
from benchmarks.study.learning import Captioned, LearnConfig, _data, _plan, caption, kept_result, learn
from benchmarks.study.looking import Look, _patches, _without, looks, summary, tokens_of
from data.store.pairs import Pair
from diffusion.mini.world import Scene
from evaluation.comparison import Column, Comparison
from model import Preprocessing
from tokenizer import PromptTokenizer
from training.config import mini_git
from training.health import TrainingError
from training.run_directory import RunStateError


@pytest.mark.parametrize(
    ("scene", "text"),
    [
        (Scene(subject="fox", background="beach", style="neon", light="night"), "a fox on a beach"),
        (Scene(subject="fox", background="beach", style="mosaic", count=2, colour="red", weather="rain"), "two red foxes on a beach"),
        (Scene(subject="owl", background="underwater", style="neon", relation="behind", other="igloo"), "an owl behind an igloo underwater"),
    ],
)
def test_a_caption_says_what_is_there_and_not_how_it_is_made(scene: Scene, text: str) -> None:
    assert caption(scene.slots()) == text


def pairs_of(*scenes: Scene) -> ListedPairs:
    return ListedPairs([Pair(scene.key, painted(scene.subject, ""), scene.prompt(2), {"slots": scene.slots()}) for scene in scenes])


def test_a_captioned_source_is_another_one_with_the_same_pictures() -> None:
    pairs = pairs_of(*SCENES[:2])
    captioned = Captioned(pairs)
    for place, text in enumerate(["a cat on a beach", "a dog on a beach"]):
        assert captioned[place].prompt == captioned.prompt(place) == text
        assert captioned[place].image.tobytes() == pairs[place].image.tobytes()
    assert len({captioned.fingerprint(), pairs.fingerprint(), Captioned(pairs_of(SCENES[2])).fingerprint()}) == 3


PLAIN = LearnConfig(network="hf-git", preset="mini-git", data="d", tokenizer="t", learning_rate=0.5, updates=40)


def test_a_run_is_the_presets_but_for_what_it_is_told() -> None:
    plan = _plan(dataclasses.replace(PLAIN, init="there", seed=3, evaluations=3, precision="fp32"))
    preset = mini_git()
    changed = {"data": "d", "network": "hf-git", "init": "there", "learning_rate": 0.5, "seed": 3, "precision": "fp32", "workers": 0}
    changed |= {"max_steps": 40, "warmup_steps": 4, "evaluate_every": 14, "save_every": 10**9}
    assert vars(plan) == {**vars(preset), **changed}
    assert _plan(dataclasses.replace(PLAIN, updates=5000)).warmup_steps == preset.warmup_steps


def test_it_sees_as_many_pairs_and_what_texts_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def data(plan: object) -> SimpleNamespace:
        return SimpleNamespace(training=pairs_of(*SCENES), validation=pairs_of(SCENES[0]))

    monkeypatch.setattr(learning, "TrainingData", data)
    whole = _data(_plan(PLAIN), PLAIN)
    assert sorted(whole.training.prompt(i) for i in range(4)) == sorted(scene.prompt(2) for scene in SCENES)
    some = dataclasses.replace(PLAIN, pairs=3, texts="captions")
    fewer = _data(_plan(some), some)
    assert len(fewer.training) == 3
    assert all(fewer.training.prompt(i).endswith(" on a beach") for i in range(3))
    assert fewer.validation.prompt(0) == "a cat on a beach"


def test_what_was_trained_with_other_settings_or_begun_with_other_weights_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "init").mkdir()
    weights = tmp_path / "init" / "model.safetensors"
    weights.write_bytes(b"some")
    config = dataclasses.replace(PLAIN, init=str(weights.parent))
    assert kept_result(config, tmp_path) is None
    content = {"config": dataclasses.asdict(config), "begun_with": hashlib.sha256(b"some").hexdigest()[:16]}
    (tmp_path / "result.json").write_text(json.dumps(content))
    assert kept_result(config, tmp_path) == learn(config, tmp_path) == content
    with pytest.raises(FileExistsError, match="was trained with other settings"):
        kept_result(dataclasses.replace(config, seed=1), tmp_path)
    weights.write_bytes(b"others")
    with pytest.raises(FileExistsError, match="was trained with other settings"):
        learn(config, tmp_path)


@pytest.mark.slow
def test_minutes_are_those_of_training_and_what_diverges_is_said(tmp_path: Path, small_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(seconds: float) -> None:
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    def fit(plan: Any, accelerator: Any, out: Path, data: Any, model: Any, tokenizer: Any, *, validate: Any) -> None:
        for step in (10, 20):
            work(0.3)
            validate(model, tokenizer, None, accelerator, None, step)
        raise TrainingError("ten updates in a row")

    def write_validation_pairs(*_: Any) -> dict[str, float]:
        work(0.6)
        return {"loss": 1.0}

    monkeypatch.setattr(train, "fit", fit)
    monkeypatch.setattr(train, "write_validation_pairs", write_validation_pairs)
    PromptTokenizer.train(PROMPTS, 300).save(tmp_path / "tokenizer.json")
    config = dataclasses.replace(PLAIN, data=str(small_dataset), tokenizer=str(tmp_path / "tokenizer.json"), updates=20, precision="fp32")
    result = learn(config, tmp_path / "run")
    assert [round(60 * point["minutes"], 1) for point in result["curve"]] == [0.3, 0.6]
    assert [(point["update"], point["pairs"]) for point in result["curve"]] == [(10, 160), (20, 320)]
    assert result["diverged"] == "ten updates in a row"
    with pytest.raises(RuntimeError, match="run: ten updates in a row"):
        check_trained({tmp_path / "run": kept_result(config, tmp_path / "run")})  # type: ignore[dict-item]
    (tmp_path / "run" / "result.json").rename(tmp_path / "run" / "left over")
    learn(config, tmp_path / "run")
    assert not (tmp_path / "run" / "left over").exists()


@pytest.mark.parametrize(
    ("word", "places"),
    [("fox", [1, 2]), ("a", [0]), ("red fox", [0, 1, 2]), ("beach", [5]), ("night", [7]), ("ox", []), ("foxes", []), ("on", [3]), ("a red", [0])],
)
def test_a_word_is_written_by_the_tokens_that_stand_in_it(word: str, places: list[int]) -> None:
    added = ["a red", " fo", "x", " on", " a", " beach", ",", " night"]
    assert tokens_of(word, "a red fox on a beach, night", added) == places


class OnePatch:
    """Looks at a patch in the last column alone: for a word's first letter at that of the second row, else at that of the first.

    It is as sure of any token as the patch in the first row is bright.
    """

    def __init__(self) -> None:
        self.config = SimpleNamespace(preprocessing=Preprocessing(image_size=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)), bos_token_id=0)

    def attention_maps(self, pixel_values: Tensor, input_ids: Tensor) -> Tensor:
        maps = torch.full((1, input_ids.shape[1], 4, 4), 0.01)
        for place, before in enumerate(input_ids[0].tolist()):
            maps[0, place, 1 if before == ord(" ") else 0, 3] = 0.85
        return maps

    def __call__(self, pixel_values: Tensor, input_ids: Tensor) -> Tensor:
        light = pixel_values[:, :, :2, 6:].mean((1, 2, 3))
        target = torch.nn.functional.one_hot(torch.roll(input_ids, -1, 1), 256).float()
        target[:, -1] = 0  # the last position's token is not among the inputs
        target[:, -1, ord("t")] = 1
        return target * light[:, None, None] * 10


class Letters:
    """A token for each character."""

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def added(self, ids: Sequence[int]) -> list[str]:
        return [chr(token) for token in ids]


def test_what_is_hidden_where_a_word_looks_costs_it() -> None:
    image = Image.new("RGB", (8, 8))
    image.paste((255, 255, 255), (6, 0, 8, 2))
    slots = {"subject": "cat", "style": "night"}
    some = in_order([Pair("0", image, "a cat, night", {"slots": slots})])
    found = list(looks(OnePatch(), Letters(), some))  # type: ignore[arg-type]
    assert [(look.slot, look.word) for look in found] == [("subject", "cat"), ("style", "night")]
    assert found[0].attention[:2, 3] == pytest.approx([(2 * 0.85 + 0.01) / 3, (0.85 + 2 * 0.01) / 3])
    assert found[1].attention[:2, 3] == pytest.approx([(4 * 0.85 + 0.01) / 5, (0.85 + 4 * 0.01) / 5])
    for look in found:
        # of one patch of 16 that is white: brightness 1 before, 1/16 after; log-probabilities of one logit against 255 zeros, summed over the letters
        before, after = (-np.log1p(255 * np.exp(-10 * light)) for light in (1.0, 1 / 16))
        assert look.lost["most"] == pytest.approx(len(look.word) * (before - after), rel=1e-4)
        assert look.lost["least"] == pytest.approx(0, abs=1e-4)


def test_a_quarter_of_the_picture_is_hidden() -> None:
    masks = _patches(torch.arange(64).view(8, 8).float(), "one")
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"most": 16, "random": 16, "least": 16}
    assert masks["most"][6:].all()
    assert masks["least"][:2].all()
    assert not torch.equal(masks["random"], masks["most"])
    assert torch.equal(masks["random"], _patches(torch.arange(64).view(8, 8).float(), "one")["random"])
    assert not torch.equal(masks["random"], _patches(torch.arange(64).view(8, 8).float(), "other")["random"])


def test_what_is_hidden_has_the_pictures_mean_colour() -> None:
    pixels = torch.zeros(3, 8, 8)
    pixels[0], pixels[2, :4] = 200, 100
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[3, 0] = True
    hidden = _without(pixels, mask)
    assert hidden[:, 6:, :2].flatten(1).unique(dim=1).flatten().tolist() == [200, 0, 50]
    hidden[:, 6:, :2] = pixels[:, 6:, :2]
    assert torch.equal(hidden, pixels)


def test_losses_are_summed_up_by_slot_with_intervals_over_pictures() -> None:
    attention = np.ones((2, 2), dtype=np.float32) / 4
    found = [Look(place, "style", "neon", attention, {"most": 2.0, "random": 1.0, "least": 0.0}) for place in range(30)]
    found += [Look(0, "subject", "cat", attention, {"most": 0.0, "random": 4.0, "least": 0.0})]
    rows = summary(found, [str(place) for place in range(30)])
    assert set(rows) == {"style", "subject", "all"}
    assert rows["style"]["most less random"]["mean"] == 1
    assert rows["style"]["most less random"]["established"]
    assert rows["all"]["most"]["mean"] == pytest.approx(60 / 31)
    assert not rows["subject"]["most less random"]["established"]  # of one picture
    twice = summary(found, ["a", "b"] * 15)
    assert (twice["style"]["most"]["count"], twice["style"]["most"]["units"]) == (30, 2)


def test_a_difference_is_established_where_pictures_and_seeds_agree() -> None:
    some = pictures(40)
    judge = judge_of(some)
    right, wrong = ([PROMPTS[number % 4] for number in range(40)], ["a train in outer space"] * 40)
    texts = {"right": right, "wrong": wrong, "half": right[:20] + wrong[20:], "one": right[:1] + wrong[1:], "four": right[:4] + wrong[4:]}
    judged = {name: judge(some_texts) for name, some_texts in texts.items()}

    def found(ones: Sequence[str], others: Sequence[str], groups: Sequence[str] = some.groups) -> dict[str, Any]:
        return differences([judged[name] for name in ones], [judged[name] for name in others], groups)["exact_match"]

    better = found(["right", "right"], ["wrong", "wrong"])
    assert (better["mean"], better["seeds"], better["established"]) == (1.0, [1.0, 1.0], True)
    worse = found(["wrong", "wrong"], ["right", "right"])
    assert (worse["mean"], worse["established"]) == (-1.0, True)
    seeds_apart = found(["right", "half"], ["wrong", "wrong"])  # Student's t is 3 with 2 degrees of freedom: p is 0.095
    assert (seeds_apart["mean"], seeds_apart["seeds"]) == (0.75, [1.0, 0.5])
    assert seeds_apart["low"] > 0
    assert not seeds_apart["established"]
    assert not found(["one", "one"], ["wrong", "wrong"])["established"]  # one picture of 40
    assert not found(["four", "four"], ["wrong", "wrong"])["established"]  # which a bootstrap would take for proof
    assert found(["half"], ["wrong"])["established"]  # of one seed by its pictures
    assert not found(["half"], ["half"])["established"]
    assert found(["right"], ["wrong"], [str(number // 10) for number in range(40)])["units"] == 4


def test_slots_count_over_the_pictures_that_have_them() -> None:
    scenes = [*SCENES, dataclasses.replace(SCENES[0], relation="above", other="dog")]
    some = in_order([Pair(str(number), painted("cat", ""), scene.prompt(), {"slots": scene.slots()}) for number, scene in enumerate(scenes)])
    judge = judge_of(some)
    one, other = judge([scene.prompt() for scene in scenes]), judge(["a train"] * 5)
    found = differences([one, one], [other, other], some.groups)
    assert (found["slot other"]["count"], found["slot other"]["seeds"]) == (1, [1.0, 1.0])
    assert found["slot subject"]["count"] == 5
    assert mistakes(some.slots, [["a train"] * 5])["other"] == {"asked": 1, "right": 0, "left_out": 1, "another": 0, "confusions": []}


@pytest.mark.parametrize("lost", ["captioner", "round", "painter"])
def test_what_fails_in_a_comparison_ends_the_study(lost: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = [Column("told", failed="no weights")] if lost == "captioner" else []
    trip = SimpleNamespace(failed={"told": "round 2: no weights"}) if lost == "round" else None
    found = Comparison(columns, {}, (), trip, "no weights" if lost == "painter" else "")  # type: ignore[arg-type]
    monkeypatch.setattr(comparing, "measure", lambda *_, **__: found)
    with pytest.raises(RuntimeError, match="no weights"):
        compare_runs({}, pictures(), training=None, title="", report=tmp_path, json=tmp_path / "x.json")


def test_mistakes_are_counted_over_the_seeds_by_what_they_are() -> None:
    truths = [scene.slots() for scene in SCENES[:3]]  # cat, dog, owl
    texts = [
        ["a neon sign of a dog on a beach", "a neon sign of a dog on a beach", "on a beach"],
        ["a neon sign of a dog on a beach", "a neon sign of a fox", "a neon sign of an owl"],
    ]
    found = mistakes(truths, texts)
    assert found["subject"] == {"asked": 6, "right": 2, "left_out": 1, "another": 3, "confusions": [["cat", "dog", 2], ["dog", "fox", 1]]}
    assert found["background"]["left_out"] == 2
    assert "other" not in found


@pytest.mark.slow
def test_updates_are_timed_by_the_core(tmp_path: Path, small_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "_ROUNDS", 3)
    monkeypatch.setattr(learning, "_AT_ONCE", 2)
    clock = itertools.count()
    monkeypatch.setattr(time, "process_time", lambda: float(next(clock)) ** 2)  # 1, 5, 9, 13 ... seconds between two looks
    PromptTokenizer.train(PROMPTS, 300).save(tmp_path / "tokenizer.json")
    one = dataclasses.replace(PLAIN, data=str(small_dataset), tokenizer=str(tmp_path / "tokenizer.json"), precision="fp32")
    found = learning.seconds_per_update({"one": one, "other": dataclasses.replace(one, network="reprompt")}, tmp_path)
    assert found == {"one": 17 / 2, "other": 21 / 2}  # the first round, 1 and 5, does not count


class Inline:
    """A pool of processes that is none."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, function: Any, *arguments: Any) -> Future:
        AcceleratorState._reset_state(reset_partial_state=True)
        done: Future = Future()
        done.set_result(function(*arguments))
        return done


def test_two_train_at_a_time_and_after_an_error_none_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    at_work, most, lock = 0, 0, threading.Lock()

    def learning_for_a_while(config: LearnConfig, out: Path) -> dict[str, Any]:
        nonlocal at_work, most
        with lock:
            begun.append(out.name)
            at_work, most = at_work + 1, max(most, at_work + 1)
        time.sleep(0.2 if out.name == "0" else 0.05)
        with lock:
            at_work -= 1
        if config.seed:
            raise RuntimeError("no memory")
        return {"of": out.name}

    monkeypatch.setattr(study, "ProcessPoolExecutor", lambda *_, **__: ThreadPoolExecutor(8))
    monkeypatch.setattr(study, "learn", learning_for_a_while)
    monkeypatch.setattr(study, "kept_result", lambda *_: None)
    assert list(learn_all({Path(str(i)): PLAIN for i in range(5)}).items()) == [(Path(str(i)), {"of": str(i)}) for i in range(5)]
    assert most == 2
    begun.clear()
    with pytest.raises(RuntimeError, match="no memory"):
        learn_all({Path(str(i)): dataclasses.replace(PLAIN, seed=int(i == 1)) for i in range(5)})
    assert sorted(begun) == ["0", "1"]


@pytest.mark.slow
def test_the_study_makes_its_page_and_trains_nothing_twice(tmp_path: Path, small_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "ProcessPoolExecutor", Inline)
    monkeypatch.setattr(study, "seconds_per_update", lambda configs, scratch: dict.fromkeys(configs, 0.5))
    monkeypatch.setattr(study, "LOOKED_AT", 20)
    monkeypatch.setattr(study, "TUNING_UPDATES", 3)
    paths: dict[str, Path] = {"data": small_dataset, "runs": tmp_path / "runs", "out": tmp_path / "docs"}
    config = StudyConfig(**paths, minutes=0.05, rates=(2e-3,), rate_minutes=0.02, seeds=1, precision="fp32", drift_pictures=3, rounds=2)
    main(config)
    page = (tmp_path / "docs" / "STUDY.md").read_text()
    content = json.loads((tmp_path / "docs" / "study" / STUDY_FILE).read_text())
    for name in NETWORKS:
        assert f"| `{name}` | " in page
        run = content["networks"][name][0]
        assert [point["update"] for point in run["curve"]][-1] == run["config"]["updates"] == 6
        assert f"| {run['parameters'] / 1e6:.2f} |" in page
        assert content["looking"]["image_tokens"][name] in (36, 37)
    blip, git = (content["networks"][name][0] for name in ("hf-blip", "hf-git"))
    assert blip["encoder_parameters"] == pytest.approx(git["encoder_parameters"], rel=0.03)
    for picture in ("learning", "slots", "drift", "attention"):
        assert (tmp_path / "docs" / "study" / f"{picture}.png").stat().st_size > 5000
    trained = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("result.json")}
    assert len(trained) == 14
    main(config)
    assert {path: path.stat().st_mtime_ns for path in trained} == trained
    with pytest.raises(RunStateError, match="computed in: float32 there, bfloat16 now"):
        main(dataclasses.replace(config, precision="bf16"))
