"""What comes from a browser or a program is handed over as it was sent, and nothing else is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from gradio import Error
from gradio.data_classes import FileData, ImageData, ListFiles

import page.inputs
from page.inputs import FilesInput, PictureInput, WordsInput, picture_input


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where gradio keeps them."""
    folder = tmp_path / "gradio"
    (folder / "a").mkdir(parents=True)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    return folder


def test_a_picture_is_the_path_of_what_was_uploaded_and_is_not_opened(uploads: Path) -> None:
    path = uploads / "a" / "x.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    component = picture_input()
    assert component.preprocess(ImageData(path=str(path))) == str(path)
    assert path.read_bytes() == b"%!PS-Adobe-3.0 EPSF-3.0\n"
    assert component.preprocess(None) is component.preprocess(ImageData(url="http://127.0.0.1/x.png")) is None


def test_files_of_the_server_are_refused(uploads: Path, tmp_path: Path) -> None:
    """Whatever the request says of them: gradio itself looks only at payloads that say that they are files."""
    (tmp_path / "secret.png").write_bytes(b"secret")
    (uploads / "a" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "gradio-else").mkdir()
    for path in (
        tmp_path / "secret.png",
        uploads / ".." / "secret.png",
        uploads / "a" / "link.png",
        tmp_path / "gradio-else" / "x.png",
        "/etc/passwd",
        "secret.png",
        "file:///etc/passwd",
    ):
        for take in (
            lambda path: picture_input().preprocess(ImageData(path=path)),
            lambda path: FilesInput(file_count="multiple").preprocess(ListFiles([FileData(path=path)])),
        ):
            with pytest.raises(Error, match="This page reads no files of its machine: send the picture itself"):
                take(str(path))


@pytest.mark.parametrize("build", [picture_input, lambda: FilesInput(file_count="multiple")])
@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:9/x.png", "https://example.invalid/x.png", " HTTP://127.0.0.1:9/x.png", "ftp://host/x.png", "data:image/png;base64,AA"],
)
def test_addresses_are_not_fetched(build: Any, address: str) -> None:
    component = build()
    with pytest.raises(Error, match="This page fetches no addresses: send the picture itself"):
        component.move_resource_to_block_cache(address)
    with pytest.raises(Error, match="This page fetches no addresses: send the picture itself"):
        asyncio.run(component.async_move_resource_to_block_cache(address))


@pytest.mark.parametrize("build", [picture_input, lambda: FilesInput(file_count="multiple")])
def test_the_address_of_an_upload_is_its_path_and_that_of_any_other_file_is_refused(uploads: Path, tmp_path: Path, build: Any) -> None:
    path = uploads / "a" / "my picture.png"
    path.write_bytes(b"x")
    component = build()
    address = f"http://127.0.0.1:9/gradio_api/file={quote(str(path))}"
    assert component.move_resource_to_block_cache(address) == str(path)
    assert asyncio.run(component.async_move_resource_to_block_cache(address)) == str(path)
    (tmp_path / "secret.png").write_bytes(b"secret")
    for other in (tmp_path / "secret.png", f"{uploads}/../secret.png", f"{uploads}%2F..%2Fsecret.png", "http://127.0.0.1:9/x.png", ""):
        with pytest.raises(Error, match="This page reads no files of its machine"):
            component.move_resource_to_block_cache(f"http://127.0.0.1:9/gradio_api/file={other}")
    assert not list(uploads.rglob("secret.png"))


@pytest.mark.parametrize("build", [picture_input, lambda: FilesInput(file_count="multiple")])
def test_uploads_pass(uploads: Path, build: Any) -> None:
    path = uploads / "a" / "http.png"
    path.write_bytes(b"x")
    component = build()
    assert component.move_resource_to_block_cache(str(path)) == str(path)
    assert asyncio.run(component.async_move_resource_to_block_cache(path)) == str(path)
    assert component.move_resource_to_block_cache(None) is None


def test_files_come_with_the_names_they_were_sent_under(uploads: Path) -> None:
    path = uploads / "a" / "clean.png"
    path.write_bytes(b"x")
    component = FilesInput(file_count="multiple")
    names = ["my <b>picture&.png", "deep/er/x.png", "../../x.png", None]
    sent = component.preprocess(ListFiles([FileData(path=str(path), orig_name=name) for name in names]))
    assert sent == [(str(path), name) for name in ("my <b>picture&.png", "x.png", "x.png", "clean.png")]
    assert component.preprocess(FileData(path=str(path))) == [(str(path), "clean.png")]
    assert component.preprocess(None) == []


@pytest.mark.parametrize(("build", "name"), [(picture_input, "image"), (lambda: FilesInput(file_count="multiple"), "file"), (WordsInput, "radio")])
def test_a_component_that_changes_stays_what_it_is(build: Any, name: str) -> None:
    """Of one that is updated, as a picture is by a click on an example, gradio makes another one for the visitor: by its class and arguments."""
    component = build(label="before", render=False) if name != "file" else FilesInput(file_count="multiple", label="before", render=False)
    another = component.__class__(**(component.constructor_args | {"label": "after"}))
    assert type(another) is type(component)
    assert type(another).__module__ == "page.inputs"
    assert (another.label, another.get_block_name()) == ("after", name)


def test_any_word_may_be_asked_for() -> None:
    words = WordsInput([])
    assert [words.preprocess(one) for one in (3, None, "x")] == [3, None, "x"]
    assert words.api_info()["type"] == "integer"


def test_nothing_is_written_beside_the_source() -> None:
    assert not list(Path(page.inputs.__file__).parent.glob("*.pyi"))
    assert issubclass(PictureInput, page.inputs.gradio.Image)
