import dataclasses
import json
import random
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from core.device import compute_precision
from data.errors import ShardError
from data.files import read_json
from data.groups.nearness import Nearness
from data.groups.words import jaccard
from data.splits import SPLITS, words_of
from data.store.directory import DATASET_FILE, finished_shards, stats_path
from data.store.pairs import PairDataset
from data.store.writer import ShardWriter
from synthesis import run
from synthesis.config import GenerateConfig
from synthesis.run import begin, count_made, join, num_pairs, open_pipeline, own_share, pipeline_precision, render

CPU = torch.device("cpu")


@pytest.fixture
def config(tmp_path: Path, tiny_pipeline: Path) -> GenerateConfig:
    things = ("cat", "dog", "owl", "fox", "ship", "tree", "robot", "castle")
    prompts = [f"{['red', 'blue', 'green', 'old', 'tiny'][i % 5]} {things[i % 8]} {i}" for i in range(40)]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts))
    return GenerateConfig(
        out=tmp_path / "out", prompts=str(tmp_path / "prompts.txt"), model=str(tiny_pipeline), steps=(1,), guidance=(1.0,), shard_size=3,
        nearness=Nearness(sentence_model="none"),
    )  # fmt: skip


def test_processes_share_the_plan_however_late_each_looks(config: GenerateConfig) -> None:
    """The second process looks when the first has made shards already; a stride of what each finds missing would leave some to nobody."""
    first = begin(config, CPU)
    mine = own_share(first, 0, 2)
    render(config, first.pipeline, mine[:4], done=0)
    second = join(config, CPU)
    assert num_pairs(second.missing) < num_pairs(first.missing)
    render(config, second.pipeline, own_share(second, 1, 2), done=0)
    assert count_made(config, first.shards).shards_done < len(first.shards)  # the first is not done yet, and the count says so
    render(config, first.pipeline, mine, done=0)
    made = count_made(config, first.shards)
    assert made.shards_done == made.shards == len(first.shards)
    assert sum(made.counts.values()) == 40
    for processes in (1, 2, 3, 7):
        shares = [shard for process in range(processes) for shard in own_share(first, process, processes)]
        assert sorted((shard.split, shard.number) for shard in shares) == sorted((shard.split, shard.number) for shard in first.missing)


def test_what_is_counted_is_what_is_there(config: GenerateConfig) -> None:
    work = begin(config, CPU)
    render(config, work.pipeline, work.missing, done=0)
    stem = finished_shards(config.out / "train")[0].with_suffix("")
    lost = json.loads(stats_path(stem).read_text())["successes"]
    stats_path(stem).unlink()
    made = count_made(config, work.shards)
    assert (made.shards_done, made.shards) == (len(work.shards) - 1, len(work.shards))
    assert sum(made.counts.values()) == 40 - lost
    with pytest.raises(ShardError, match=f"has {made.shards_done} of {made.shards} shards"):
        PairDataset(config.out, "train")


def test_a_shard_that_another_run_holds_is_left_to_it(config: GenerateConfig) -> None:
    work = begin(config, CPU)
    shard = work.shards[0]
    writer = ShardWriter(config.out / shard.split, shard.number)
    with pytest.raises(KeyboardInterrupt), writer:
        render(config, work.pipeline, work.missing, done=0)
        assert count_made(config, work.shards).shards_done == len(work.shards) - 1
        raise KeyboardInterrupt
    render(config, work.pipeline, work.missing, done=0)
    assert count_made(config, work.shards).shards_done == len(work.shards)


@pytest.mark.parametrize("long_prompts", ["keep", "cut", "skip"])
def test_prompts_longer_than_the_text_encoder_reads(config: GenerateConfig, long_prompts: str) -> None:
    long = "a red fox in a dark forest at night, " * 20
    Path(config.prompts or "").write_text(f"a cat\n{long}one end\n{long}another end\nan owl\n")
    config = dataclasses.replace(config, long_prompts=long_prompts)  # type: ignore[arg-type]
    work = begin(config, CPU)
    render(config, work.pipeline, work.missing, done=0)
    rows = [row for split in SPLITS for tar in finished_shards(config.out / split) for row in pq.read_table(tar.with_suffix(".parquet")).to_pylist()]
    limit = read_json(config.out / DATASET_FILE)["prompt_limit"]
    assert all(row["prompt_tokens"] > 0 for row in rows)
    if long_prompts == "skip":
        assert sorted(row["prompt"] for row in rows) == ["a cat", "an owl"]
        assert work.prompts.kinds == {"longer than the text encoder reads": 2}
        return
    assert len(rows) == 4
    longer = [row for row in rows if row["prompt"] not in ("a cat", "an owl")]
    if long_prompts == "keep":
        assert {row["truncated"] for row in longer} == {True}
        assert all(row["prompt_tokens"] > limit for row in longer)
        assert count_made(config, work.shards).truncated == 2
    else:  # the same picture has the same prompt
        assert len({row["prompt"] for row in longer}) == 1
        assert all(row["original_prompt"].startswith(row["prompt"]) and row["prompt_tokens"] <= limit for row in longer)
        assert count_made(config, work.shards).truncated == 0
    assert [row["truncated"] for row in rows if row["prompt"] == "a cat"] == [False]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"dtype": "float32"}, "dtype"), ({"images_per_prompt": 2}, "images_per_prompt"), ({"long_prompts": "keep"}, "long_prompts"),
        ({"format": "webp"}, "format"), ({"seed": 9}, "seed"), ({"negative_prompt": "x"}, "negative_prompt"), ({"scheduler": "ddim"}, "scheduler"),
    ],
)  # fmt: skip
def test_every_setting_is_compared_when_going_on(config: GenerateConfig, change: dict, name: str) -> None:
    work = begin(config, CPU)
    render(config, work.pipeline, work.missing[:1], done=0)
    with pytest.raises(ShardError, match=f"other settings .*{name}: "):
        begin(dataclasses.replace(config, **change), CPU)


def test_before_anything_is_made_other_settings_begin_anew(config: GenerateConfig) -> None:
    work = begin(config, CPU)
    changed = dataclasses.replace(config, negative_prompt="x", seed=9)
    writer = ShardWriter(config.out / work.missing[0].split, work.missing[0].number)
    writer.__enter__()
    with pytest.raises(ShardError, match="other settings"):
        begin(changed, CPU)  # somebody is at work by the old ones
    writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    begin(changed, CPU)
    assert read_json(config.out / DATASET_FILE)["settings"]["negative_prompt"] == "x"


def test_what_made_the_data_is_written_down(config: GenerateConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "model_revision", lambda model: "0123abcd")
    work = begin(config, CPU)
    render(config, work.pipeline, work.missing[:1], done=0)
    about = read_json(config.out / DATASET_FILE)
    assert about["revision"] == "0123abcd"
    assert about["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert {"diffusers", "transformers"} <= about["versions"].keys()
    assert about["device"] == "cpu"
    assert about["shards"] == {split: sum(shard.split == split for shard in work.shards) for split in SPLITS}
    split = work.missing[0].split
    assert PairDataset(config.out, split, partial=True)[0].metadata["revision"] == "0123abcd"


def test_the_progress_line_says_what_is_left_of_the_whole_job(config: GenerateConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds an image, and ten minutes of training after them."""
    lines, now = list[str](), [0.0]

    class Bar(run.tqdm):
        def set_postfix_str(self, text: str = "", refresh: bool = True) -> None:
            lines.append(text)

    monkeypatch.setattr(run, "tqdm", Bar)
    monkeypatch.setattr(run.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(run, "_make", lambda config, pipeline, batch, *_: now.__setitem__(0, now[0] + 2.0 * len(batch)))
    config = dataclasses.replace(config, seconds_after=600.0)
    monkeypatch.setattr("sys.argv", ["generate_data.py", "--out", "x", "--seconds-after=600"])
    work = begin(config, CPU)
    render(config, work.pipeline, work.missing, done=0)
    assert lines[0] == "about 11 min left, training included"  # 37 images and 600 seconds
    assert lines[-1] == "about 10 min left, training included"
    assert read_json(config.out / DATASET_FILE)["arguments"] == ["--out", "x"]  # what decides the data, to go on with
    lines.clear()
    render(dataclasses.replace(config, seconds_after=0.0, out=config.out / "alone"), work.pipeline, work.missing[:1], done=0)
    assert lines == []


def test_the_precision_of_a_pipeline_is_said_with_its_reason(config: GenerateConfig) -> None:
    pipeline = open_pipeline(config, CPU)
    chosen = compute_precision(CPU)
    assert pipeline.dtype == chosen.dtype
    assert pipeline_precision(config, pipeline, CPU) == chosen
    single = dataclasses.replace(config, dtype="float32")
    assert str(pipeline_precision(single, open_pipeline(single, CPU), CPU)) == "float32 (as asked for)"


def test_near_prompts_are_in_one_split(config: GenerateConfig) -> None:
    """By all pairs of what was made, and not by the index that grouped them."""
    draw, lines = random.Random(2), []
    for _ in range(60):
        own = [f"word{number}" for number in draw.sample(range(300), 9)]
        lines += [" ".join(own), ", ".join([*reversed(own), "extra"])]
    Path(config.prompts or "").write_text("\n".join(lines))
    work = begin(dataclasses.replace(config, shard_size=50, long_prompts="keep"), CPU)
    split_of = {pair.record.prompt: shard.split for shard in work.shards for pair in shard.pairs}
    assert len(Counter(split_of.values())) == 3
    near = [(one, other) for one in split_of for other in split_of if one < other and jaccard(words_of(one), words_of(other)) >= 0.8]
    assert len(near) >= 60
    assert all(split_of[one] == split_of[other] for one, other in near)


@pytest.mark.parametrize(("images", "scenes", "each"), [(12, 4, [3] * 4), (10, 3, [4, 3, 3]), (2, 1, [2])])
def test_of_each_scene_that_the_grammar_invents_as_many_images_are_made_as_asked_for(
    config: GenerateConfig, images: int, scenes: int, each: list[int]
) -> None:
    config = dataclasses.replace(config, prompts=None, num_images=images, images_per_prompt=3)
    config.check()
    for work in (begin(config, CPU), join(config, CPU)):
        pairs = [(shard.split, pair) for shard in work.shards for pair in shard.pairs]
        assert len(work.prompts.records) == len({record.group for record in work.prompts.records}) == scenes
        assert sorted(Counter(pair.record.prompt for _, pair in pairs).values(), reverse=True) == each
        assert len({pair.seed for _, pair in pairs}) == len(pairs) == images
        assert all(len({split for split, pair in pairs if pair.record.prompt == record.prompt}) == 1 for record in work.prompts.records)
    assert read_json(config.out / DATASET_FILE)["settings"]["images_per_prompt"] == 3
