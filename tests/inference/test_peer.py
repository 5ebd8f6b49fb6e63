"""BLIP behind the methods of `PromptInverter`, against transformers called directly."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tyro
from blips import DEC, END, save_blip, small_peer
from commands import run
from examples import painted
from gits import save_git
from PIL import Image
from transformers import AutoProcessor, BlipForConditionalGeneration, GitForCausalLM

import caption
from data.images import read_image
from inference import PromptInverter
from inference.peer import PeerInverter
from peers import PeerCaptioner


@pytest.fixture
def blip(tmp_path: Path) -> Path:
    save_blip(tmp_path / "blip")
    return tmp_path / "blip"


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Five pictures of different shapes."""
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    paths = []
    for number, size in enumerate([(64, 64), (90, 41), (33, 70), (32, 32), (200, 120)]):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        paths.append(tmp_path / "pictures" / f"{number}.png")
        coarse.resize(size, Image.Resampling.NEAREST).save(paths[-1])
    return paths


def inverter(**options: Any) -> PeerInverter:
    peer = small_peer("blip", **options)
    return PeerInverter(PeerCaptioner(peer.network, peer.processor))


def theirs(directory: Path, files: list[Path], **arguments: Any) -> list[str]:
    """As the documentation has it."""
    network, processor = BlipForConditionalGeneration.from_pretrained(directory), AutoProcessor.from_pretrained(directory)
    inputs = processor(images=[Image.open(path) for path in files], return_tensors="pt")
    tokens = network.eval().generate(**inputs, **({"do_sample": False} | arguments))
    return [text.strip() for text in processor.batch_decode(tokens, skip_special_tokens=True)]


@pytest.fixture
def write(capsys: pytest.CaptureFixture[str]) -> Any:
    """caption.py inside the test's process: (file's name, text) of each line."""

    def here(*arguments: object) -> list[tuple[str, str]]:
        assert not caption.main(tyro.cli(caption.CaptionConfig, args=list(map(str, arguments)))).failed
        lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
        return [(Path(path).name, text) for path, text in lines]

    return here


def test_caption_writes_what_transformers_writes(blip: Path, files: list[Path], write: Any) -> None:
    found = write(files[0].parent, "--checkpoint", blip)
    assert found == list(zip([path.name for path in files], theirs(blip, files, num_beams=4, max_new_tokens=64), strict=True))
    assert len({text for _, text in found}) > 1
    greedy = write(*files, "--checkpoint", blip, "--num-beams", 1, "--max-new-tokens", 7, "--batch-size", 2)
    assert [text for _, text in greedy] == theirs(blip, files, num_beams=1, max_new_tokens=7)
    longer = write(*files, "--checkpoint", blip, "--min-new-tokens", 5, "--max-new-tokens", 9)
    assert [text for _, text in longer] == theirs(blip, files, num_beams=4, min_new_tokens=5, max_new_tokens=9)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 4.0])
def test_several_prompts_come_in_the_order_of_the_search(blip: Path, files: list[Path], write: Any, length_penalty: float) -> None:
    """Which is that of their scores where the length penalty is 1 alone."""
    options = ["--num-return", 3, "--num-beams", 3, "--length-penalty", length_penalty, "--max-new-tokens", 9]
    expected = theirs(blip, files, num_beams=3, num_return_sequences=3, length_penalty=length_penalty, max_new_tokens=9)
    assert [text for _, text in write(*files, "--checkpoint", blip, *options)] == expected
    predictions = inverter().predict(files, num_beams=3, num_return_sequences=3, length_penalty=length_penalty, max_new_tokens=9)
    for prediction in predictions:
        scores = [prediction.score, *(other.score for other in prediction.alternatives)]
        assert len(scores) == 3
        if length_penalty == 1:
            assert scores == sorted(scores, reverse=True)


def test_samples_come_likeliest_first_and_are_those_of_the_seed_whatever_the_other_pictures_are(files: list[Path]) -> None:
    writer = inverter()
    options: dict[str, Any] = {"num_return_sequences": 4, "temperature": 1.5, "max_new_tokens": 8}
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    found = writer.predict(files, do_sample=True, seed=3, **options)
    assert torch.equal(torch.random.get_rng_state(), before)  # whoever draws beside it draws the same
    for prediction in found:
        scores = [prediction.score, *(other.score for other in prediction.alternatives)]
        assert scores == sorted(scores, reverse=True)
        assert len({prediction.prompt, *(other.prompt for other in prediction.alternatives)}) > 1
    assert writer.predict(files[::-1], do_sample=True, seed=3, batch_size=2, **options) == found[::-1]
    assert writer.predict([files[2]], do_sample=True, seed=3, **options) == [found[2]]
    assert writer.predict(files, do_sample=True, seed=4, **options) != found
    alike = [read_image(path).resize((32, 32)) for path in files]
    # where the network has no say, each picture has chances of its own
    flat = writer.predict(alike, do_sample=True, seed=3, temperature=1e6, max_new_tokens=8)
    assert len({prediction.prompt for prediction in flat}) == len(files)
    assert writer.predict(files, do_sample=True, **options) != writer.predict(files, do_sample=True, **options)  # without a seed anew each time


def test_caption_draws_by_its_options(blip: Path, files: list[Path], write: Any) -> None:
    drawn = ["--sample", "--seed", 5, "--max-new-tokens", 8, "--checkpoint", blip]
    found = write(*files, *drawn, "--num-return", 3)
    assert len(found) == 15
    assert write(files[1], *drawn, "--num-return", 3) == found[3:6]
    greedy = theirs(blip, files, num_beams=1, max_new_tokens=8)
    for surely in (["--top-k", 1], ["--temperature", 0.001], ["--top-p", 1e-6]):  # nothing but the likeliest is left to draw
        assert [text for _, text in write(*files, *drawn, *surely)] == greedy


@pytest.mark.slow
def test_what_needs_our_network_is_refused_in_one_line(blip: Path, files: list[Path]) -> None:
    for options in ({"prefix": "a cat"}, {"bad_words": ["dog"]}):
        with pytest.raises(ValueError, match="need a checkpoint of Reprompt's or GIT's") as refused:
            inverter().predict(files, **options)
        assert len(str(refused.value).splitlines()) == 1
    _, err = run("caption.py", files[0], "--checkpoint", blip, "--prefix", "a cat", fails=True)
    assert err.splitlines()[-1].startswith("caption.py: a prefix and bad words need a checkpoint of Reprompt's or GIT's")
    assert sum(line.startswith("caption.py: ") for line in err.splitlines()) == 1


def test_a_network_of_few_positions_writes_as_much_as_it_can(files: list[Path]) -> None:
    """From scratch one has as many as the longest training prompt, and what has learnt little does not end by itself."""
    writer = inverter(max_position_embeddings=9)
    with torch.no_grad():
        writer.model.text_decoder.cls.predictions.bias[END] = -100  # never
    exactly = writer.predict(files, max_new_tokens=9)
    assert writer.predict(files) == writer.predict(files, max_new_tokens=50) == exactly != writer.predict(files, max_new_tokens=8)
    assert writer.predict(files, do_sample=True, seed=1) == writer.predict(files, do_sample=True, seed=1, max_new_tokens=9)


def test_scores_are_mean_log_probabilities(files: list[Path]) -> None:
    writer = inverter()
    (prediction,) = writer.predict(files[:1], num_beams=1, max_new_tokens=6)
    pixel_values = writer.captioner.processor(images=read_image(files[0]), return_tensors="pt").pixel_values
    tokens = writer.model.generate(pixel_values=pixel_values, do_sample=False, max_new_tokens=6)[0].tolist()
    assert tokens[0] == DEC
    text = tokens[1 : tokens.index(END) + 1] if END in tokens else tokens[1:]
    with torch.no_grad():
        logits = writer.model(pixel_values=pixel_values, input_ids=torch.tensor([[DEC, *text[:-1]]])).logits[0]
    assert prediction.score == pytest.approx(float(logits.log_softmax(-1)[range(len(text)), text].mean()), abs=1e-4)
    assert len(text) > 1
    each = logits.log_softmax(-1)[range(len(text)), text].tolist()
    assert prediction.log_probs == pytest.approx(each, abs=1e-4)
    assert [token.confidence for token in prediction.tokens] == pytest.approx([math.exp(one) for one in each], abs=1e-4)
    assert prediction.confidence == pytest.approx(math.exp(sum(each)), rel=1e-3)
    assert "".join(token.text for token in prediction.tokens) == prediction.prompt


def test_one_picture_has_one_prediction(files: list[Path]) -> None:
    writer = inverter()
    alone = [writer(files[0]), writer.predict(read_image(files[1]))]
    assert [prediction.prompt for prediction in alone] == [prediction.prompt for prediction in writer.predict(files[:2])]
    with pytest.raises(TypeError, match="a picture or a list of them, not int"):
        writer.predict(3)  # type: ignore[call-overload]


def test_pictures_of_every_kind_are_read(files: list[Path]) -> None:
    writer = inverter()
    (expected,) = writer.predict(files[:1])
    image = read_image(files[0])
    for picture in (str(files[0]), files[0].read_bytes(), image, np.asarray(image)):
        assert writer.predict([picture]) == [expected]
    large = painted("cat", "red", 2100)  # kept smaller until its batch comes
    assert writer.reduced(large).size == (1050, 1050)
    assert writer.features([large, image]).shape == (2, 48)
    assert writer.device == torch.device("cpu")


def test_a_git_from_nothing_is_captioned_by_our_own_network(tmp_path: Path, files: list[Path], write: Any) -> None:
    """What hf-git leaves: transformers' own texts, and a forced start besides."""
    save_git(tmp_path / "git")
    network, processor = GitForCausalLM.from_pretrained(tmp_path / "git").eval(), AutoProcessor.from_pretrained(tmp_path / "git")
    inputs = processor(images=[Image.open(path) for path in files], return_tensors="pt")
    tokens = network.generate(**inputs, num_beams=4, max_new_tokens=7, do_sample=False)
    expected = [text.strip() for text in processor.batch_decode(tokens, skip_special_tokens=True)]
    options = ["--checkpoint", tmp_path / "git", "--max-new-tokens", 7]
    assert [text for _, text in write(*files, *options)] == expected
    assert all(text.startswith("cat on") for _, text in write(*files, *options, "--prefix", "cat on"))
    assert isinstance(caption.load_inverter(tmp_path / "git"), PromptInverter)


def test_without_transformers_the_extra_is_named(blip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(caption.MissingExtraError, match=r"BLIP and GIT of Hugging Face need the extra 'eval' .*pip install -e '\.\[eval\]'"):
        caption.load_inverter(blip)
