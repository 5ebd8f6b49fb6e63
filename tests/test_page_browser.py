"""The page as a visitor has it: a real browser at a page that app.py serves."""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil
import pytest
from archives import encoded
from commands import ROOT, free_port
from gradio_client import Client, handle_file
from PIL import Image, PngImagePlugin

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine: apt-get install chromium")]

EXAMPLES = ROOT / "docs" / "examples"
PATIENCE = 20_000  # milliseconds


def truth(number: int) -> str:
    return (EXAMPLES / f"{number}.txt").read_text().strip()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    port = free_port()
    line = [sys.executable, str(ROOT / "app.py"), "--port", str(port), "--compare", "constant", "blip=/no/such/directory"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        for _ in range(600):
            try:
                httpx.get(f"http://127.0.0.1:{port}")
                break
            except httpx.TransportError:
                assert process.poll() is None
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
        # and it listened on this machine alone
        assert {one.laddr.ip for one in psutil.Process(process.pid).net_connections("inet") if one.status == psutil.CONN_LISTEN} == {"127.0.0.1"}
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visitor:
    """A window of a visitor's own."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        context = browser.new_context(**({"viewport": {"width": 1200, "height": 900}} | options))
        context.set_default_timeout(PATIENCE)
        self.page = context.new_page()
        self.asked: list[str] = []
        self.mistakes: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.mistakes.append(str(error)))
        self.page.goto(address)
        self.page.wait_for_selector("#read")

    def close(self) -> None:
        """And nothing went wrong, and nothing was asked of anybody else."""
        hosts = {urlsplit(url).hostname for url in self.asked if not url.startswith(("data:", "blob:"))}
        self.page.context.close()
        assert self.mistakes == []
        assert hosts == {"127.0.0.1"}

    def send(self, path: Path, into: str = "#picture") -> None:
        if self.page.locator(f"{into} button[aria-label='Remove Image']").count():
            self.page.click(f"{into} button[aria-label='Remove Image']")
        self.page.wait_for_selector(f"{into} input[type=file]", state="attached")
        self.page.set_input_files(f"{into} input[type=file]", str(path))

    def prompt_becomes(self, text: str) -> None:
        sync_api.expect(self.page.locator("#prompt textarea")).to_have_value(text, timeout=PATIENCE)

    def words_become(self, *words: str) -> None:
        """Each has a percentage behind it."""
        labels = [re.compile(rf"^\s*{re.escape(word)}\s+\d+%$") for word in words]
        sync_api.expect(self.page.locator("#words label")).to_have_text(labels, timeout=PATIENCE)

    def picture(self, place: str, other_than: str = "") -> str:
        """Where the picture there comes from, when it is another one."""
        self.page.wait_for_function(
            "([place, other]) => { const image = document.querySelector(`${place} img`); return image && image.complete && image.src !== other }",
            arg=[place, other_than],
        )
        return str(self.page.get_attribute(f"{place} img", "src"))

    def pixels(self, source: str) -> np.ndarray:
        with Image.open(io.BytesIO(self.page.request.get(source).body())) as image:
            return np.asarray(image.convert("RGB"), dtype=np.float64)

    def go_to(self, tab: str) -> None:
        wanted = self.page.get_by_role("tab", name=tab)
        if not wanted.is_visible():  # on a narrow screen it lies in a menu
            self.page.click(".overflow-menu > button")
            self.page.click(f".overflow-dropdown button:has-text('{tab}')")
        else:
            wanted.click()

    def width_needed(self) -> int:
        return int(self.page.evaluate("document.documentElement.scrollWidth"))


@pytest.fixture
def visitor(browser: Any, address: str) -> Iterator[Visitor]:
    visitor = Visitor(browser, address)
    yield visitor
    visitor.close()


def test_a_picture_is_read_and_shows_where_the_model_looks(visitor: Visitor) -> None:
    page = visitor.page
    visitor.send(EXAMPLES / "1.png")
    visitor.prompt_becomes(truth(1))
    visitor.words_become(*truth(1).split())
    assert "that it is right word for word" in page.input_value("#sure textarea")
    assert not page.locator("#notice").is_visible()
    with Image.open(EXAMPLES / "1.png") as image:
        original = np.asarray(image.convert("RGB"), dtype=np.float64)
    # by the mouse
    page.hover("#words label:has-text('panda')")
    hovered = visitor.picture("#where")
    first = visitor.pixels(hovered)
    assert first.shape == original.shape
    assert first.mean() < original.mean()
    assert page.locator("#words input:checked").count() == 1
    # by the keyboard: Tab goes there, arrows go on
    page.mouse.move(5, 5)
    page.focus("#words label:nth-of-type(1) input")
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    sync_api.expect(page.locator("#words label:nth-of-type(3) input")).to_be_checked()
    third = visitor.picture("#where", hovered)
    page.keyboard.press("ArrowLeft")
    sync_api.expect(page.locator("#words label:nth-of-type(2) input")).to_be_checked()
    assert abs(visitor.pixels(visitor.picture("#where", third)) - first).mean() > 0.5
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")  # from the first to the last
    sync_api.expect(page.locator("#words label:last-of-type input")).to_be_checked()


def test_a_prompt_is_edited_replaced_by_a_candidate_and_painted(visitor: Visitor) -> None:
    page = visitor.page
    visitor.send(EXAMPLES / "1.png")
    visitor.words_become(*truth(1).split())
    page.fill("#prompt textarea", "a fox on a beach")
    visitor.words_become("a", "fox", "on", "a", "beach")
    page.hover("#words label:has-text('fox')")
    visitor.picture("#where")
    page.mouse.move(5, 5)
    page.click("#again")
    fox = visitor.picture("#painted")
    assert page.locator("#original img").is_visible()
    candidate = page.locator("#candidates label").nth(1)
    said = re.sub(r"\s+\(\d+%\)$", "", candidate.inner_text().strip())
    candidate.click()
    visitor.prompt_becomes(said)
    sync_api.expect(page.locator("#where img")).to_have_count(0)
    page.click("#again")
    again = visitor.picture("#painted", fox)
    assert abs(visitor.pixels(again) - visitor.pixels(fox)).mean() > 5
    visitor.send(EXAMPLES / "2.png")  # and what was painted of the picture before is gone
    visitor.prompt_becomes(truth(2))
    assert not page.locator("#painted img").is_visible()


def test_a_bad_file_is_told_in_words_and_the_page_works_on(visitor: Visitor, tmp_path: Path) -> None:
    page = visitor.page
    page.locator("button.gallery-item").first.click()  # an example is read as it is clicked
    visitor.prompt_becomes(truth(1))
    bad = tmp_path / "<img src=x onerror=window.bad=1>.png"
    bad.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    visitor.send(bad)
    toast = page.locator(".toast-body")
    sync_api.expect(toast).to_contain_text("not a readable image (damaged, or in no format that is read)")
    visitor.prompt_becomes("")
    assert page.locator("#words label").count() == 0
    assert page.evaluate("window.bad") is None
    toast.locator("button").click()
    visitor.send(EXAMPLES / "3.png")
    visitor.prompt_becomes(truth(3))
    page.click("#picture button[aria-label='Remove Image']")
    visitor.prompt_becomes("")


def test_metadata_are_shown_as_text_and_an_unfamiliar_picture_is_said_to_be_so(visitor: Visitor, tmp_path: Path) -> None:
    page, info = visitor.page, PngImagePlugin.PngInfo()
    written = "<script>window.bad=1</script><img src=x onerror=window.bad=1>"
    info.add_text("parameters", f"{written}\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 64x64")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png", pnginfo=info)
    visitor.send(tmp_path / "red.png")
    sync_api.expect(page.locator("#metadata textarea")).to_have_value(written)
    assert page.input_value("#notice textarea") == "Unlike anything this model was trained on; the prompt is a guess."
    page.click("text=Parts, and all that is known, as JSON")
    sync_api.expect(page.locator("#details")).to_contain_text("is_familiar")
    assert page.evaluate("window.bad") is None


def test_two_visitors_at_once_have_their_own_answers(visitor: Visitor, browser: Any, address: str) -> None:
    other = Visitor(browser, address)
    for round_ in range(2):
        one_sends, other_sends = (2, 6) if round_ == 0 else (5, 3)
        visitor.send(EXAMPLES / f"{one_sends}.png")
        other.send(EXAMPLES / f"{other_sends}.png")
        visitor.words_become(*truth(one_sends).replace(",", "").split())
        other.words_become(*truth(other_sends).replace(",", "").split())
        visitor.prompt_becomes(truth(one_sends))
        other.prompt_becomes(truth(other_sends))
    other.close()


def test_whoever_is_quicker_than_the_page_gets_the_last_that_was_asked_for(visitor: Visitor, address: str, tmp_path: Path) -> None:
    page = visitor.page
    visitor.send(EXAMPLES / "1.png")
    visitor.words_become(*truth(1).split())
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for number in range(120):
            archive.write(EXAMPLES / "2.png", f"{number}.png")
    client = Client(address, verbose=False, analytics_enabled=False, download_files=str(tmp_path))
    busy = client.submit([handle_file(str(tmp_path / "many.zip"))], api_name="/caption_files")  # others' pictures come first
    examples = page.locator("button.gallery-item")
    examples.nth(1).click()
    sync_api.expect(page.locator("#words label")).to_have_count(0, timeout=2000)  # at once
    for number in (3, 4, 6):
        examples.nth(number - 1).click()
        time.sleep(0.1)
    assert not busy.done()
    visitor.prompt_becomes(truth(6))
    visitor.words_become(*truth(6).replace(",", "").split())
    assert busy.result()[0] == "120 read, 0 failed."
    labels = page.locator("#words label")
    for number in (0, 3, 1):
        labels.nth(number).hover()
    sync_api.expect(labels.nth(1).locator("input")).to_be_checked()
    visitor.picture("#where")
    client.close()


def test_what_was_said_of_one_picture_is_not_said_of_the_next(visitor: Visitor, tmp_path: Path) -> None:
    """Also where both have one prompt, or the next cannot be read."""
    page = visitor.page
    visitor.send(EXAMPLES / "1.png")
    visitor.words_become(*truth(1).split())
    page.hover("#words label:has-text('panda')")
    visitor.picture("#where")
    page.locator("button.gallery-item").first.click()
    sync_api.expect(page.locator("#where img")).to_have_count(0)
    visitor.prompt_becomes(truth(1))
    visitor.words_become(*truth(1).split())
    assert page.locator("#words input:checked").count() == 0


def test_an_archive_goes_in_and_one_comes_out(visitor: Visitor, tmp_path: Path) -> None:
    page = visitor.page
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for number in (1, 2):
            archive.write(EXAMPLES / f"{number}.png", f"deep/{number}.png")
        archive.writestr("<b>bad<b>.png", encoded()[:30])
    visitor.go_to("Many pictures")
    visitor.send(tmp_path / "many.zip", into="#files")
    sync_api.expect(page.locator("#files")).to_contain_text("many")
    page.click("#read-many")
    sync_api.expect(page.locator("#done textarea")).to_have_value("2 read, 1 failed.")
    table = page.locator("#table")
    for text in (truth(1), "deep/2.png", "<b>bad<b>.png", "not a readable image"):
        sync_api.expect(table).to_contain_text(text)
    with page.expect_download() as download:
        page.locator("#archive a[href*='prompts.zip']").first.click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert archive.namelist() == ["deep/1.txt", "deep/2.txt", "prompts.csv"]
        assert archive.read("deep/2.txt").decode() == f"{truth(2)}\n"
        assert [row["prompt"] for row in csv.DictReader(io.StringIO(archive.read("prompts.csv").decode()))] == [truth(1), truth(2)]


def test_the_others_are_compared_with(visitor: Visitor) -> None:
    page = visitor.page
    visitor.go_to("Compare")
    visitor.send(EXAMPLES / "1.png", into="#other-picture")
    visitor.picture("#other-picture")
    assert page.locator("#other-picture").bounding_box()["width"] > 900
    page.click("#compare")
    table = page.locator("#compared")
    for text in ("reprompt", truth(1), "constant", "blip=/no/such/directory", "failed: "):
        sync_api.expect(table).to_contain_text(text)


def test_on_a_phone_nothing_scrolls_sideways(browser: Any, address: str) -> None:
    visitor = Visitor(browser, address, viewport={"width": 390, "height": 844}, has_touch=True)
    page = visitor.page
    assert visitor.width_needed() <= 390
    visitor.send(EXAMPLES / "1.png")
    visitor.words_become(*truth(1).split())
    page.locator("#words label:has-text('panda')").tap()
    visitor.picture("#where")
    page.click("#again")
    visitor.picture("#painted")
    assert visitor.width_needed() <= 390
    visitor.go_to("Many pictures")
    visitor.send(EXAMPLES / "1.png", into="#files")
    sync_api.expect(page.locator("#files")).to_contain_text("KB")
    page.click("#read-many")
    sync_api.expect(page.locator("#table")).to_contain_text(truth(1))
    assert visitor.width_needed() <= 390
    visitor.go_to("Compare")
    visitor.send(EXAMPLES / "1.png", into="#other-picture")
    visitor.picture("#other-picture")
    page.click("#compare")
    sync_api.expect(page.locator("#compared")).to_contain_text(truth(1))
    assert visitor.width_needed() <= 390
    visitor.close()


def contrast(one: str, other: str) -> float:
    """As WCAG has it, of two colours of CSS."""

    def light(colour: str) -> float:
        shares = [int(each) / 255 for each in re.findall(r"\d+", colour)[:3]]
        linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, bright = sorted((light(one), light(other)))
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_light_or_dark_as_the_visitor_likes_and_legible(browser: Any, address: str, scheme: str) -> None:
    visitor = Visitor(browser, address, color_scheme=scheme)
    page = visitor.page
    behind = "(element) => { for (let e = element; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; "
    behind += "if (!/, 0\\)|transparent/.test(c)) return c } return getComputedStyle(document.documentElement).backgroundColor }"
    ground = page.eval_on_selector("#title", behind)
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 384) == (scheme == "dark")
    visitor.send(EXAMPLES / "1.png")
    visitor.words_become(*truth(1).split())
    for place in ("#title h1", "#prompt textarea", "#sure textarea", "#words label:nth-of-type(2) span", "#read"):
        colour = page.eval_on_selector(place, "(element) => getComputedStyle(element).color")
        assert contrast(colour, page.eval_on_selector(place, behind)) >= 4.4, place
    visitor.close()
