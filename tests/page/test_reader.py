"""What the page asks of a model, and what a visitor is told when it cannot be had."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.EpsImagePlugin
import pytest
from archives import encoded
from examples import painted
from inverters import StubInverter, coloured, said, tiny_inverter
from PIL import Image, ImageOps, PngImagePlugin

import caption
import page.reader
from diffusion.pipelines import PipelineError
from evaluation.captioners import About, Caption, CaptionerError
from inference.attention import lit, word_maps
from page.reader import PageError, Reader, explained

MARKUP = "<img src=x onerror=alert(1)>"


def saved(path: Path, image: Image.Image | None = None, **texts: str) -> str:
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    (image or painted("cat", "red")).save(path, "PNG", pnginfo=info)
    return str(path)


def pictures_that_differ_by_reader(directory: Path) -> dict[str, np.ndarray]:
    """A JPEG that asks to be turned, a PNG of 16 bits: name, and pixels as they are meant."""
    turned = Image.Exif()
    turned[274] = 6
    painted("cat", "red").save(directory / "turned.jpg", exif=turned, quality=95)
    deep = np.linspace(0, 65535, 1600).astype(np.uint16).reshape(40, 40)
    Image.fromarray(deep).save(directory / "deep.png")
    with Image.open(directory / "turned.jpg") as jpeg:
        upright = ImageOps.exif_transpose(jpeg).convert("RGB")
    return {"turned.jpg": np.asarray(upright), "deep.png": np.repeat((deep * (255 / 65535)).astype(np.uint8)[..., None], 3, 2)}


def test_the_page_caption_pil_and_arrays_give_one_prompt(tmp_path: Path) -> None:
    inverter = tiny_inverter()
    inverter.save_pretrained(tmp_path / "model")
    pictures = pictures_that_differ_by_reader(tmp_path)
    files = tuple(tmp_path / name for name in pictures)
    caption.main(caption.CaptionConfig(paths=files, checkpoint=str(tmp_path / "model"), jsonl=tmp_path / "out.jsonl", ignore_metadata=True))
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    for file, line in zip(files, lines, strict=True):
        of_page = Reader(inverter).read(str(file), num_beams=4)
        with Image.open(file) as opened:
            of_pil = inverter.predict(opened)
        of_array = inverter.predict(pictures[file.name])
        assert of_page["prompt"] == line["prompt"] == of_pil.prompt == of_array.prompt
        assert of_page["confidence"] == line["confidence"] == round(of_pil.confidence, 4) == round(of_array.confidence, 4)
        assert of_page["file"] == file.name
        with Image.open(file) as opened:
            careless = inverter.predict(np.asarray(opened.convert("RGB") if file.suffix == ".jpg" else opened.convert("L").convert("RGB")))
        assert careless.score != of_pil.score  # who takes the pixels as they lie sees something else


def test_a_row_has_alternatives_parts_and_metadata_beside(tmp_path: Path) -> None:
    inverter = tiny_inverter()
    path = saved(tmp_path / "a.png", parameters="a castle\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5")
    found = Reader(inverter).read(path, num_beams=3, num_return_sequences=3)
    expected = inverter.predict(path, num_beams=3, num_return_sequences=3)
    assert found["prompt"] == expected.prompt
    assert [one["prompt"] for one in found["alternatives"]] == [one.prompt for one in expected.alternatives]
    assert {"subject", "medium", "modifiers", "score", "familiarity", "note"} <= found.keys()
    assert (found["metadata"], found["misread_metadata"], found["source"]) == ("a castle", "", "model")
    json.dumps(found)
    assert Reader(inverter).read(saved(tmp_path / "b.png"))["metadata"] is None
    assert Reader(inverter).read(None) == Reader(inverter).read("") == {}


def test_metadata_that_are_not_understood_cost_nothing_but_themselves(tmp_path: Path) -> None:
    found = Reader(tiny_inverter()).read(saved(tmp_path / "a.png", prompt='{"1": {"class_type": "KSampler", "inputs": {}}}'))
    assert found["metadata"] is None
    assert found["misread_metadata"]
    assert found["prompt"]


def test_a_grid_of_pictures_is_known_by_its_name_too(tmp_path: Path) -> None:
    reader, text = Reader(tiny_inverter()), "a castle\nSteps: 20, Sampler: Euler a, Seed: 5, Size: 64x64"
    for name, metadata in (("grid-0001.png", None), ("one.png", "a castle")):
        assert reader.read(saved(tmp_path / name, Image.new("RGB", (64, 140)), parameters=text))["metadata"] == metadata


def test_unfamiliar_pictures_are_said_to_be_so() -> None:
    for familiarity, familiar in ((0.5, True), (0.0, False), (None, True)):
        row = Reader(StubInverter()).as_row("a.png", said("a cat", familiarity=familiarity))  # type: ignore[arg-type]
        assert (row.note == "") == familiar
        assert familiar or "unlike anything this model was trained on" in row.note


def test_what_the_page_says_of_familiarity_is_what_the_prediction_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inverter = tiny_inverter()
    for familiarity, familiar in ((0.5, True), (0.0, False)):
        monkeypatch.setattr(inverter, "predict", lambda *_, known=familiarity, **__: said("a cat", familiarity=known))
        found = Reader(inverter).read(saved(tmp_path / "a.png"))
        assert (found["is_familiar"], found["familiarity"], found["note"] == "") == (familiar, familiarity, familiar)


def test_metadata_and_names_stay_text(tmp_path: Path) -> None:
    """Errors are shown as HTML, so that in them nothing may be markup; all else is shown as text, and stays as it is."""
    reader = Reader(tiny_inverter())
    found = reader.read(saved(tmp_path / f"{MARKUP}.png", parameters=f"<script>alert(1)</script>\n{MARKUP}\nSteps: 20, Sampler: x, Seed: 5"))
    assert found["metadata"] == f"<script>alert(1)</script>\n{MARKUP}"
    assert found["file"] == f"{MARKUP}.png"
    bad = tmp_path / f"{MARKUP} & <script>alert(1)<\n.png"
    bad.write_bytes(b"no picture")
    for ask in (reader.read, reader.shown, lambda path: reader.words(path, "a cat"), reader.compared):
        with pytest.raises(PageError) as error:
            ask(str(bad))
        message = str(error.value)
        assert message.startswith("&lt;img src=x onerror=alert(1)&gt; &amp; &lt;script&gt;alert(1)&lt;\\n.png: not a readable image")
        assert not re.search(r"[<>\n]|&(?!amp;|lt;|gt;)", message)
        assert str(tmp_path) not in message


def test_errors_of_prefixes_are_escaped_too(tmp_path: Path) -> None:
    with pytest.raises(PageError, match=r"^prefix '&lt;b&gt;cat' holds the banned word 'cat'$"):
        Reader(tiny_inverter()).read(saved(tmp_path / "a.png"), prefix="<b>cat", bad_words=["cat"])


def test_an_eps_by_another_name_reaches_no_ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PIL.EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    path = tmp_path / "x.png"
    painted("cat", "red").save(path, "EPS")
    with Image.open(path) as opened:
        assert opened.format == "EPS"  # which Pillow would take
    reader = Reader(tiny_inverter(), baselines={"blind": lambda: Says("a cat")})
    for ask in (reader.read, reader.shown, lambda path: reader.words(path, "a cat"), reader.compared):
        with pytest.raises(PageError, match=r"^x\.png: not a readable image"):
            ask(str(path))


def test_an_upload_that_is_gone_or_too_large_is_named_without_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(tiny_inverter())
    for ask in (reader.read, reader.shown, lambda path: reader.words(path, "a cat")):
        with pytest.raises(PageError) as error:
            ask(str(tmp_path / "gone.png"))
        assert "gone.png" in str(error.value)
        assert str(tmp_path) not in str(error.value)
    path = saved(tmp_path / "a.png")
    monkeypatch.setattr(page.reader, "MOST_BYTES", Path(path).stat().st_size)
    assert reader.read(path)
    monkeypatch.setattr(page.reader, "MOST_BYTES", Path(path).stat().st_size - 1)
    with pytest.raises(PageError, match=r"^a\.png: larger than 0 MB$"):
        reader.read(path)


def test_errors_that_nobody_foresaw_are_not_shown_to_visitors() -> None:
    with pytest.raises(ZeroDivisionError), explained():
        raise ZeroDivisionError("secrets")


def test_words_and_their_maps_are_those_of_the_network(tmp_path: Path) -> None:
    inverter = tiny_inverter()
    path = saved(tmp_path / "a.png")
    reader, image = Reader(inverter), Image.open(path).convert("RGB")
    expected = word_maps(inverter, image, "a cat, two dogs")
    assert [one.word for one in reader.words(path, "a cat, two dogs")] == ["a", "cat", "two", "dogs"]
    for number, one in enumerate(expected):
        assert reader.looked(path, "a cat, two dogs", number).tobytes() == lit(image, one.where, inverter.preprocess).tobytes()
    assert reader.words(None, "a cat") == reader.words(path, " \n") == []


@pytest.mark.parametrize("number", [4, -1, 10**12, float("nan"), float("inf"), "x", [1]])
def test_words_that_there_are_not_are_named(tmp_path: Path, number: Any) -> None:
    with pytest.raises(PageError, match=r"there is no such word|cannot convert|invalid literal|must be a string"):
        Reader(tiny_inverter()).looked(saved(tmp_path / "a.png"), "a cat, two dogs", number)


def test_a_network_of_transformers_does_not_say_where_it_looks(tmp_path: Path) -> None:
    reader = Reader(StubInverter())  # type: ignore[arg-type]
    path = saved(tmp_path / "a.png")
    assert reader.words(path, "a cat") == []
    with pytest.raises(PageError, match="this model does not say where it looks"):
        reader.looked(path, "a cat", 0)


def test_pictures_are_sent_back_small_and_upright(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[274] = 6
    Image.new("RGB", (3000, 1500), "red").save(tmp_path / "a.jpg", exif=turned)
    reader = Reader(tiny_inverter())
    assert reader.shown(str(tmp_path / "a.jpg")).size == (512, 1024)
    assert reader.looked(str(tmp_path / "a.jpg"), "a cat", 1).size == (512, 1024)
    assert reader.shown(saved(tmp_path / "small.png", coloured(1))).size == (8, 8)


def test_without_a_diffusion_model_nothing_is_painted() -> None:
    with pytest.raises(PageError, match=r"this page was started without a diffusion model \(--paint\)"):
        Reader(tiny_inverter()).painted("a cat", 0)


def test_a_diffusion_model_is_loaded_once_and_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load(name: str, device: Any) -> tuple[Callable[[Sequence[str], Sequence[int]], list[Image.Image]], str]:
        asked.append((name, str(device)))

        def render(prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
            if prompts[0] == "broken":
                raise PipelineError("1 of 1 pictures could not be painted: <b>")
            asked.append((*prompts, *seeds))
            return [coloured(9)]

        return render, name

    monkeypatch.setattr(page.reader, "painting_with", load)
    reader = Reader(tiny_inverter(), paint="mini")
    with pytest.raises(PageError, match="there is no prompt to paint"):
        reader.painted(" \n", 0)
    assert asked == []
    assert reader.painted("a cat", 7).getpixel((0, 0)) == (9, 20, 30)
    reader.painted("two dogs", 2.0)
    reader.painted("huge", 1 << 63)
    assert asked == [("mini", "cpu"), ("a cat", 7), ("two dogs", 2), ("huge", 0)]
    for prompt, seed, message in (("broken", 0, "could not be painted: &lt;b&gt;"), ("a cat", float("inf"), "infinity")):
        with pytest.raises(PageError, match=message):
            reader.painted(prompt, seed)


class Says:
    """A baseline that says, or raises, what it is told."""

    about = About()

    def __init__(self, *texts: str | Exception, confidence: float | None = None) -> None:
        self.texts, self.confidence, self.seen = list(texts), confidence, list[tuple[int, int]]()

    def caption(self, images: Sequence[Image.Image]) -> list[Caption]:
        self.seen += [image.size for image in images]
        text = self.texts.pop(0) if len(self.texts) > 1 else self.texts[0]
        if isinstance(text, Exception):
            raise text
        return [Caption(text, self.confidence)]


def test_a_baseline_that_fails_costs_its_own_row(tmp_path: Path) -> None:
    built: list[str] = []
    known = {
        "sure": Says("a cat", confidence=0.125),
        "silent": Says(RuntimeError("\n out of memory \x1b[31m\nat line 3"), "two dogs"),
        "wordless": Says(KeyError()),
    }

    def build(name: str) -> Callable[[], Any]:
        def now() -> Any:
            built.append(name)
            if name == "missing":
                raise CaptionerError("there are no weights of it here; download them")
            return known[name]

        return now

    reader = Reader(tiny_inverter(), baselines={name: build(name) for name in ("missing", "sure", "silent", "wordless")})
    path = saved(tmp_path / "a.png")
    ours, missing, sure, silent, wordless = reader.compared(path)
    expected = reader.inverter.predict(path)
    assert ours[:3] == ("reprompt", expected.prompt, f"{expected.confidence:.2f}")
    assert missing == ("missing", "failed: there are no weights of it here; download them", "", "")
    assert sure[:3] == ("sure", "a cat", "0.12")
    assert silent == ("silent", "failed: out of memory \\x1b[31m", "", "")
    assert wordless == ("wordless", "failed: KeyError", "", "")
    for row in (ours, sure):
        assert re.fullmatch(r"\d+\.\d\d", row[3])
    assert reader.compared(path)[3][:3] == ("silent", "two dogs", "")
    # what was built is kept, and what was not is tried again
    assert built == ["missing", "sure", "silent", "wordless", "missing"]
    assert known["sure"].seen == [(64, 64)] * 2
    assert reader.compared(None) == reader.compared("") == []


def test_pictures_that_cannot_be_read_are_named_before_a_baseline_is_built(tmp_path: Path) -> None:
    reader = Reader(tiny_inverter(), baselines={"never": lambda: pytest.fail("it was built")})
    (tmp_path / "a.png").write_bytes(encoded()[:40])
    with pytest.raises(PageError, match=r"^a\.png: not a readable image"):
        reader.compared(str(tmp_path / "a.png"))
