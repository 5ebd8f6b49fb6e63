import json
from pathlib import Path

import pytest
from PIL import Image

from data.audit import AuditConfig, main
from data.embeddings import SENTENCE_MODEL
from data.shards import DATASET_FILE, ShardError, ShardWriter, write_json


def test_a_leak_is_counted(tmp_path: Path) -> None:
    for split, prompts in (("train", ["a red fox in a forest", "an owl"]), ("val", ["two boats"]), ("test", ["a red fox, in the forest", "a ship"])):
        with ShardWriter(tmp_path / split, 0) as writer:
            for i, prompt in enumerate(prompts):
                writer.add(str(i), Image.new("RGB", (8, 8)), {"prompt": prompt, "prompt_group": prompt})
    write_json(tmp_path / DATASET_FILE, {"near_duplicates": {"prompt_similarity": 0.7}})
    assert not main(AuditConfig(directory=tmp_path))
    assert main(AuditConfig(directory=tmp_path, threshold=0.9))
    write_json(tmp_path / DATASET_FILE, {})
    assert main(AuditConfig(directory=tmp_path))
    with pytest.raises(ShardError, match="made without a sentence model"):
        main(AuditConfig(directory=tmp_path, sentence_threshold=0.5))


def test_a_prompt_that_says_the_same_in_other_words_is_a_leak(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, prompts in (("train", ["a photo of a car", "an owl"]), ("test", ["a photograph of an automobile", "a ship in a bottle"])):
        with ShardWriter(tmp_path / split, 0) as writer:
            for i, prompt in enumerate(prompts):
                writer.add(str(i), Image.new("RGB", (8, 8)), {"prompt": prompt, "prompt_group": prompt})
    promised = {"prompt_similarity": 0.8, "sentence_model": SENTENCE_MODEL, "sentence_similarity": 0.8}
    write_json(tmp_path / DATASET_FILE, {"near_duplicates": promised})
    assert not main(AuditConfig(directory=tmp_path, json=tmp_path / "audit.json"))
    assert "'a photograph of an automobile' / 'a photo of a car'" in capsys.readouterr().out
    found = json.loads((tmp_path / "audit.json").read_text())
    assert (found["words"]["test"]["over"], found["sentences"]["test"]["over"], found["leaks"]) == (0, 1, 1)
    assert main(AuditConfig(directory=tmp_path, sentence_model="none"))
    assert main(AuditConfig(directory=tmp_path, sentence_threshold=0.99))
