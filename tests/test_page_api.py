"""The page's functions as programs and agents call them, at a page that app.py serves."""

from __future__ import annotations

import asyncio
import base64
import csv
import io
import json
import socket
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio
import httpx
import numpy as np
import pytest
from archives import encoded
from commands import ROOT, free_port
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

import app
from inference import PromptInverter

EXAMPLE = ROOT / "docs" / "examples" / "1.png"
TRUTH = EXAMPLE.with_suffix(".txt").read_text().strip()
ENDPOINTS = {"/predict", "/attention", "/paint", "/caption_files", "/compare"}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a page that app.py serves from a thread of this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        served: list[Any] = []
        launch = gradio.Blocks.launch
        patch.setattr(gradio.Blocks, "launch", lambda page, **how: served.append(page) or launch(page, **how, prevent_thread_lock=True))
        port = free_port()
        app.main(app.AppConfig(port=port, compare=("constant", "blip=/no/such/directory"), mcp=True))
        yield f"http://127.0.0.1:{port}"
        served[0].close(verbose=False)


@pytest.fixture(scope="module")
def client(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    client = Client(address, verbose=False, analytics_enabled=False, download_files=str(tmp_path_factory.mktemp("downloads")))
    yield client
    client.close()


def test_every_function_says_what_it_does_and_takes(client: Client) -> None:
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(endpoints) == ENDPOINTS
    assert all(one["description"] for one in endpoints.values())
    names = {name: [parameter["parameter_name"] for parameter in one["parameters"]] for name, one in endpoints.items()}
    decoding = ["num_beams", "num_return_sequences", "do_sample", "temperature", "seed", "prefix", "bad_words"]
    assert names == {
        "/predict": ["picture", *decoding],
        "/attention": ["picture", "prompt", "word"],
        "/paint": ["prompt", "seed"],
        "/caption_files": ["files"],
        "/compare": ["picture"],
    }
    defaults = {parameter["parameter_name"]: parameter["parameter_default"] for parameter in endpoints["/predict"]["parameters"][1:]}
    assert defaults == dict(zip(decoding, (4, 3, False, 1, None, "", ""), strict=True))
    assert all(parameter["parameter_has_default"] for parameter in endpoints["/predict"]["parameters"][1:])


def test_predict_gives_what_python_gives(client: Client) -> None:
    found = client.predict(handle_file(str(EXAMPLE)), api_name="/predict")
    expected = PromptInverter.from_pretrained().predict(EXAMPLE, num_return_sequences=3)
    assert found["prompt"] == expected.prompt == TRUTH
    assert found["confidence"] == pytest.approx(expected.confidence, abs=1e-3)
    assert found["familiarity"] == pytest.approx(expected.familiarity, abs=1e-3)
    assert [one["prompt"] for one in found["alternatives"]] == [one.prompt for one in expected.alternatives]
    assert (found["file"], found["is_familiar"], found["metadata"]) == ("1.png", True, None)


def test_predict_takes_all_that_decoding_knows(client: Client) -> None:
    ask = partial(client.predict, handle_file(str(EXAMPLE)), api_name="/predict")
    assert len(ask(num_beams=1, num_return_sequences=5)["alternatives"]) == 4  # beams enough for so many
    assert ask(prefix="a photo of")["prompt"].startswith("a photo of")
    assert "panda" in ask()["prompt"]
    assert "panda" not in ask(bad_words=" panda , beach")["prompt"]
    drawn = {"do_sample": True, "temperature": 3, "num_return_sequences": 4}
    assert ask(seed=5, **drawn) == ask(seed=5, **drawn) != ask(seed=6, **drawn)
    for arguments, message in (
        ({"prefix": "a panda", "bad_words": "panda"}, "prefix 'a panda' holds the banned word 'panda'"),
        ({"prefix": "a " * 200}, "the prefix has 200 tokens"),
        ({"num_beams": 99}, "greater than maximum value 16"),
    ):
        with pytest.raises(AppError, match=message):
            ask(**arguments)


def test_attention_gives_the_picture_light_where_the_model_looks(client: Client) -> None:
    look = partial(client.predict, handle_file(str(EXAMPLE)), TRUTH, api_name="/attention")
    pictures = []
    for word in range(2):
        with Image.open(look(word)) as image:
            pictures.append(np.asarray(image.convert("RGB"), dtype=np.float64))
    with Image.open(EXAMPLE) as image:
        original = np.asarray(image.convert("RGB"), dtype=np.float64)
    assert pictures[0].shape == pictures[1].shape == original.shape
    assert abs(pictures[0] - pictures[1]).mean() > 1
    assert pictures[0].mean() < original.mean()
    with pytest.raises(AppError, match="there is no such word"):
        look(99)


def test_paint_gives_the_same_picture_for_a_seed(client: Client) -> None:
    painted = [Path(client.predict("a panda on a beach", seed, api_name="/paint")) for seed in (1, 1, 2)]
    contents = [path.read_bytes() for path in painted]
    assert contents[0] == contents[1] != contents[2]
    with Image.open(painted[0]) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
    with pytest.raises(AppError, match="there is no prompt to paint"):
        client.predict("  ", 0, api_name="/paint")


def test_files_and_archives_go_in_and_an_archive_comes_out(client: Client, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.write(EXAMPLE, "deep/er/one.png")
        archive.writestr("../up.jpg", encoded("JPEG", size=(40, 40)))
        archive.writestr("broken.png", b"\x89PNG\r\n")
        archive.writestr("notes.txt", "no picture")
    (tmp_path / "text.zip").write_bytes(b"no archive")
    files = [handle_file(str(path)) for path in (EXAMPLE, tmp_path / "more.zip", tmp_path / "text.zip")]
    done, table, packed = client.predict(files, api_name="/caption_files")
    assert done == "3 read, 2 failed."
    assert table["headers"] == ["file", "prompt", "confidence", "good to know"]
    rows = {row[0]: row[1:] for row in table["data"]}
    assert list(rows) == ["1.png", "deep/er/one.png", "../up.jpg", "broken.png", "text.zip"]
    assert rows["1.png"] == rows["deep/er/one.png"]
    assert rows["1.png"][::2] == [TRUTH, ""]
    assert rows["../up.jpg"][2].startswith("unlike anything this model was trained on")
    assert rows["broken.png"] == ["", "", "failed: broken.png: not a readable image (damaged, or in no format that is read)"]
    assert rows["text.zip"][2].startswith("failed: text.zip cannot be unpacked")
    with zipfile.ZipFile(packed) as archive:
        assert archive.namelist() == ["1.txt", "deep/er/one.txt", "up.txt", "prompts.csv"]
        assert archive.read("deep/er/one.txt").decode() == f"{TRUTH}\n"
        lines = list(csv.DictReader(io.StringIO(archive.read("prompts.csv").decode())))
    assert [line["file"] for line in lines] == ["1.png", "deep/er/one.png", "../up.jpg"]
    assert [line["prompt"] for line in lines] == [row[0] for row in list(rows.values())[:3]]


def test_without_a_picture_that_can_be_read_there_is_no_archive(client: Client, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    done, table, packed = client.predict([handle_file(str(tmp_path / "a.png"))], api_name="/caption_files")
    assert (done, packed, len(table["data"])) == ("0 read, 1 failed.", None, 1)
    done, table, packed = client.predict([], api_name="/caption_files")
    assert (done, packed, table["data"]) == ("There are no pictures in what was sent.", None, [])


def test_too_many_pictures_are_refused_at_once(client: Client, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for number in range(501):
            archive.writestr(f"{number}.png", b"")
    with pytest.raises(AppError, match="more than 500 pictures at once"):
        client.predict([handle_file(str(tmp_path / "many.zip"))], api_name="/caption_files")


def test_compare_has_a_row_for_each_and_one_that_fails_says_so(client: Client) -> None:
    table = client.predict(handle_file(str(EXAMPLE)), api_name="/compare")
    assert table["headers"] == ["captioner", "prompt", "confidence", "seconds"]
    ours, constant, broken = table["data"]
    assert ours[:2] == ["reprompt", TRUTH]
    assert constant[0] == "constant"
    assert constant[1]
    assert broken[0] == "blip=/no/such/directory"
    assert broken[1].startswith("failed: ")
    assert broken[2:] == ["", ""]


def raw(address: str, name: str, data: list[Any]) -> tuple[str, Any]:
    """How a request ends that no client has prepared: "complete" or "error", and what comes with it."""
    with httpx.Client(timeout=30) as http:
        begun = http.post(f"{address}/gradio_api/call/{name}", json={"data": data})
        assert begun.status_code == 200, begun.text
        with http.stream("GET", f"{address}/gradio_api/call/{name}/{begun.json()['event_id']}") as stream:
            kind, *content = "".join(stream.iter_text()).strip().split("\n")
    return kind.removeprefix("event: "), json.loads(content[-1].removeprefix("data: "))


class _Listener:
    """Notes who connects to a port of this machine."""

    def __enter__(self) -> _Listener:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.settimeout(0.2)
        self.port = self.socket.getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def nobody_came(self) -> bool:
        try:
            self.socket.accept()
        except TimeoutError:
            return True
        return False


def test_files_and_addresses_of_the_server_are_refused(address: str) -> None:
    file = {"_type": "gradio.FileData"}
    rest = {"predict": [4, 1, False, 1, None, "", ""], "attention": ["a panda", 0], "compare": []}
    with _Listener() as listener:
        there = f"http://127.0.0.1:{listener.port}/x.png"
        for place in (str(EXAMPLE), f"file://{EXAMPLE}", "../../etc/passwd", "docs/examples/1.png", "/etc/passwd", there, there.upper()):
            for payload in ({"path": place, "meta": file}, {"path": place}, {"path": place, "url": there, "meta": {"_type": "other"}}):
                for name, more in rest.items():
                    assert raw(address, name, [payload, *more])[0] == "error", (place, payload, name)
                assert raw(address, "caption_files", [[payload]])[0] == "error", (place, payload)
        assert raw(address, "predict", [{"path": None, "url": there, "meta": file}, *rest["predict"]]) == ("complete", [{}])
        assert listener.nobody_came()
        kind, told = raw(address, "predict", [{"path": there, "meta": file}, *rest["predict"]])
        assert (kind, told["error"]) == ("error", "This page fetches no addresses: send the picture itself.")
        kind, told = raw(address, "predict", [{"path": str(EXAMPLE)}, *rest["predict"]])
        assert (kind, told["error"]) == ("error", "This page reads no files of its machine: send the picture itself.")


def test_a_picture_of_an_example_does_not_open_the_servers_files(address: str) -> None:
    """An example that is clicked changes the page's picture, of which gradio then makes another component for that visitor."""
    with httpx.Client(base_url=address, timeout=30) as http:
        config = http.get("/config").json()
        kinds = {one["id"]: one["type"] for one in config["components"]}
        loads = [one for one in config["dependencies"] if [kinds[each] for each in one["inputs"]] == ["dataset"]]
        assert len(loads) == 1
        predict = next(one for one in config["dependencies"] if one["api_name"] == "predict")

        def join(dependency: dict[str, Any], data: list[Any]) -> dict[str, Any]:
            asked = {"data": data, "fn_index": dependency["id"], "session_hash": "visitor"}
            assert http.post("/gradio_api/queue/join", json=asked).status_code == 200
            with http.stream("GET", "/gradio_api/queue/data", params={"session_hash": "visitor"}) as stream:
                for line in stream.iter_lines():
                    message = json.loads(line.removeprefix("data: ")) if line else {}
                    if message.get("msg") == "process_completed":
                        return dict(message)
            raise AssertionError("no answer")

        loaded = join(loads[0], [0])
        assert loaded["success"]
        decoding = [4, 1, False, 1, None, "", ""]
        taken = join(predict, [loaded["output"]["data"][0]["value"], *decoding])
        assert taken["output"]["data"][0]["prompt"] == TRUTH
        for payload in ({"path": str(EXAMPLE)}, {"path": "http://127.0.0.1:9/x.png", "meta": {"_type": "gradio.FileData"}}):
            refused = join(predict, [payload, *decoding])
            assert not refused["success"]
            assert refused["output"]["error"].startswith("This page ")


def test_the_server_hands_out_none_of_its_files(address: str) -> None:
    with httpx.Client(timeout=30) as http:
        for place in ("/etc/passwd", str(EXAMPLE), str(ROOT / "README.md"), "../../etc/passwd", "file:///etc/passwd", "http://127.0.0.1:9/"):
            assert http.get(f"{address}/gradio_api/file={place}").status_code in (403, 404), place
        assert http.get(f"{address}/gradio_api/proxy=http://127.0.0.1:9/").status_code >= 400


def test_an_upload_of_more_than_64_mb_is_refused(address: str) -> None:
    with httpx.Client(timeout=30) as http:
        for size, status in ((64 << 20, 200), ((64 << 20) + 1, 413)):
            assert http.post(f"{address}/gradio_api/upload", files={"files": ("a.png", bytes(size))}).status_code == status


def test_a_bad_file_is_told_in_words_and_the_next_one_is_read(client: Client, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(AppError, match=r"^bad\.png: not a readable image \(damaged, or in no format that is read\)$"):
        client.predict(handle_file(str(tmp_path / "bad.png")), api_name="/predict")
    assert client.predict(handle_file(str(EXAMPLE)), api_name="/predict")["prompt"] == TRUTH


def test_agents_have_every_function_as_a_tool(address: str) -> None:
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    uploaded = httpx.post(f"{address}/gradio_api/upload", files={"files": ("a panda.png", EXAMPLE.read_bytes())}).json()[0]

    async def talk() -> tuple[dict[str, Any], list[Any]]:
        async with streamablehttp_client(f"{address}/gradio_api/mcp/") as (reading, writing, _), ClientSession(reading, writing) as session:
            await session.initialize()
            tools = {tool.name: tool for tool in (await session.list_tools()).tools}
            picture = f"data:image/png;base64,{base64.b64encode(EXAMPLE.read_bytes()).decode()}"
            return tools, [
                await session.call_tool("predict", {"picture": picture}),
                await session.call_tool("predict", {"picture": f"{address}/gradio_api/file={uploaded}"}),
                await session.call_tool("attention", {"picture": picture, "prompt": TRUTH, "word": 1}),
                await session.call_tool("predict", {"picture": str(EXAMPLE)}),
                await session.call_tool("predict", {"picture": f"{address}/gradio_api/file={EXAMPLE}"}),
                await session.call_tool("predict", {"picture": "http://127.0.0.1:9/x.png"}),
            ]

    tools, (read, sent_before, seen, *refused) = asyncio.run(talk())
    assert set(tools) == {name.removeprefix("/") for name in ENDPOINTS}
    for tool in tools.values():
        assert tool.description
        assert all(about.get("description") for about in tool.inputSchema["properties"].values()), tool
    assert tools["attention"].inputSchema["properties"]["word"]["type"] == "integer"
    assert tools["predict"].inputSchema["required"] == ["picture"]
    for answer in (read, sent_before):
        assert not answer.isError
        assert TRUTH in answer.content[0].text
    assert seen.content[0].type == "image"
    assert all(answer.isError for answer in refused)
    assert "This page fetches no addresses" in refused[-1].content[0].text
