"""Several pictures of one prompt read together, in folders and grids."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from captioned import Kept, Ran, carrying
from inverters import StubInverter, Together, coloured, joint_inverter, tiny_inverter
from PIL import Image

import inference.captioning
from inference.beside import Sidecars
from inference.captioning import Captioning
from inference.reranking import BayesRisk
from model import EncoderConfig, Preprocessing


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Two, four and one picture in three folders."""
    for name, reds in (("a", (1, 2)), ("b", (11, 12, 13, 14)), ("c", (21,))):
        (tmp_path / name).mkdir()
        for red in reds:
            coloured(red).save(tmp_path / name / f"{red:02}.png")
    return tmp_path


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.png"))


def ran(files: Iterable[Path], *outputs: Any, **options: Any) -> Ran:
    return Ran(files, *outputs, **({"stub": Together(), "joint": True} | options))


def test_pictures_of_a_folder_have_one_prompt_read_from_the_first_of_them(folders: Path) -> None:
    kept = Kept()
    done = ran(files_of(folders), kept, decoding={"num_beams": 2})
    assert [row.file for row in kept.rows] == files_of(folders)
    assert kept.prompts == ["of [1, 2]"] * 2 + ["of [11, 12, 13]"] * 4 + ["of [21]"]
    assert [row.note for row in kept.rows] == [""] * 2 + ["read from the first 3 of 4 pictures"] * 4 + [""]
    assert [row.source for row in kept.rows] == ["model"] * 7
    assert done.stub.groups == [[[1, 2], [11, 12, 13], [21]]]
    assert done.stub.options == [{"num_beams": 2}]
    assert (done.outcome.model, done.done, done.failed) == (7, 7, [])


def test_the_batch_size_is_of_folders(folders: Path) -> None:
    kept = Kept()
    done = ran(files_of(folders), kept, batch_size=2)
    assert done.stub.groups == [[[1, 2], [11, 12, 13]], [[21]]]
    assert len(kept.rows) == 7
    assert ran(files_of(folders), Kept(), batch_size=1).stub.groups == [[[1, 2]], [[11, 12, 13]], [[21]]]


def test_pictures_of_folders_come_together_in_whatever_order_they_are_named(folders: Path) -> None:
    a, b, c = (sorted((folders / name).iterdir()) for name in "abc")
    kept = Kept()
    done = ran([b[3], a[1], b[0], c[0], a[0], b[1]], kept, batch_size=1)
    assert done.stub.groups == [[[14, 11, 12]], [[2, 1]], [[21]]]
    assert [row.file for row in kept.rows] == [b[3], b[0], b[1], a[1], a[0], c[0]]
    assert {row.note for row in kept.rows} == {""}


def test_a_broken_file_costs_nothing_but_itself_and_the_next_is_read_in_its_place(folders: Path) -> None:
    (folders / "b" / "12.png").write_bytes(b"no picture")
    (folders / "a" / "00.png").write_bytes(b"")
    (folders / "c" / "21.png").write_bytes(b"")
    kept = Kept()
    done = ran(files_of(folders), kept)
    assert done.stub.groups == [[[1, 2], [11, 13, 14]]]
    assert [(int(row.file.stem), row.prompts[0], row.note) for row in kept.rows] == [
        *((red, "of [1, 2]", "") for red in (1, 2)),
        *((red, "of [11, 13, 14]", "") for red in (11, 13, 14)),
    ]
    assert (done.outcome.model, done.outcome.failed, done.done) == (5, {"damaged image": 1, "empty image": 2}, 8)
    assert [line.split(":")[0] for line in done.failed] == [str(folders / name) for name in ("a/00.png", "b/12.png", "c/21.png")]


def test_files_that_carry_a_prompt_keep_it_and_the_others_are_read_without_them(folders: Path) -> None:
    carrying(folders / "b" / "11.png", "a castle", 11)
    carrying(folders / "c" / "21.png", "an owl", 21)
    kept = Kept()
    done = ran(files_of(folders), kept)
    assert done.stub.groups == [[[1, 2], [12, 13, 14]]]
    assert kept.prompts == ["of [1, 2]"] * 2 + ["a castle"] + ["of [12, 13, 14]"] * 3 + ["an owl"]
    assert [row.source for row in kept.rows] == ["model"] * 2 + ["metadata"] + ["model"] * 3 + ["metadata"]
    assert all(row.prediction is None and row.note == "" for row in kept.rows if row.source == "metadata")
    assert (done.outcome.model, done.outcome.metadata) == (5, 2)
    assert ran(files_of(folders), Kept(), metadata=False).stub.groups == [[[1, 2], [11, 12, 13], [21]]]


def test_to_verify_is_to_show_the_network_those_that_carry_one_too(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference.captioning, "SentenceEncoder", lambda **_: lambda texts: np.array([[1.0, 0.0], [0.6, 0.8]]))
    carrying(folders / "a" / "01.png", "a castle", 1)
    kept = Kept()
    assert ran(files_of(folders / "a"), kept, verify=True).stub.groups == [[[1, 2]]]
    assert kept.prompts == ["a castle", "of [1, 2]"]
    assert [row.note for row in kept.rows] == ["the model says: of [1, 2] (similarity 0.60)", ""]


def test_what_is_missing_has_the_prompt_of_the_whole_folder(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = Kept(["01.png", "02.png", "11.png", "13.png", "21.png"]), Kept(["01.png", "02.png", "14.png", "21.png"])
    read = list[int]()
    reading = inference.captioning.read_picture_file
    monkeypatch.setattr(inference.captioning, "read_picture_file", lambda path, **how: read.append(int(path.stem)) or reading(path, **how))
    done = ran(files_of(folders), one, other)
    assert [(int(row.file.stem), row.prompts[0]) for row in one.rows] == [(red, "of [11, 12, 13]") for red in (12, 14)]
    assert [(int(row.file.stem), row.prompts[0]) for row in other.rows] == [(red, "of [11, 12, 13]") for red in (11, 12, 13)]
    assert {row.note for row in one.rows + other.rows} == {"read from the first 3 of 4 pictures"}
    assert sorted(read) == [11, 12, 13, 14]  # of a folder that has all nothing is read
    assert (done.outcome.model, done.outcome.already, done.done) == (4, 3, 7)
    (folders / "b" / "11.png").write_bytes(b"")  # one that was written before it broke
    broken = Kept(["01.png", "02.png", "11.png", "12.png", "21.png"])
    done = ran(files_of(folders), broken)
    assert [(int(row.file.stem), row.prompts[0]) for row in broken.rows] == [(red, "of [12, 13, 14]") for red in (13, 14)]
    assert (done.outcome.already, done.outcome.failed, done.done) == (5, {}, 7)


def test_a_file_whose_text_is_another_s_is_named_and_not_read(folders: Path) -> None:
    coloured(99).save(folders / "b" / "11.webp", lossless=True)
    done = ran(sorted((folders / "b").iterdir()), Sidecars(".txt", "overwrite"))
    assert done.stub.groups == [[[11, 12, 13]]]
    assert done.outcome.failed == {"name taken": 1}
    assert {path.read_text() for path in (folders / "b").glob("*.txt")} == {"of [11, 12, 13]\n"}
    assert done.done == 5


def test_folders_that_need_no_network_do_not_wait_for_it(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number:02}").mkdir()
        for name in ("a", "b"):
            carrying(tmp_path / f"{number:02}" / f"{name}.png", f"a castle {number}")
    coloured(7).save(tmp_path / "19" / "c.png")
    ahead, kept = list[int](), Kept()

    class Watched(Kept):
        def has(self, file: Path) -> bool:
            ahead.append(len(ahead) - len(kept.rows))
            return False

    done = ran(files_of(tmp_path), Watched(), kept, batch_size=4)
    assert kept.prompts == [f"a castle {number // 2}" for number in range(40)] + ["of [7]"]
    assert done.stub.groups == [[[7]]]
    assert 12 <= max(ahead) <= 3 * 4 + 2 + 3  # three batches of files are read ahead; a folder is listed as a whole, and written when the next begins


def test_pictures_beyond_those_that_are_read_are_not_kept(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    for number in range(60):
        coloured(number).save(tmp_path / "one" / f"{number:02}.png")
    alive: list[weakref.ref[Image.Image]] = []
    most = [0]

    class Counting(Together):
        def reduced(self, image: Image.Image) -> Image.Image:
            alive.append(weakref.ref(image))
            most[0] = max(most[0], sum(one() is not None for one in list(alive)))
            return image

    kept = Kept()
    ran(files_of(tmp_path), kept, stub=Counting(), batch_size=3)
    assert kept.prompts == ["of [0, 1, 2]"] * 60
    assert {row.note for row in kept.rows} == {"read from the first 3 of 60 pictures"}
    assert len(alive) == 60
    assert most[0] <= 3 * 3 + 3 + 1  # three batches ahead, and those of the folder


# grids


def marked(width: int, height: int) -> Image.Image:
    """Each pixel says where it is."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(height)[:, None], np.arange(width)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("size", "grid", "boxes"),  # left, top, right, bottom
    [
        ((4, 4), (2, 2), [(0, 0, 2, 2), (2, 0, 4, 2), (0, 2, 2, 4), (2, 2, 4, 4)]),
        ((7, 5), (2, 3), [(0, 0, 2, 2), (2, 0, 4, 2), (4, 0, 7, 2), (0, 2, 2, 5), (2, 2, 4, 5), (4, 2, 7, 5)]),
        ((5, 7), (3, 1), [(0, 0, 5, 2), (0, 2, 5, 4), (0, 4, 5, 7)]),
        ((6, 3), (1, 4), [(0, 0, 1, 3), (1, 0, 3, 3), (3, 0, 4, 3), (4, 0, 6, 3)]),
    ],
)
def test_the_pictures_of_a_grid_lie_row_by_row(
    size: tuple[int, int], grid: tuple[int, int], boxes: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = marked(*size)
    monkeypatch.setattr(Together, "most_together", 6)
    tiles = Captioning(inverter=Together(), decoding={}, grid=grid).seen(whole)
    assert [np.asarray(tile).tolist() for tile in tiles] == [np.asarray(whole)[top:bottom, left:right].tolist() for left, top, right, bottom in boxes]
    covered = list(itertools.chain.from_iterable(np.asarray(tile).reshape(-1, 3).tolist() for tile in tiles))
    assert sorted(covered) == sorted(np.asarray(whole).reshape(-1, 3).tolist())
    monkeypatch.setattr(Together, "most_together", 2)
    first = Captioning(inverter=Together(), decoding={}, grid=grid).seen(whole)  # of the others nobody takes notice
    assert [np.asarray(tile).tolist() for tile in first] == [np.asarray(tile).tolist() for tile in tiles[:2]]


def test_of_each_picture_of_a_grid_only_what_is_seen_is_kept() -> None:
    one = joint_inverter()
    tiles = Captioning(inverter=one, decoding={}, grid=(1, 2)).seen(marked(200, 90))
    assert [tile.size for tile in tiles] == [(32, 32)] * 2
    assert np.array_equal(np.asarray(tiles[1]), np.asarray(one.reduced(marked(200, 90).crop((100, 0, 200, 90)))))
    whole = marked(8, 8)
    (seen,) = Captioning(inverter=Together(), decoding={}, joint=True).seen(whole)
    assert seen is whole


def grid_of(path: Path, *reds: int) -> None:
    """Two rows of two, or a row."""
    rows, columns = (2, 2) if len(reds) == 4 else (1, len(reds))
    image = Image.new("RGB", (8 * columns, 8 * rows))
    for number, red in enumerate(reds):
        image.paste(coloured(red), (number % columns * 8, number // columns * 8))
    image.save(path)


@pytest.mark.parametrize("crop", ["center", "squeeze"])
@pytest.mark.parametrize("size", [(1, 8), (8, 1)])
def test_a_file_with_fewer_pixels_than_its_grid_has_pictures_costs_nothing_but_itself(crop: str, size: tuple[int, int], tmp_path: Path) -> None:
    Image.new("RGB", size).save(tmp_path / "0.png")
    coloured(2, 2).save(tmp_path / "1.png")
    encoder = EncoderConfig(name="test_vit", arguments={"img_size": 32}, frames=4)
    one = tiny_inverter(encoder=encoder, preprocessing=Preprocessing(image_size=32, crop=crop))
    kept = Kept()
    ran = Ran(sorted(tmp_path.iterdir()), kept, stub=one, grid=(2, 2))
    assert [row.file.name for row in kept.rows] == ["1.png"]
    assert ran.outcome.failed == {"no grid": 1}
    assert ran.failed == [f"{tmp_path / '0.png'}: image: {size[0]} x {size[1]} pixels are no grid of 2 rows and 2 columns"]


def test_each_grid_has_a_prompt_of_its_own(tmp_path: Path) -> None:
    for number in range(3):
        grid_of(tmp_path / f"{number}.png", *(10 * number + tile for tile in range(4)))
    (tmp_path / "1a.png").write_bytes(b"")
    kept = Kept()
    done = ran(files_of(tmp_path), kept, joint=False, grid=(2, 2), batch_size=2)
    assert done.stub.groups == [[[0, 1, 2], [10, 11, 12]], [[20, 21, 22]]]
    assert kept.prompts == ["of [0, 1, 2]", "of [10, 11, 12]", "of [20, 21, 22]"]
    assert {row.note for row in kept.rows} == {"read from the first 3 of 4 pictures"}
    assert (done.outcome.model, done.outcome.failed, done.done) == (3, {"empty image": 1}, 4)


def test_grids_of_a_folder_are_read_together_too(tmp_path: Path) -> None:
    for number in range(3):
        grid_of(tmp_path / f"{number}.png", 10 * number, 10 * number + 1)
    kept = Kept()
    done = ran(files_of(tmp_path)[:2], kept, grid=(1, 2))
    assert done.stub.groups == [[[0, 1, 10]]]
    assert {row.note for row in kept.rows} == {"read from the first 3 of 4 pictures"}
    one = Kept()
    ran(files_of(tmp_path)[:1], one, joint=False, grid=(1, 2))
    assert (one.prompts, one.rows[0].note) == (["of [0, 1]"], "")


# what a model can do


@pytest.mark.parametrize("how", [{"joint": True}, {"grid": (1, 2)}, {"grid": (2, 1), "joint": True}])
@pytest.mark.parametrize("inverter", [StubInverter, lambda: joint_inverter(0), lambda: joint_inverter(1)])
def test_a_model_that_reads_one_picture_at_a_time_is_refused(how: dict[str, Any], inverter: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=r"this model reads one picture at a time, as ONNX graphs do; .* trained by train\.py --joint 4"):
        Captioning(inverter=inverter(), decoding={}, **how)
    assert Captioning(inverter=inverter(), decoding={}).most_together == 1


def test_without_being_asked_a_model_reads_each_picture_alone(folders: Path) -> None:
    kept = Kept()
    done = ran(files_of(folders), kept, joint=False)
    assert kept.prompts == [f"picture {red}" for red in (1, 2, 11, 12, 13, 14, 21)]
    assert (done.stub.groups, done.stub.batches) == ([], [[1, 2, 11, 12, 13, 14, 21]])
    captioning = [Captioning(inverter=Together(), decoding={}, joint=joint) for joint in (False, True)]
    assert [(one.reads_together, one.most_together) for one in captioning] == [(False, 1), (True, 3)]


def test_a_file_that_is_named_twice_in_a_row_is_no_group(folders: Path) -> None:
    one = next(path for path in sorted(folders.rglob("*")) if path.is_file())
    kept = Kept()
    Ran([one, one], kept)
    assert [(row.file, row.note) for row in kept.rows] == [(one, "")] * 2


def test_drawn_prompts_are_not_chosen_among_where_a_model_does_not_draw_them() -> None:
    with pytest.raises(ValueError, match="choosing among drawn prompts needs a checkpoint of Reprompt's or GIT's"):
        Captioning(inverter=StubInverter(), decoding={}, reranker=BayesRisk(lambda texts: np.zeros((len(texts), 2))))
