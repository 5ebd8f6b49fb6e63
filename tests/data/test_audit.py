import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.audit import AuditConfig, main
from data.embeddings import SENTENCE_MODEL
from data.errors import ShardError
from data.splits import SPLITS, Split

FAR = {"train": "a castle by the sea", "val": "two boats under northern lights", "test": "one violin"}
PROMISED = {"prompt_similarity": 0.7, "sentence_model": None, "sentence_similarity": None, "picture_distance": 12}
Pairs = Mapping[str, Sequence[Mapping[str, Any]]]


def data_set(directory: Path, pairs: Pairs, promised: Mapping[str, Any] | None = PROMISED, **about: Any) -> Path:
    """What the audit reads of a data set: no image is in the tars. What a pair does not say is like nothing else."""
    directory.mkdir(exist_ok=True)
    for number, split in enumerate(SPLITS):
        (directory / split).mkdir(exist_ok=True)
        rows = [{"prompt": FAR[split]}, *pairs.get(split, ())]
        for i, row in enumerate(rows):
            one = {"key": f"{number}{i}", "status": "success", "prompt": f"{split} words {number}{i}", "prompt_group": f"{split} {i}"}
            rows[i] = one | {"picture": sha256(f"{number} {i}".encode()).hexdigest()} | dict(row)
        pq.write_table(pa.Table.from_pylist(rows), directory / split / "00000.parquet")
        (directory / split / "00000_stats.json").write_text(json.dumps({"successes": sum(row["status"] == "success" for row in rows)}))
        (directory / split / "00000.tar").touch()
    (directory / "dataset.json").write_text(json.dumps(about | ({"near_duplicates": dict(promised)} if promised is not None else {})))
    return directory


def audited(directory: Path, **options: Any) -> dict[str, Any]:
    """What the audit writes; whether it fails is compared with it."""
    passed = main(AuditConfig(directory=directory, json=directory / "audit.json", **options))
    found: dict[str, Any] = json.loads((directory / "audit.json").read_text())
    assert passed == (found["leaks"] == 0)
    return found


def test_where_nothing_leaks_it_says_what_was_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = audited(data_set(tmp_path, {}))
    assert found["leaks"] == 0
    last = capsys.readouterr().out.rstrip().splitlines()[-2:]
    assert last == [
        "nothing leaks of what was checked: no group is in two splits; no prompt shares 70 % of its words with one of another split; "
        "no picture is within 12 of 256 bits of one of another split",
        "not checked: what prompts say: no sentence model was used (give --sentence-model)",
    ]
    assert [check["leaks"] for check in found["checked"]] == [0, 0, 0]


TOO_NEAR = ("a red fox in a snowy forest", "a red fox, in a snowy wood")  # 5 of 7 words


@pytest.mark.parametrize(("split", "other", "name"), [("test", "train", "test"), ("val", "train", "val"), ("val", "test", "val_test")])
def test_a_near_prompt_in_any_pair_of_splits_is_a_leak(split: Split, other: Split, name: str, tmp_path: Path) -> None:
    near = [{"prompt": TOO_NEAR[0]}, {"prompt": f"{TOO_NEAR[0]} forest"}, {"prompt": "a blue whale"}]
    found = audited(data_set(tmp_path, {split: near, other: [{"prompt": TOO_NEAR[1]}]}))
    assert {key: found["words"][key]["over"] for key in ("test", "val", "val_test")} == {"test": 0, "val": 0, "val_test": 0} | {name: 2}
    assert (found["leaks"], found["pictures_in_two_splits"], found["groups_in_two_splits"]) == (2, 0, 0)
    nearest = found["words"][name]["nearest"][0]
    assert (nearest["similarity"], nearest[split], nearest[other]) == (0.714, near[0]["prompt"], TOO_NEAR[1]) or nearest[split] == near[1]["prompt"]
    assert audited(tmp_path, threshold=0.8)["leaks"] == 0
    assert found["characters"][name]["nearest"][0]["similarity"] > 0.6  # shown
    assert found["characters"]["threshold"] is None  # and no more


@pytest.mark.parametrize(("split", "other", "name"), [("test", "train", "test"), ("val", "train", "val"), ("val", "test", "val_test")])
def test_a_near_picture_in_any_pair_of_splits_is_a_leak(split: Split, other: Split, name: str, tmp_path: Path) -> None:
    bits = 0b101 << 120
    near = [{"picture": f"{bits ^ 0xFFF:064x}"}, {"picture": f"{bits:064x}"}, {"picture": f"{bits ^ (0x1FFF << 30):064x}"}]  # 12, 0 and 13 bits away
    found = audited(data_set(tmp_path, {split: near, other: [{"picture": f"{bits:064x}"}]}))
    assert {key: found["pictures"][key] for key in ("test", "val", "val_test")} == {"test": 0, "val": 0, "val_test": 0} | {name: 2}
    assert (found["leaks"], found["pictures_in_two_splits"]) == (2, 2)
    assert audited(tmp_path, picture_distance=13)["leaks"] == 3


@pytest.mark.parametrize(("split", "other"), [("test", "train"), ("val", "train"), ("val", "test")])
def test_a_group_in_two_splits_is_a_leak_though_its_prompts_are_unlike(split: Split, other: Split, tmp_path: Path) -> None:
    data_set(tmp_path, {split: [{"prompt_group": "the same"}], other: [{"prompt_group": "the same"}]})
    found = audited(tmp_path)
    assert (found["groups_in_two_splits"], found["leaks"]) == (1, 1)
    assert found["groups"] == 4


def test_a_leak_is_said_with_its_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audited(data_set(tmp_path, {"val": [{"prompt": TOO_NEAR[0], "prompt_group": "one"}], "test": [{"prompt": TOO_NEAR[1], "prompt_group": "one"}]}))
    out = capsys.readouterr().out
    assert "2 leaks, against what was to be so:\n  1 x no group is in two splits\n  1 x no prompt shares 70 %" in out
    assert "nothing leaks" not in out
    assert repr(TOO_NEAR[0]) in out


def test_what_was_not_promised_is_not_said_to_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As of the embedded world, whose groups are scenes."""
    leaky: Pairs = {"val": [{"prompt": TOO_NEAR[0], "picture": None}], "test": [{"prompt": TOO_NEAR[0], "picture": None}]}
    promised = dict.fromkeys(("prompt_similarity", "sentence_model", "sentence_similarity"))
    found = audited(data_set(tmp_path, {split: leaky.get(split, ()) for split in SPLITS}, promised))
    assert found["leaks"] == 0
    assert found["words"]["val_test"]["nearest"][0]["similarity"] == 1  # shown all the same
    out = capsys.readouterr().out
    assert out.rstrip().endswith(
        "nothing leaks of what was checked: no group is in two splits\n"
        "not checked: prompts by their words: no threshold was promised (give --threshold)\n"
        "not checked: what prompts say: no sentence model was used (give --sentence-model)\n"
        "not checked: pictures: no distance was promised (give --picture-distance)"
    )
    for split in SPLITS:  # rendered: no hash at all
        table = pq.read_table(tmp_path / split / "00000.parquet")
        pq.write_table(table.drop_columns("picture"), tmp_path / split / "00000.parquet")
    assert audited(tmp_path, picture_distance=12)["not_checked"][-1] == "pictures: they have no hashes, which only imports compute"
    with pytest.raises(ShardError, match="made without a sentence model"):
        audited(tmp_path, sentence_threshold=0.5)


def test_some_pictures_without_a_hash_are_counted(tmp_path: Path) -> None:
    found = audited(data_set(tmp_path, {"train": [{"picture": None}]}))
    assert found["not_checked"][-1] == "1 of 4 pictures: they have no hashes"
    assert found["pictures"]["hashed"] == 3


def test_a_prompt_that_says_the_same_in_other_words_is_a_leak(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    promised = {"prompt_similarity": 0.8, "sentence_model": SENTENCE_MODEL, "sentence_similarity": 0.8}
    thai = ({"prompt": "แมวนอนบนโซฟา"}, {"prompt": "ปราสาทบนภูเขา"})  # the model cannot tell them apart
    pairs = {"train": [{"prompt": "a photo of a car"}, thai[0]], "test": [{"prompt": "a photograph of an automobile"}, thai[1]]}
    found = audited(data_set(tmp_path, pairs, promised))
    assert "'a photograph of an automobile' / 'a photo of a car'" in capsys.readouterr().out
    assert (found["words"]["test"]["over"], found["sentences"]["test"]["over"], found["leaks"]) == (0, 1, 1)
    assert audited(tmp_path, sentence_model="none")["leaks"] == 0
    assert audited(tmp_path, sentence_threshold=0.99)["leaks"] == 0


def test_ignored_words_are_those_of_the_grouping(tmp_path: Path) -> None:
    tail = ", masterpiece, best quality, highly detailed, 8k, sharp focus, trending on artstation"
    pairs = {split: [{"prompt": f"{FAR[split]} {split}{tail}"}] for split in SPLITS}
    assert audited(data_set(tmp_path, pairs, PROMISED | {"prompt_similarity": 0.3}))["leaks"] == 3
    found = audited(data_set(tmp_path, pairs, PROMISED | {"prompt_similarity": 0.3, "ignore_words": [tail]}))
    assert found["leaks"] == 0
    assert "11 ignored words aside" in found["checked"][1]["promise"]


def test_one_group_of_nearly_everything_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = audited(data_set(tmp_path, {"train": [{"prompt": f"a fox {i}", "prompt_group": "large"} for i in range(20)]}))
    assert "warning: one group holds 87 % of all pairs" in capsys.readouterr().out
    assert (found["groups"], found["largest_groups"][0]) == (4, 20)


def test_damaged_and_unfinished_data_sets_are_refused(tmp_path: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(ShardError, match=message):
            main(AuditConfig(directory=tmp_path))

    refused("does not exist")
    data_set(tmp_path, {}, shards={"train": 2, "val": 1, "test": 1}, generator="someone")
    refused("has 3 of 4 shards")
    assert audited(tmp_path, partial=True)["not_checked"][-1] == "pairs that are not there yet, if there are any"
    data_set(tmp_path, {}, generator="someone")
    refused("is not finished")
    data_set(tmp_path, {"train": [{"status": "failed", "prompt": None}]}, shards={"train": 1, "val": 1, "test": 1}, generator="someone")
    assert main(AuditConfig(directory=tmp_path))
    parquet = tmp_path / "val" / "00000.parquet"
    for damage in ({"prompt": None}, {"prompt_group": None}, {"picture": "no number"}):
        data_set(tmp_path, {"val": [damage]})
        refused(r"val.00000\.parquet: the row of 11 is damaged")
    data_set(tmp_path, {})
    pq.write_table(pq.read_table(parquet).drop_columns("prompt_group"), parquet)
    refused("has no column prompt_group")
    pq.write_table(pq.read_table(tmp_path / "test" / "00000.parquet").slice(0, 0), parquet)
    refused("holds 0 pairs, but its stats file says 1")
    parquet.write_bytes(parquet.read_bytes()[:100])
    refused("is missing or damaged")
    parquet.unlink()
    refused("is missing or damaged")
    data_set(tmp_path, {})
    (tmp_path / "train" / "00000_stats.json").unlink()
    refused("train holds no finished shard")
