import dataclasses
from collections import Counter
from pathlib import Path

import pytest
from compared import PROMPTS, pictures
from listed import ListedPairs
from PIL import Image

from data.errors import PairError, ShardError
from data.sources.chosen import PairSource
from data.store.pairs import Pair
from evaluation.provenance import audit, provenance, without_password


def training(*about: tuple[str, dict]) -> ListedPairs:
    return ListedPairs([Pair(str(number), Image.new("RGB", (4, 4)), prompt, metadata) for number, (prompt, metadata) in enumerate(about)])


def test_prompts_and_groups_that_training_pairs_have_too_are_counted() -> None:
    some = pictures(4)
    some.references[1].append("another  Prompt")  # type: ignore[attr-defined]
    known = training((PROMPTS[0].upper(), {"prompt_group": "g3"}), ("Another prompt", {"prompt_group": "g3"}), ("x", {}))
    found = audit(some, lambda: known)
    assert found == {"training_pairs": 3, "pictures_with_a_training_prompt": 2, "pictures_of_a_training_group": 1}


def test_prompts_are_the_groups_where_the_data_say_none() -> None:
    some = dataclasses.replace(pictures(4), groups=["", "g1", "g2", "g3"])
    found = audit(some, lambda: training(("x", {}), ("y", {"prompt_group": None})))
    assert isinstance(found, dict)
    assert found["pictures_of_a_training_group"] == 0


def test_training_pairs_that_cannot_be_read_are_not_counted_and_those_that_are_not_there_are_said_to_be_missing() -> None:
    class Broken(ListedPairs):
        def prompt(self, index: int) -> str:
            if index == 0:
                raise PairError("broken", "no prompt")
            return super().prompt(index)

    def missing() -> PairSource:
        raise ShardError("no train split")

    some = pictures(4)
    found = audit(some, lambda: Broken(training((PROMPTS[0], {}), ("x", {})).pairs))
    assert found == {"training_pairs": 1, "pictures_with_a_training_prompt": 0, "pictures_of_a_training_group": 0}
    assert audit(some, missing) == "there are no training pairs to compare with: no train split"
    assert audit(some, None) == "not made"


def test_it_says_on_what_and_with_what() -> None:
    some = dataclasses.replace(pictures(4), unread=Counter({"empty prompt": 2}), groups=list("aabb"))
    some.references[0].append("second")  # type: ignore[attr-defined]
    found = provenance(some, data="there", split="test", settings={"seed": 0})
    assert found["data"] == {
        "source": "there",
        "split": "test",
        "splits": "as the data declares them",
        "fingerprint": some.fingerprint(),
        "pictures": 4,
        "references": 5,
        "groups": 2,
        "left_out": {"empty prompt": 2},
        "audit": "not made",
    }
    assert found["settings"] == {"seed": 0}
    assert {"python", "torch", "numpy"} <= set(found["versions"])


def test_a_password_in_a_urls_address_is_not_written_down() -> None:
    assert provenance(pictures(1), data="https://user:pass@word@host/a.tar", split="test")["data"]["source"] == "https://***@host/a.tar"
    assert without_password("a https://host/x?mail=me@home and s3://key:secret@bucket/y") == "a https://host/x?mail=me@home and s3://***@bucket/y"


def test_the_command_is_as_it_would_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for script, shown in ((str(tmp_path / "tools" / "x.py"), "tools/x.py"), ("x.py", "x.py"), ("/elsewhere/x.py", "/elsewhere/x.py")):
        monkeypatch.setattr("sys.argv", [script, "--data", str(tmp_path / "here")])
        assert provenance(pictures(1), data="d", split="test")["command"] == f"{shown} --data {tmp_path / 'here'}"
