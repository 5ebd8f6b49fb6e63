"""What happens on the page, called as gradio calls it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from archives import encoded
from gradio import Error
from gradio.route_utils import delete_files_created_by_app
from inverters import StubInverter, coloured, said, tiny_inverter
from PIL import Image

from page.layout import build_page
from page.reader import Reader


def functions(page: Any) -> dict[str, Callable[..., Any]]:
    """By the names they have in the code."""
    return {one.name: one.fn for one in page.fns.values() if one.fn is not None}


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "gradio"
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    return folder


def found(prompt: str = "a cat", *others: str, **changes: Any) -> dict[str, Any]:
    row = Reader(StubInverter()).as_row("a.png", said(prompt, *others)).as_json()  # type: ignore[arg-type]
    return row | {"metadata": None, "misread_metadata": "", "is_familiar": True} | changes


def test_what_a_model_is_called_is_text() -> None:
    page = build_page(Reader(tiny_inverter()), name="a*b*_c_ <b>[x](y)`")
    (title,) = [block.value for block in page.blocks.values() if block.get_block_name() == "markdown"]
    assert title.endswith("Model: a\\*b\\*\\_c\\_ \\<b\\>\\[x\\]\\(y\\)\\`")


def test_tabs_are_what_there_is() -> None:
    def tabs(reader: Reader) -> list[str]:
        return [block.label for block in build_page(reader, name="m").blocks.values() if block.get_block_name() == "tabitem"]

    assert tabs(Reader(tiny_inverter())) == ["One picture", "Many pictures"]
    assert tabs(Reader(tiny_inverter(), baselines={"blip": lambda: pytest.fail("it was built")})) == ["One picture", "Many pictures", "Compare"]
    assert "paint" not in functions(build_page(Reader(tiny_inverter()), name="m"))
    assert "paint" in functions(build_page(Reader(tiny_inverter(), paint="mini"), name="m"))


def test_what_was_found_is_shown() -> None:
    show = functions(build_page(Reader(tiny_inverter()), name="m"))["show"]
    notice, prompt, sure, candidates, metadata, details = show(found("a cat", "two dogs", familiarity=0.123, confidence=0.9))
    assert (notice["visible"], notice["value"]) == (False, "")
    assert (prompt, sure) == (
        "a cat",
        "90% that it is right word for word. Of pictures like those it was trained on, 12.3% are as strange to it as this one",
    )
    assert candidates["choices"] == [("a cat  (90%)", "a cat"), ("two dogs  (25%)", "two dogs")]
    assert (candidates["value"], candidates["visible"]) == ("a cat", True)
    assert metadata["visible"] is False
    assert details["prompt"] == "a cat"
    _, _, sure, candidates, metadata, _ = show(found(familiarity=None, metadata="<b>"))
    assert sure == "90% that it is right word for word"
    assert candidates["visible"] is False
    assert (metadata["visible"], metadata["value"]) == (True, "<b>")


def test_notes_are_sentences() -> None:
    show = functions(build_page(Reader(tiny_inverter()), name="m"))["show"]
    misread = "It has metadata of a known tool, but no prompt of its own in them."
    for changes, text in (
        ({"note": "unlike PIL"}, "Unlike PIL."),
        ({"misread_metadata": "x"}, misread),
        ({"note": "unlike PIL; a guess", "misread_metadata": "x"}, f"Unlike PIL; a guess. {misread}"),
    ):
        notice = show(found(**changes))[0]
        assert (notice["value"], notice["visible"]) == (text, True)


def test_what_was_drawn_twice_is_one_candidate() -> None:
    show = functions(build_page(Reader(tiny_inverter()), name="m"))["show"]
    choices = show(found("a cat", "two dogs", "a cat", "two dogs"))[3]["choices"]
    assert choices == [("a cat  (90%)", "a cat"), ("two dogs  (25%)", "two dogs")]


def test_without_a_picture_all_is_empty() -> None:
    page = functions(build_page(Reader(tiny_inverter()), name="m"))
    notice, prompt, sure, candidates, metadata, details = page["show"]({})
    assert (prompt, sure, details) == ("", "", {})
    assert not any(each["visible"] for each in (notice, candidates, metadata))
    assert page["predict"](None) == {}
    words, where = page["list_words"](None, "a cat")
    assert (words["visible"], words["choices"], where["visible"], where["value"]) == (False, [], False, None)
    assert page["attention"](None, "a cat", 0) is page["attention"]("a.png", "a cat", None) is None


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, {"num_beams": 4, "num_return_sequences": 3, "prefix": "", "bad_words": []}),
        ({"num_beams": 2.0, "num_return_sequences": 5.0}, {"num_beams": 5, "num_return_sequences": 5, "prefix": "", "bad_words": []}),
        (
            {"prefix": "a ", "bad_words": " cat, ,two dogs ,"},
            {"num_beams": 4, "num_return_sequences": 3, "prefix": "a ", "bad_words": ["cat", "two dogs"]},
        ),
        (
            {"do_sample": True, "temperature": 2, "seed": 7.0},
            {"num_return_sequences": 3, "prefix": "", "bad_words": [], "do_sample": True, "temperature": 2.0, "seed": 7},
        ),
        # what only drawing knows is not used where nothing is drawn
        ({"temperature": 2, "seed": 7}, {"num_beams": 4, "num_return_sequences": 3, "prefix": "", "bad_words": []}),
    ],
)
def test_options_are_those_of_decoding(monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], expected: dict[str, Any]) -> None:
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(Reader, "read", lambda self, picture, **decoding: seen.append(decoding) or {})
    functions(build_page(Reader(tiny_inverter()), name="m"))["predict"]("a.png", **asked)
    given = {name: value for name, value in seen[0].items() if name != "seed" or value is not None}
    assert given == expected


@pytest.mark.parametrize("asked", [{"num_beams": "x"}, {"num_return_sequences": float("inf")}, {"do_sample": True, "seed": "x"}])
def test_numbers_that_are_none_are_told_in_words(asked: dict[str, Any]) -> None:
    with pytest.raises(Error, match=r"invalid literal|cannot convert"):
        functions(build_page(Reader(tiny_inverter()), name="m"))["predict"]("a.png", **asked)


def test_words_come_with_how_sure_the_model_is_of_each(tmp_path: Path) -> None:
    coloured(1, 64).save(tmp_path / "a.png")
    reader = Reader(tiny_inverter())
    page = functions(build_page(reader, name="m"))
    words, where = page["list_words"](str(tmp_path / "a.png"), "a cat")
    expected = [(f"{one.word}  {one.confidence:.0%}", number) for number, one in enumerate(reader.words(str(tmp_path / "a.png"), "a cat"))]
    assert (words["choices"], words["value"], words["visible"], where["visible"]) == (expected, None, True, False)
    assert page["attention"](str(tmp_path / "a.png"), "a cat", 1).size == (64, 64)


def send(tmp_path: Path, count: int) -> list[tuple[str, str]]:
    files = []
    for red in range(count):
        coloured(red).save(tmp_path / f"{red}.png")
        files.append((str(tmp_path / f"{red}.png"), f"{red}.png"))
    return files


def test_many_pictures_are_read_in_batches_and_in_order(tmp_path: Path, uploads: Path) -> None:
    inverter, told = StubInverter(), list[int]()
    page = functions(build_page(Reader(inverter), name="m"))  # type: ignore[arg-type]
    files = send(tmp_path, 20)
    (tmp_path / "bad.png").write_bytes(encoded()[:30])
    files.insert(3, (str(tmp_path / "bad.png"), "b\nad.png"))
    done, rows, packed = page["caption_files"](files, progress=lambda steps, unit: told.append(steps[0]))
    assert done == "20 read, 1 failed."
    assert [row[:3] for row in rows[:20]] == [[f"{red}.png", f"picture {red}", "0.90"] for red in range(20)]
    assert rows[20][0] == "b\\nad.png"
    assert rows[20][3].startswith("failed: b\\nad.png: not a readable image")
    assert [len(batch) for batch in inverter.batches] == [16, 4]
    assert told == [17, 21]
    assert Path(packed).is_relative_to(uploads)


def test_results_are_kept_where_gradio_removes_them(tmp_path: Path, uploads: Path) -> None:
    page = build_page(Reader(StubInverter()), name="m")  # type: ignore[arg-type]
    packed = [functions(page)["caption_files"](send(tmp_path, 1), progress=lambda *_, **__: None)[2] for _ in range(2)]
    assert packed[0] != packed[1]  # of two visitors
    (archive,) = [block for block in page.blocks.values() if block.elem_id == "archive"]
    for path in packed:
        assert archive.move_resource_to_block_cache(path) == path  # taken as it lies, and not copied
    delete_files_created_by_app(page, None)
    assert not any(Path(path).exists() for path in packed)


def test_uploads_are_kept_for_an_hour_and_so_many_requests_wait() -> None:
    page = build_page(Reader(tiny_inverter()), name="m")
    assert page.delete_cache == (3600, 3600)  # looked for every hour, older than an hour
    assert page._queue.max_size == 64
    limits = {one.name: (one.concurrency_id, one.concurrency_limit) for one in page.fns.values()}
    assert {limits[name] for name in ("predict", "caption_files", "list_words", "attention")} == {("network", 1)}


def test_a_painted_picture_stands_beside_the_one_that_was_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coloured(1, 64).save(tmp_path / "a.png")
    asked: list[Any] = []
    monkeypatch.setattr(Reader, "painted", lambda self, *what: asked.append(what) or Image.new("RGB", (8, 8)))
    page = functions(build_page(Reader(tiny_inverter(), paint="mini"), name="m"))
    page["paint"](None, None)
    page["paint"]("a cat", 3)
    assert asked == [("", 0), ("a cat", 3)]
    painted, original = page["beside"](str(tmp_path / "a.png"))
    assert painted["visible"] is original["visible"] is True
    assert original["value"].size == (64, 64)
    painted, original = page["beside"](None)
    assert (painted["visible"], original["visible"], original["value"]) == (True, False, None)


def test_a_baseline_is_asked_for_when_somebody_compares() -> None:
    page = functions(build_page(Reader(tiny_inverter(), baselines={"x": lambda: pytest.fail("it was built")}), name="m"))
    assert page["compare"](None) == []
