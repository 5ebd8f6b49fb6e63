"""What the page shows, and what happens when."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio

from data.errors import ImageError
from data.images import read_image
from inference.rows import Row, printable
from page.inputs import FilesInput, WordsInput, picture_input
from page.reader import PageError, Reader, explained
from page.sent import SentError, results_archive, sent_pictures

EXAMPLES = Path(__file__).resolve().parents[1] / "docs" / "examples"
MOST_WAITING = 64  # requests in the queue; more are told to come again
_KEPT_SECONDS = 3600  # uploads and results
_NETWORK = "network"  # of whose work one piece is done at a time
_BATCH = 16
_CANDIDATES = 3
_HEIGHT = 320  # of pictures, in pixels
_BUTTONS: Any = ["download", "fullscreen"]  # and none that sends them elsewhere
_PROGRESS = gradio.Progress()
_HIDDEN: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
_LAST: dict[str, Any] = {"trigger_mode": "always_last"}  # however quick a visitor is, what is asked for last is done


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except PageError as error:
        raise gradio.Error(str(error), print_exception=False) from error


def build_page(reader: Reader, *, name: str) -> Any:
    """The page, a `gradio.Blocks`.

    Args:
        name: of the model, to show.
    """
    with gradio.Blocks(title="Reprompt", analytics_enabled=False, delete_cache=(_KEPT_SECONDS, _KEPT_SECONDS)) as page:
        gradio.Markdown(f"# Reprompt\nThe prompt behind a generated picture. Model: {_plain(name)}", elem_id="title")
        with gradio.Tab("One picture"):
            _one(reader)
        with gradio.Tab("Many pictures"):
            _many(reader)
        if reader.baselines:
            with gradio.Tab("Compare"):
                _compare(reader)
    page.queue(max_size=MOST_WAITING, default_concurrency_limit=4)
    return page


def _plain(text: str) -> str:
    """Without what Markdown would read."""
    return "".join(f"\\{sign}" if sign in "\\`*_{}[]<>()#+-!|~" else sign for sign in text)


def _one(reader: Reader) -> None:
    with gradio.Row():
        with gradio.Column(min_width=300):
            picture = picture_input(label="Picture: drop, paste or pick", height=_HEIGHT, elem_id="picture", alt_text="The picture to read")
            asked = gradio.Button("Read its prompt", variant="primary", elem_id="read")
            options = _options()
            gradio.Examples([[str(path)] for path in sorted(EXAMPLES.glob("*.png"))], [picture], label="Examples", cache_examples=False)
        with gradio.Column(min_width=300):
            notice = gradio.Textbox(label="Good to know", elem_id="notice", visible=False, interactive=False)
            prompt = gradio.Textbox(label="Prompt (yours to edit)", lines=2, buttons=["copy"], elem_id="prompt", interactive=True)
            sure = gradio.Textbox(label="How sure", interactive=False, elem_id="sure")
            candidates = gradio.Radio([], label="Candidates: pick one to take it", elem_id="candidates", visible=False)
            metadata = gradio.Textbox(
                label="The prompt in its metadata", lines=2, buttons=["copy"], elem_id="metadata", visible=False, interactive=False
            )
            words = WordsInput([], label="Words: hover or pick one to see where the model looks for it", elem_id="words", visible=False)
            where = gradio.Image(
                label="Where it looks",
                elem_id="where",
                height=_HEIGHT,
                visible=False,
                interactive=False,
                buttons=_BUTTONS,
                alt_text="Bright where it looks",
            )
            with gradio.Accordion("Parts, and all that is known, as JSON", open=False):
                details = gradio.JSON(label="Details", elem_id="details")
    if reader.paint:
        with gradio.Row(equal_height=True):
            seed = gradio.Number(0, label="Seed", precision=0, minimum=0, min_width=100, scale=1)
            again = gradio.Button("Make it again: paint the prompt above", elem_id="again", min_width=160, scale=3)
        with gradio.Row():
            about: dict[str, Any] = {"interactive": False, "height": _HEIGHT, "visible": False, "buttons": _BUTTONS, "min_width": 280}
            original = gradio.Image(label="The picture", elem_id="original", alt_text="The picture that was sent", **about)
            painted = gradio.Image(label="Painted from the prompt", elem_id="painted", alt_text="Painted from the prompt", format="png", **about)

        def paint(prompt: str, seed: float = 0) -> Any:
            """Paint a prompt.

            Args:
                prompt: what to paint.
                seed: the same one paints the same picture.
            """
            with _told():
                return reader.painted(prompt or "", seed or 0)

        def beside(path: str | None) -> list[Any]:
            if not path:
                return [gradio.update(visible=True), _gone()]
            with _told():
                return [gradio.update(visible=True), gradio.update(value=reader.shown(path), visible=True)]

        painting = again.click(paint, [prompt, seed], painted, api_name="paint", concurrency_limit=1, concurrency_id="paint")
        painting.success(beside, picture, [painted, original], **_HIDDEN, **_LAST)
        picture.change(lambda: [_gone(), _gone()], None, [painted, original], queue=False, **_HIDDEN, **_LAST)

    def predict(
        picture: str | None,
        num_beams: float = 4,
        num_return_sequences: float = _CANDIDATES,
        do_sample: bool = False,
        temperature: float = 1.0,
        seed: float | None = None,
        prefix: str = "",
        bad_words: str = "",
    ) -> dict[str, Any]:
        """Write the prompt of a picture.

        Args:
            picture: the picture's file; of an agent as data:image/png;base64,...
            num_beams: hypotheses kept while searching.
            num_return_sequences: prompts to write, best first.
            do_sample: draw prompts instead of searching.
            temperature: of drawing.
            seed: of drawing.
            prefix: how every prompt starts.
            bad_words: words not to write, with commas between.

        Returns:
            The prompt with its confidence, the picture's familiarity, alternatives, subject, medium and modifiers, and the prompt in its metadata.
        """
        with _told():
            return reader.read(picture, **_decoding(num_beams, num_return_sequences, do_sample, temperature, seed, prefix, bad_words))

    def show(found: dict[str, Any]) -> list[Any]:
        if not found:
            return [gradio.update(visible=False), "", "", *[gradio.update(visible=False)] * 2, {}]
        notes = [f"{found['note'][0].upper()}{found['note'][1:]}."] if found["note"] else []
        notes += ["It has metadata of a known tool, but no prompt of its own in them."] if found["misread_metadata"] else []
        sure = f"{found['confidence']:.0%} that it is right word for word"
        if found["familiarity"] is not None:
            sure += f". Of pictures like those it was trained on, {found['familiarity']:.1%} are as strange to it as this one"
        each = {one["prompt"]: one["confidence"] for one in (*found["alternatives"], found)}  # of what was drawn twice once
        choices = [(f"{prompt}  ({each[prompt]:.0%})", prompt) for prompt in {found["prompt"]: None} | each]
        return [
            gradio.update(value=" ".join(notes), visible=bool(notes)),
            found["prompt"],
            sure,
            gradio.update(choices=choices, value=found["prompt"], visible=len(choices) > 1),
            gradio.update(value=found["metadata"] or "", visible=bool(found["metadata"])),
            found,
        ]

    def list_words(path: str | None, text: str) -> list[Any]:
        with _told():
            maps = reader.words(path, text or "")
        choices = [(f"{one.word}  {one.confidence:.0%}", number) for number, one in enumerate(maps)]
        return [gradio.update(choices=choices, value=None, visible=bool(choices)), _gone()]

    def attention(picture: str | None, prompt: str, word: int | None) -> Any:
        """Where in the picture the model looks for a word of a prompt.

        Args:
            picture: the picture's file; of an agent as data:image/png;base64,...
            prompt: the model's, or any other.
            word: its number in the prompt, from 0; commas are no words.

        Returns:
            The picture, light where the model looks and dark elsewhere.
        """
        if word is None or not picture:
            return None
        with _told():
            return reader.looked(picture, prompt or "", word)

    shown = [notice, prompt, sure, candidates, metadata, details]
    one_at_a_time: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": _NETWORK}
    asking = asked.click(predict, [picture, *options], details, api_name="predict", **one_at_a_time)
    sent = picture.change(lambda: [*show({}), _gone(), _gone()], None, [*shown, words, where], queue=False, **_HIDDEN, **_LAST)
    for reading in (asking, sent.then(predict, [picture, *options], details, api_visibility="private", **one_at_a_time, **_LAST)):
        reading.success(show, details, shown, **_HIDDEN, **_LAST)
    candidates.input(lambda text: text, candidates, prompt, **_HIDDEN, **_LAST)
    prompt.change(list_words, [picture, prompt], [words, where], **_HIDDEN, **one_at_a_time, **_LAST)
    looking = words.change(attention, [picture, prompt, words], where, api_name="attention", show_progress="hidden", **one_at_a_time, **_LAST)
    looking.success(lambda number: gradio.update(visible=number is not None), words, where, **_HIDDEN, **_LAST)


def _table(headers: list[str], widths: list[str | int], **options: Any) -> Any:
    """Of texts, which are shown whole."""
    return gradio.Dataframe(headers=headers, column_widths=widths, datatype="str", wrap=True, interactive=False, **options)


def _gone() -> Any:
    return gradio.update(visible=False, value=None)


def _options() -> list[Any]:
    with gradio.Accordion("How prompts are written", open=False):
        beams = gradio.Slider(1, 16, 4, step=1, label="Beams: hypotheses kept while searching")
        count = gradio.Slider(1, 8, _CANDIDATES, step=1, label="Candidates")
        sample = gradio.Checkbox(False, label="Draw prompts by chance instead of searching for the likeliest")
        temperature = gradio.Slider(0.1, 3, 1, step=0.1, label="Temperature: above 1 more varied (drawing)")
        seed = gradio.Number(None, label="Seed: the same prompts each time (drawing)", precision=0)
        prefix = gradio.Textbox("", label="How every prompt must start", max_length=500)
        ban = gradio.Textbox("", label="Words that must not be written, with commas between", max_length=500)
    return [beams, count, sample, temperature, seed, prefix, ban]


def _decoding(beams: float, count: float, sample: bool, temperature: float, seed: float | None, prefix: str, ban: str) -> dict[str, Any]:
    """As `inference.Decoding` has it."""
    about: dict[str, Any] = {"prefix": prefix or "", "bad_words": [word.strip() for word in (ban or "").split(",") if word.strip()]}
    with explained():
        about["num_return_sequences"] = int(count)
        if sample:
            return about | {"do_sample": True, "temperature": float(temperature), "seed": None if seed is None else int(seed)}
        return about | {"num_beams": max(int(beams), int(count))}


def _many(reader: Reader) -> None:
    files = FilesInput(label="Pictures, or ZIPs of them", file_count="multiple", elem_id="files", height=200)
    asked = gradio.Button("Read their prompts", variant="primary", elem_id="read-many")
    done = gradio.Textbox(label="Done", interactive=False, elem_id="done")
    table = _table(["file", "prompt", "confidence", "good to know"], ["24%", "36%", "14%", "26%"], label="Prompts", elem_id="table")
    archive = gradio.File(label="A ZIP with a text for each picture and a table (prompts.csv)", interactive=False, elem_id="archive")

    def caption_files(files: Sequence[tuple[str, str]], progress: Any = _PROGRESS) -> tuple[str, list[list[str]], str | None]:
        """Write the prompts of several pictures.

        Args:
            files: pictures, or ZIP archives of them; of an agent as data:image/png;base64,...

        Returns:
            How many, a row for each (file, prompt, confidence, what must be known), and a ZIP of texts with a table.
        """
        rows: list[tuple[str, Row]] = []
        failed: list[tuple[str, str]] = []
        waiting: list[tuple[str, Any]] = []

        def read() -> None:
            images = [image for _, image in waiting]
            for (name, _), prediction in zip(waiting, reader.inverter.predict(images, batch_size=_BATCH) if images else [], strict=True):
                rows.append((name, reader.as_row(name, prediction)))
            waiting.clear()
            progress((len(rows) + len(failed), None), unit="pictures")

        with _told(), explained(), sent_pictures(files) as pictures:
            for name, content in pictures:
                try:
                    waiting.append((name, reader.inverter.reduced(read_image(content(), name))))
                except (ImageError, SentError) as error:
                    failed.append((name, str(error)))
                if len(waiting) == _BATCH:
                    read()
            read()
        said = [[printable(name), row.prompts[0], f"{row.prediction.confidence:.2f}" if row.prediction else "", row.note] for name, row in rows]
        said += [[printable(name), "", "", f"failed: {printable(why)}"] for name, why in failed]
        if not said:
            return "There are no pictures in what was sent.", [], None
        return f"{len(rows)} read, {len(failed)} failed.", said, packed(rows) if rows else None

    def packed(rows: Sequence[tuple[str, Row]]) -> str:
        """Where gradio keeps files and deletes them."""
        Path(archive.GRADIO_CACHE).mkdir(parents=True, exist_ok=True)
        path = Path(tempfile.mkdtemp(dir=archive.GRADIO_CACHE)) / "prompts.zip"
        results_archive(rows, path)
        return str(path)

    asked.click(caption_files, files, [done, table, archive], api_name="caption_files", concurrency_limit=1, concurrency_id=_NETWORK)


def _compare(reader: Reader) -> None:
    picture = picture_input(label="Picture", height=_HEIGHT, elem_id="other-picture", alt_text="The picture to compare on")
    asked = gradio.Button("Compare", variant="primary", elem_id="compare")
    headers = ["captioner", "prompt", "confidence", "seconds"]
    table = _table(headers, ["20%", "50%", "16%", "14%"], label="What each writes", elem_id="compared")

    def compare(picture: str | None) -> list[list[str]]:
        """What our model and each baseline write for a picture.

        Args:
            picture: the picture's file; of an agent as data:image/png;base64,...

        Returns:
            A row for each: name, prompt, confidence, seconds.
        """
        with _told():
            return [list(row) for row in reader.compared(picture)]

    asked.click(compare, picture, table, api_name="compare", concurrency_limit=1, concurrency_id=_NETWORK)
