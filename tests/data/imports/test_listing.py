import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archives import encoded, numbered, write_tar

from data.errors import ShardError
from data.imports.listing import Original, OriginalError, diffusiondb, folder, imagefolder, problem_kind, table, webdataset


def test_a_folder_in_order_with_its_sidecars(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "sub/c.webp", ".hidden/d.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encoded())
    (tmp_path / "a.txt").write_text("\ufeffa prompt\n", encoding="utf-8")
    (tmp_path / "b.PNG.caption").write_text("another")
    found = list(folder(tmp_path))
    assert [original.name for original in found] == ["a.jpg", "b.PNG", "sub/c.webp"]
    assert [original.sidecar() for original in found] == ["a prompt", "another", None]
    (tmp_path / "a.txt").write_bytes(b"\xe9\xe8\xe9\xe0 \x81")
    with pytest.raises(OriginalError, match="neither UTF-8 nor UTF-16"):
        found[0].sidecar()
    with pytest.raises(OriginalError, match="no such file"):
        Original("x", tmp_path / "none.png").read()


def test_a_table_reports_malformed_lines(tmp_path: Path) -> None:
    (tmp_path / "styles.csv").write_text('id,title,colour\n1,"Cap, grey",grey\n2,Shirt,of cotton,blue\n3,Bag\n\n4,,red\n5,Shoe,\n')
    found = list(table(tmp_path / "styles.csv", image="images/{id}.jpg", text="{title} in {colour}"))
    assert [(one.prompt, one.problem) for one in found] == [
        ("Cap, grey in grey", None),
        (None, "malformed line (4 values for 3 columns; a value with ',' in it must stand in quotes)"),
        (None, "malformed line (2 values for 3 columns)"),
        (None, "no prompt"),
        (None, "no prompt"),
    ]
    assert found[0].file == tmp_path / "images/1.jpg"
    assert found[0].metadata["colour"] == "grey"
    assert problem_kind(str(found[1].problem)) == "malformed line"
    with pytest.raises(ShardError, match="no column name; there are: id, title, colour"):
        list(table(tmp_path / "styles.csv", image="{id}.jpg", text="{name}"))
    with pytest.raises(ShardError, match="no column in braces"):
        list(table(tmp_path / "styles.csv", image="images", text="{title}"))
    pq.write_table(pa.table({"id": [7, 8], "title": ["a", "b"]}), tmp_path / "t.parquet")
    assert [one.prompt for one in table(tmp_path / "t.parquet", image="{id}.png", text="{title}")] == ["a", "b"]


def test_imagefolder(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    lines = [{"file_name": "1.png", "text": "one"}, {"text": "no file"}, {"file_name": "2.png"}]
    (tmp_path / "train" / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n{broken\n")
    found = list(imagefolder(tmp_path))
    assert [(one.name, one.prompt, one.problem and problem_kind(one.problem)) for one in found] == [
        ("train/1.png", "one", None),
        ("train/metadata.jsonl:2", None, "no file_name"),
        ("train/2.png", None, None),
        ("train/metadata.jsonl:4", None, "damaged metadata"),
    ]


def test_diffusiondb_in_zips_folders_and_its_table(tmp_path: Path) -> None:
    entries = {"a.png": {"p": "a castle", "se": 5, "c": 7.0, "st": 50, "sa": "k_lms"}, "b.png": {"se": 1}}
    with zipfile.ZipFile(tmp_path / "part-000001.zip", "w") as archive:
        archive.writestr("part-000001.json", json.dumps(entries))
        for name in ("a.png", "b.png", "c.png"):
            archive.writestr(name, encoded())
    (tmp_path / "part-000002").mkdir()
    (tmp_path / "part-000002" / "part-000002.json").write_text("{")
    (tmp_path / "part-000002" / "d.webp").write_bytes(encoded("WEBP"))
    (tmp_path / "part-000003.zip").write_bytes(b"broken")
    pq.write_table(pa.table({"image_name": ["c.png"], "prompt": ["a cat"], "seed": [9], "step": [30], "cfg": [6.0]}), tmp_path / "metadata.parquet")
    found = {one.name: one for one in diffusiondb(tmp_path)}
    assert found["part-000001.zip/a.png"].prompt == "a castle"
    assert found["part-000001.zip/a.png"].metadata == {"seed": 5, "steps": 50, "guidance_scale": 7.0, "sampler": "k_lms", "tool": "DiffusionDB"}
    assert found["part-000001.zip/a.png"].read() == encoded()
    assert found["part-000001.zip/b.png"].problem == "no metadata"
    assert found["part-000001.zip/c.png"].prompt == "a cat"
    assert found["part-000002/part-000002.json"].problem is not None
    assert found["part-000002/d.webp"].problem == "no metadata"
    assert problem_kind(str(found["part-000003.zip"].problem)) == "damaged archive"
    with pytest.raises(ShardError, match="is not DiffusionDB"):
        list(diffusiondb(tmp_path / "part-000002" / "none"))


def test_webdataset(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "0.tar",
        numbered(0, 3) | {"x.png": encoded(), "x.json": b'{"caption": "from json", "seed": 4}', "y.png": encoded(), "y.json": b"{"},
    )
    cut = write_tar(tmp_path / "1.tar", numbered(3, 9))
    cut.write_bytes(cut.read_bytes()[:4000])
    found = list(webdataset(str(tmp_path)))
    assert [one.prompt for one in found[:4]] == ["prompt number 0", "prompt number 1", "prompt number 2", "from json"]
    assert found[3].metadata == {"caption": "from json", "seed": 4}
    assert [problem_kind(one.problem) for one in found if one.problem] == ["damaged metadata", "cut archive"]
    assert found[0].read() == encoded()


def test_the_right_one_of_diffusiondbs_tables(tmp_path: Path) -> None:
    """Large and small lie beside each other, and an image is in one of them."""
    (tmp_path / "part-000001").mkdir()
    (tmp_path / "part-000001" / "part-000001.json").write_text("{}")
    for name in ("small.png", "large.webp", "neither.png"):
        (tmp_path / "part-000001" / name).write_bytes(encoded())
    for file, image, text in (("metadata.parquet", "small.png", "of the small one"), ("metadata-large.parquet", "large.webp", "of the large one")):
        others = [f"{file}-{i}.png" for i in range(5000)]
        rows = {"image_name": [*others, image], "prompt": [*others, text], "seed": [1] * 5001, "step": [30] * 5001, "cfg": [7.0] * 5001}
        pq.write_table(pa.table(rows), tmp_path / file, row_group_size=1000)
    found = {one.name.rpartition("/")[2]: one for one in diffusiondb(tmp_path)}
    assert found["small.png"].prompt == "of the small one"
    assert found["large.webp"].prompt == "of the large one"
    assert found["neither.png"].problem == "no metadata"


def test_how_a_table_was_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("id;titre\n1;un phare à la côte\n".encode("cp1252"))
    with pytest.warns(UserWarning, match="was read as cp1252"):
        (found,) = table(tmp_path / "t.csv", image="{id}.png", text="{titre}")
    assert found.prompt == "un phare à la côte"
