import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from data.errors import ShardError
from data.files import write_json
from data.preview import PreviewConfig, main
from data.store.columns import write_column
from data.store.directory import DATASET_FILE, finished_shards, index_shard
from data.store.writer import ShardWriter


def test_the_page_stands_alone_and_shows_what_there_is(small_dataset: Path, tmp_path: Path) -> None:
    write_json(small_dataset / DATASET_FILE, {"generator": "<a tool>", "skipped": {"damaged image": 3}})
    with ShardWriter(small_dataset / "train", 90) as writer:
        writer.add("x", Image.new("RGB", (300, 100)), {"prompt": "<script>alert(1)</script>", "prompt_group": "x", "model": "odd & new"})
        writer.add_failure("y", {"prompt": "y", "prompt_group": "y"}, "safety checker", "black")
    main(PreviewConfig(directory=small_dataset, out=tmp_path / "page.html", images=1000, side=64))
    page = (tmp_path / "page.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "odd &amp; new" in page
    assert "damaged image</td><td>3" in page
    assert "safety checker</td><td>1" in page
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    pictures = re.findall(r'src="data:image/webp;base64,([^"]+)"', page)
    assert len(pictures) == 121
    assert max(max(Image.open(io.BytesIO(base64.b64decode(one))).size) for one in pictures) == 64
    HTMLParser().feed(page)
    assert "Fit of prompt and image" not in page
    for tar in finished_shards(small_dataset / "train"):
        write_column(tar, "fit", {location.key: -1.0 if location.key == "x" else 1.0 for location in index_shard(tar)}, origin="x")
    main(PreviewConfig(directory=small_dataset, out=tmp_path / "page.html", images=3, side=64))
    page = (tmp_path / "page.html").read_text()
    assert "Fit of prompt and image, by likelihood" in page
    worst = page.split("Those that fit worst, by likelihood")[1]
    assert worst.count("<figure") == 24
    assert "&lt;script&gt;alert(1)" in worst.split("</figure>")[0]  # the worst first


def test_nothing_to_show_is_said(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"dataset\.json does not exist"):
        main(PreviewConfig(directory=tmp_path))
    write_json(tmp_path / DATASET_FILE, {})
    with pytest.raises(ShardError, match="no finished shard"):
        main(PreviewConfig(directory=tmp_path))
