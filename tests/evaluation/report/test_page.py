"""The page as a browser would take it apart."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from compared import Told, in_order, judge_of
from PIL import Image

from data.store.pairs import Pair
from evaluation.comparison import compare
from evaluation.report.gallery import gallery, marked
from evaluation.report.page import page
from evaluation.report.writing import write_report

EVIL = "<script>alert('x')</script> & \"quoted\" {{ 7 * 7 }}"


class Read(HTMLParser):
    """Tags, links and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attributes if name in ("src", "href", "xlink:href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def compared(count: int = 12) -> tuple:
    pairs = []
    for number in range(count):
        image = Image.new("RGB", (500, 400), (number, 99, 0))
        pairs.append(Pair(f"{number:03d}", image, f"picture {number} {EVIL}", {}))
    some = in_order(pairs)
    good = [f"picture {number} {EVIL}" if number < 9 else "wrong" for number in range(count)]
    bad = [EVIL if number % 2 else f"picture {number}" for number in range(count)]
    whole = compare({"ours": lambda: Told(good, 0.7), "other": lambda: Told(bad)}, some, judge_of(some))
    return whole, some


def test_all_text_is_shown_and_nothing_of_it_runs() -> None:
    whole, some = compared()
    found = Read(page(whole, some, title=f"title {EVIL}", about={"data": {"source": EVIL}, "seed": 0, "empty": {}}))
    assert "script" not in found.tags
    assert found.text.count(EVIL) >= 10
    assert f"title {EVIL}" in found.text
    assert "data.source" in found.text


def test_it_needs_nothing_from_outside() -> None:
    whole, some = compared()
    text = page(whole, some, title="t", about={})
    found = Read(text)
    assert all(source.startswith(("data:", "#")) for source in found.sources)
    assert not {"script", "link", "iframe", "object", "embed"} & set(found.tags)
    assert "@import" not in text
    assert "url(http" not in text
    assert found.tags.count("svg") == 2  # the metric and the reliability
    assert found.tags.count("img") == 24
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_the_gallery_shows_best_worst_random_and_where_two_differ() -> None:
    whole, some = compared()
    walls = {wall.title: [shown.key for shown in wall.shown] for wall in gallery(whole, some)}
    best, worst, drawn, differ = walls.values()
    assert [len(keys) for keys in walls.values()] == [6] * 4
    assert set(worst[:3]) == {"009", "010", "011"}
    assert not set(best) & {"009", "010", "011"}
    assert list(walls)[3] == "Where ours and other differ most"
    ours, other = (column.judgement.scores["similarity"] for column in whole.judged)
    gaps = abs(ours - other)
    assert min(gaps[int(key)] for key in differ) >= max(gaps[i] for i in range(12) if f"{i:03d}" not in differ) - 1e-9
    assert [shown.key for shown in gallery(whole, some)[2].shown] == drawn


def test_the_gallery_sets_the_first_beside_the_best_of_the_others_and_shows_each_picture_its_own() -> None:
    _, some = compared()
    true = [prompts[0] for prompts in some.references]
    told = {"ours": true, "poor": ["zzz"] * 12, "good": [*true[:11], "zzz"], "poorer": [""] * 12}
    walls = gallery(compare({name: (lambda texts=texts: Told(texts)) for name, texts in told.items()}, some, judge_of(some)), some)
    assert walls[3].title == "Where ours and good differ most"
    assert walls[3].shown[0].key == "011"
    assert len({shown.image for shown in walls[2].shown}) > 3  # of neighbouring colours some come out alike


def test_words_are_marked_as_often_as_the_other_side_says_them() -> None:
    assert marked("a Cat, a dog", "the CAT a") == [
        ("a", "same"),
        (" ", ""),
        ("Cat", "same"),
        (",", "other"),
        (" ", ""),
        ("a", "other"),
        (" ", ""),
        ("dog", "other"),
    ]
    assert marked("nai\u0308ve", "na\u00efve")[0][1] == "same" or "".join(piece for piece, _ in marked("nai\u0308ve", "na\u00efve")) == "nai\u0308ve"
    assert marked("", "x") == []


def test_the_files_of_a_report(tmp_path: Path) -> None:
    whole, some = compared()
    sheets = []

    def sheet(images: list[Image.Image], lines: list[str]) -> Image.Image:
        sheets.append((len(images), lines))
        return Image.new("RGB", (9, 9))

    write_report(tmp_path / "r", whole, some, title="A title", about={"seed": 0}, contact_sheet=sheet)  # type: ignore[arg-type]
    assert {path.name for path in (tmp_path / "r").iterdir()} == {"report.html", "report.md", "results.json", "predictions.jsonl", "samples.png"}
    assert (tmp_path / "r" / "report.md").read_text().startswith("# A title\n\n| metric")
    rows = [json.loads(line) for line in (tmp_path / "r" / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 12
    assert rows[0]["ours"]["text"] == rows[0]["prompts"][0]
    assert rows[0]["ours"]["confidence"] == 0.7
    assert rows[0]["ours"]["scores"]["exact_match"] == 1.0
    assert rows[11]["ours"]["scores"]["exact_match"] == 0.0
    assert json.loads((tmp_path / "r" / "results.json").read_text())["seed"] == 0
    assert sheets[0][0] == 12
    assert sheets[0][1][11].endswith("/ ours: wrong")


def test_where_all_failed_the_page_says_why() -> None:
    whole, some = compared(2)

    def broken() -> Told:
        raise OSError("gone")

    text = page(compare({"ours": broken}, some, judge_of(some)), some, title="t", about={})
    assert "OSError: gone" in Read(text).text
    with pytest.raises(TypeError):
        page(whole)  # type: ignore[call-arg]
