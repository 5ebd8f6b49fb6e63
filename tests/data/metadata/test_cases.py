"""A small file of every kind of metadata, with the prompt that it holds."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data.metadata.tools import MetadataError, read_image_metadata, read_sidecar

CASES = Path(__file__).parent / "cases"
EXPECTED = [json.loads(line) for line in (CASES / "expected.jsonl").read_text(encoding="utf-8").splitlines()]


def read(path: Path) -> tuple[str, str] | None:
    with Image.open(path) as image:
        found = read_image_metadata(image, name=path.name)
    beside = [path.with_suffix(suffix) for suffix in (".txt", ".TXT") if path.with_suffix(suffix).exists()]
    if found is None and beside:
        found = read_sidecar(beside[0].read_text(encoding="utf-8"))
    return None if found is None else (found.prompt, found.negative_prompt)


@pytest.mark.parametrize("case", EXPECTED, ids=[case["file"] for case in EXPECTED])
def test_case(case: dict[str, Any]) -> None:
    if case["prompt"] == "named":
        with pytest.raises(MetadataError):
            read(CASES / case["file"])
        return
    found = read(CASES / case["file"])
    assert found is not None
    assert found[0] == case["prompt"]
    if case["negative"] is not None:
        assert found[1] == case["negative"]
