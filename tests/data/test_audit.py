import random
from pathlib import Path

import numpy as np
from PIL import Image

from data.audit import AuditConfig, main, nearest
from data.groups import jaccard
from data.shards import DATASET_FILE, ShardWriter, write_json
from data.splits import words_of


def test_the_nearest_prompt_is_that_of_all_pairs() -> None:
    draw = random.Random(0)
    words = [f"w{i}" for i in range(30)]
    some, known = ([" ".join(draw.choices(words, k=draw.randrange(0, 9))) for _ in range(300)] for _ in range(2))
    best, where = nearest(some, known)
    for i, prompt in enumerate(some):
        every = [jaccard(words_of(prompt), words_of(other)) for other in known]
        assert np.isclose(best[i], max(every))
        assert np.isclose(every[where[i]], max(every))


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
