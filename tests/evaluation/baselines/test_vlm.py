"""Against a real server on this machine that speaks the protocol."""

import base64
import dataclasses
import io
import json
from pathlib import Path

import pytest
from chat_server import answer, chat_server
from PIL import Image

from evaluation.baselines import Known, Settings, build_baseline
from evaluation.baselines.vlm import VisionLanguageModel
from evaluation.captioners import CaptionerError
from evaluation.config import TEMPLATE, VlmConfig

KEY = "sk-secret-0123456789-abcdef"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setattr("openai._constants.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)


def config(tmp_path: Path, url: str, **changes: object) -> VlmConfig:
    plain = VlmConfig(base_url=url, cache=tmp_path / "cache", requests=1, timeout=5)
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def images(count: int) -> list[Image.Image]:
    return [Image.new("RGB", (6, 4), (number * 20, 5, 5)) for number in range(count)]


def test_each_picture_is_asked_about_with_the_template(tmp_path: Path) -> None:
    with chat_server((200, answer(' "a cat,\n  8k" ')), (200, answer("a dog"))) as server:
        model = VisionLanguageModel("m", config(tmp_path, server.url), count=2)
        assert [caption.text for caption in model.caption(images(2))] == ["a cat, 8k", "a dog"]
    first = server.asked[0]
    assert (first["model"], first["temperature"], first["max_tokens"]) == ("m", 0, 200)
    (message,) = first["messages"]
    text, picture = message["content"]
    assert text["text"] == TEMPLATE.read_text().strip()
    encoded = base64.b64decode(picture["image_url"]["url"].removeprefix("data:image/png;base64,"))
    assert Image.open(io.BytesIO(encoded)).getpixel((0, 0)) == (0, 5, 5)
    assert server.keys == [f"Bearer {KEY}"] * 2


def test_a_template_of_ones_own_with_a_system_part(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("You are terse.\n---\nWhat is it?\n")
    with chat_server((200, answer("x"))) as server:
        VisionLanguageModel("m", config(tmp_path, server.url, template=tmp_path / "t.txt"), count=1).caption(images(1))
    system, user = server.asked[0]["messages"]
    assert (system["role"], system["content"]) == ("system", "You are terse.")
    assert user["content"][0]["text"] == "What is it?"


def test_large_pictures_are_sent_smaller(tmp_path: Path) -> None:
    with chat_server((200, answer("x"))) as server:
        VisionLanguageModel("m", config(tmp_path, server.url), count=1).caption([Image.new("RGB", (3000, 1000))])
    url = server.asked[0]["messages"][0]["content"][1]["image_url"]["url"]
    assert Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).size == (1024, 342)


@pytest.mark.parametrize(
    "bad",
    [
        (500, {"error": {"message": "broken"}}),
        (503, b"<html>busy</html>"),
        (429, {"error": {"message": "slow down"}}),
        (200, b"{not json"),
        (200, {"choices": []}),
        (200, {"choices": None}),
        (200, [1, 2]),
        (200, answer(None)),
        (200, answer("  \n ")),
        (200, answer(["a"])),
    ],
)
def test_what_goes_wrong_once_is_tried_again(tmp_path: Path, bad: object) -> None:
    with chat_server(bad, (200, answer("good"))) as server:
        model = VisionLanguageModel("m", config(tmp_path, server.url, retries=2), count=1)
        assert model.caption(images(1))[0].text == "good"
        assert len(server.asked) == 2


def test_an_answer_that_does_not_come_is_asked_for_again(tmp_path: Path) -> None:
    with chat_server(3.0, (200, answer("good"))) as server:
        model = VisionLanguageModel("m", config(tmp_path, server.url, timeout=0.5), count=1)
        assert model.caption(images(1))[0].text == "good"


@pytest.mark.parametrize("bad", [(500, {"error": {"message": "broken"}}), (200, answer("")), (200, b"nonsense")])
def test_what_goes_wrong_always_is_an_error_that_costs_no_answer(tmp_path: Path, bad: object) -> None:
    with chat_server((200, answer("first")), bad) as server:
        model = VisionLanguageModel("m", config(tmp_path, server.url, retries=1), count=3)
        with pytest.raises(CaptionerError, match=r"^m"):
            model.caption(images(3))
    with chat_server((200, answer("later"))) as server:
        again = VisionLanguageModel("m", config(tmp_path, server.url.replace("127.0.0.1", "127.0.0.1")), count=3)
        again._asked = model._asked  # the same server at another port
        assert [caption.text for caption in again.caption(images(3))] == ["first", "later", "later"]
        assert len(server.asked) == 2


def test_the_key_is_in_no_message_no_file_and_no_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with chat_server((401, {"error": {"message": f"Incorrect API key provided: {KEY}. Or {KEY[:12]}***"}})) as server:
        model = VisionLanguageModel("m", config(tmp_path, server.url), count=1)
        with pytest.raises(CaptionerError) as failure:
            model.caption(images(1))
    said = str(failure.value) + "".join(capsys.readouterr()) + json.dumps(dataclasses.asdict(model.about), default=str) + model._asked
    assert KEY[:12] not in said
    assert "AuthenticationError" in said
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_answers_are_kept_by_picture_model_and_template(tmp_path: Path) -> None:
    with chat_server((200, answer("x"))) as server:
        told = config(tmp_path, server.url)
        VisionLanguageModel("m", told, count=2).caption(images(2))
        VisionLanguageModel("m", told, count=2).caption(images(3))
        assert len(server.asked) == 3
        (tmp_path / "t.txt").write_text("Another question")
        for name, other in (
            ("n", told),
            ("m", dataclasses.replace(told, template=tmp_path / "t.txt")),
            ("m", dataclasses.replace(told, max_tokens=9)),
        ):
            before = len(server.asked)
            VisionLanguageModel(name, other, count=1).caption(images(1))
            assert len(server.asked) == before + 1
        for system in ("You are terse.", "You are a poet."):
            before = len(server.asked)
            (tmp_path / "t.txt").write_text(f"{system}\n---\nThe same question")
            VisionLanguageModel("m", dataclasses.replace(told, template=tmp_path / "t.txt"), count=1).caption(images(1))
            assert len(server.asked) == before + 1
        for kept in (tmp_path / "cache").rglob("*.json"):
            kept.write_text("{broken")
        VisionLanguageModel("m", told, count=1).caption(images(1))
        assert len(server.asked) == 9
    with chat_server((200, answer("y"))) as other_server:  # another server may have another model of this name
        other = VisionLanguageModel("m", dataclasses.replace(told, base_url=other_server.url), count=1)
        assert other.caption(images(1))[0].text == "y"


def test_what_costs_too_much_is_not_begun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with chat_server((200, answer("x"))) as server:
        dear = config(tmp_path, server.url, input_price=10, output_price=40, max_dollars=0.5)
        with pytest.raises(CaptionerError, match=r"would cost about \$1\.\d\d, more than --vlm.max-dollars 0.5; nothing was sent"):
            VisionLanguageModel("m", dear, count=100)
        assert server.asked == []
        VisionLanguageModel("m", dear, count=10)
        assert "10 pictures, about $0.1" in capsys.readouterr().err


def test_spending_ends_at_the_limit_and_goes_on_with_a_higher_one(tmp_path: Path) -> None:
    with chat_server((200, answer("x", sent=100_000, answered=0))) as server:  # more than the estimate says
        told = config(tmp_path, server.url, input_price=1, max_dollars=0.25)
        model = VisionLanguageModel("m", told, count=5)
        with pytest.raises(CaptionerError, match=r"--vlm.max-dollars 0.25 is spent \(\$0.30 by this process\)"):
            model.caption(images(5))
        assert len(server.asked) == 3
        assert model.about.cost == pytest.approx(0.3)
        more = VisionLanguageModel("m", dataclasses.replace(told, max_dollars=2), count=5)
        assert len(more.caption(images(5))) == 5
        assert len(server.asked) == 5
        assert more.about.cost == pytest.approx(0.2)


def test_the_limit_is_one_for_all_models_and_processes_of_a_command(tmp_path: Path) -> None:
    with chat_server((200, answer("x", sent=100_000, answered=0))) as server:
        told = config(tmp_path, server.url, input_price=1, max_dollars=0.4)
        settings = Settings(known=Known(lambda: pytest.fail("not asked")), count=3, vlm=told, processes=2)
        assert len(build_baseline("vlm=a", settings).caption(images(1))) == 1
        other = build_baseline("vlm=b", settings)
        with pytest.raises(CaptionerError, match="is spent"):
            other.caption(images(3))
        assert len(server.asked) == 2  # half of the limit is the other process's
        assert other.about.cost == pytest.approx(0.1)


def test_a_server_that_counts_no_tokens_does_not_spend_without_a_limit(tmp_path: Path) -> None:
    uncounted = {name: value for name, value in answer("x").items() if name != "usage"}
    with chat_server((200, uncounted)) as server:
        told = config(tmp_path, server.url, input_price=100, output_price=100, max_dollars=0.25, max_tokens=200)
        model = VisionLanguageModel("m", told, count=1)
        with pytest.raises(CaptionerError, match="is spent"):
            model.caption(images(5))
        assert len(server.asked) == 2  # 1,000 tokens and more of a picture, 200 of an answer: 0.12 dollars and more


def test_what_is_missing_is_said_before_anything_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(CaptionerError, match="set the environment variable OPENAI_API_KEY, or name a server"):
        VisionLanguageModel("m", VlmConfig(cache=tmp_path), count=1)
    (tmp_path / "empty.txt").write_text(" \n")
    for name, message in (("empty.txt", "is empty"), ("none.txt", "cannot be read")):
        with pytest.raises(CaptionerError, match=message):
            VisionLanguageModel("m", config(tmp_path, "http://127.0.0.1:1/v1", template=tmp_path / name), count=1)
    for wrong in ({"requests": 0}, {"timeout": 0.0}, {"max_dollars": float("nan")}, {"retries": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong)).replace("_", "[-_]")):
            VlmConfig(**wrong)  # type: ignore[arg-type]


def test_a_server_that_is_named_goes_before_the_environments_and_what_is_free_has_no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with chat_server((200, answer("x"))) as named, chat_server((200, answer("y"))) as other:
        monkeypatch.setenv("OPENAI_BASE_URL", other.url)
        assert VisionLanguageModel("m", config(tmp_path, named.url, max_dollars=0), count=1).caption(images(1))[0].text == "x"
        assert VisionLanguageModel("m", VlmConfig(cache=tmp_path / "cache"), count=1).caption(images(1))[0].text == "y"


@pytest.mark.parametrize(("said", "expected"), [('"', '"'), ("'a cat'", "a cat"), ("`a` and `b", "`a` and `b"), ('"a', '"a'), ("aba", "aba")])
def test_marks_around_an_answer_are_no_part_of_it(tmp_path: Path, said: str, expected: str) -> None:
    with chat_server((200, answer(said))) as server:
        assert VisionLanguageModel("m", config(tmp_path, server.url), count=1).caption(images(1))[0].text == expected


def test_several_are_on_their_way_at_a_time(tmp_path: Path) -> None:
    with chat_server(0.5) as server:
        model = VisionLanguageModel("m", config(tmp_path, server.url, requests=4), count=4)
        import time

        start = time.perf_counter()
        assert len(model.caption(images(4))) == 4
        assert time.perf_counter() - start < 1.9
        assert model.about.batch_size == 4


def test_a_password_in_the_servers_address_is_in_no_message_and_no_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = VisionLanguageModel("m", config(tmp_path, "http://user:hidden@127.0.0.1:1/v1"), count=1)
    said = capsys.readouterr()
    assert "hidden" not in said.out + said.err + str(model.about)
    assert "http://***@127.0.0.1:1/v1" in model.about.source
