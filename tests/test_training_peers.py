"""train.py with Hugging Face's GIT and BLIP: from nothing, from a checkpoint, stopped and gone on with, refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from blips import DEC, END, KINDS, save_blip
from commands import BRIEF, TINY_VIT, run
from examples import write_dataset
from gits import WORDS, save_git
from left_by_runs import curve, weights
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoProcessor, BlipForConditionalGeneration, GitForCausalLM

import train
from data.store.pairs import PairDataset
from inference import load_inverter
from model import CheckpointError
from peers import PeerNetwork
from tokenizer import PromptTokenizer
from training.config import ConfigError
from training.run_directory import RunStateError, checkpoints

THEIRS: dict[str, Any] = {"blip": BlipForConditionalGeneration, "git": GitForCausalLM}
SAVE: dict[str, Any] = {"blip": save_blip, "git": save_git}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("pairs") / "data", 150)


def loss_by_transformers(network: Any, processor: Any, pairs: PairDataset, begin: int, end: int) -> float:
    """Per token, pair by pair, as its documentation trains."""
    total, count = 0.0, 0
    for number in range(len(pairs)):
        pixel_values = processor(images=pairs.image(number), return_tensors="pt").pixel_values
        text = [begin, *processor.tokenizer(pairs.prompt(number), add_special_tokens=False).input_ids, end]
        ids = torch.tensor([text])
        with torch.no_grad():
            total += float(network(pixel_values=pixel_values, input_ids=ids, labels=ids).loss) * (len(text) - 1)
        count += len(text) - 1
    return total / count


@pytest.mark.parametrize("kind", KINDS)
def test_from_nothing_to_a_report_and_a_directory_of_transformers(
    pairs: Path, tmp_path: Path, train_here: Callable[..., None], capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    name = f"hf-{kind}"
    arguments = ["--network", name, "--data", pairs, "--out", tmp_path / "run", *TINY_VIT, "--precision", "fp32", "--max-steps", 16]
    train_here("mini", *arguments, compare=True)
    out = capsys.readouterr().out
    network = THEIRS[kind].from_pretrained(tmp_path / "run" / "model").eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "run" / "model")

    said = re.search(rf"{type(network).__name__}, 5 image tokens, ([\d.]+) M parameters \(([\d.]+) M of them in the encoder\)", out)
    assert said is not None
    vision = network.vision_model if kind == "blip" else network.git.image_encoder
    for printed, part in zip(said.groups(), (network, vision), strict=True):
        assert float(printed) == pytest.approx(sum(parameter.numel() for parameter in part.parameters()) / 1e6, abs=0.06)
    assert f"| metric | {name} | nearest | constant |" in out
    assert json.loads((tmp_path / "run" / "config.json").read_text())["network"] == name
    assert sorted(path.name for path in (tmp_path / "run" / "report").iterdir() if path.suffix == ".png") == ["samples.png"]

    losses = curve(tmp_path / "run", "train/loss")
    assert losses[-1] < losses[0]  # it learns
    measured = curve(tmp_path / "run", "validation/loss")
    tokenizer = PromptTokenizer.load(tmp_path / "run" / "tokenizer.json")
    theirs = loss_by_transformers(network, processor, PairDataset(pairs, "val"), tokenizer.bos_id, tokenizer.eos_id) if kind == "git" else None
    if kind == "blip":  # its own loss smooths the labels, in evaluation too
        assert network.text_decoder.label_smoothing == 0.1
        network.text_decoder.label_smoothing = 0.0
        theirs = loss_by_transformers(network, processor, PairDataset(pairs, "val"), tokenizer.bos_id, tokenizer.eos_id)
    assert theirs == pytest.approx(min(measured), rel=2e-3)  # the best is what was exported; the resizers round apart

    images = [PairDataset(pairs, "test").image(number).resize((32, 32)) for number in range(3)]  # so that nothing is left to resize
    tokens = network.generate(**processor(images=images, return_tensors="pt"), num_beams=3, max_new_tokens=8, do_sample=False)
    texts = [text.strip() for text in processor.batch_decode(tokens, skip_special_tokens=True)]
    assert [one.prompt.strip() for one in load_inverter(tmp_path / "run" / "model").predict(images, num_beams=3, max_new_tokens=8)] == texts


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_is_trained_with_its_own_tokenizer_tokens_and_pictures(
    pairs: Path, tmp_path: Path, train_here: Callable[..., None], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Of BLIP a text begins with [DEC], of which its tokenizer knows nothing, and ends with [SEP]."""
    SAVE[kind](tmp_path / "init", max_position_embeddings=128)
    before = THEIRS[kind].from_pretrained(tmp_path / "init").state_dict()
    processor = AutoProcessor.from_pretrained(tmp_path / "init")
    seen: list[tuple[bool, Tensor, Tensor, Tensor]] = []
    summed_loss = PeerNetwork.summed_loss

    def watched(self: PeerNetwork, pixel_values: Tensor, input_ids: Tensor, labels: Tensor, pictures: Tensor | None = None) -> Tensor:
        seen.append((self.training, pixel_values.clone(), input_ids.clone(), labels.clone()))
        return summed_loss(self, pixel_values, input_ids, labels, pictures)

    monkeypatch.setattr(PeerNetwork, "summed_loss", watched)
    arguments = ["--network", f"hf-{kind}", "--init", tmp_path / "init", "--data", pairs, "--out", tmp_path / "run", *BRIEF]
    train_here(*arguments, "--precision", "fp32", "--max-steps", 4, "--learning-rate", 1e-3)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["name"] == "finetune"
    assert any(training for training, *_ in seen)
    prompts = [PairDataset(pairs, split).prompt(number) for split in ("train", "val") for number in range(len(PairDataset(pairs, split)))]
    texts = processor.tokenizer(prompts, add_special_tokens=False).input_ids
    for _, _, input_ids, labels in seen:
        assert set(input_ids[:, 0].tolist()) == {DEC if kind == "blip" else 1}
        for row, expected in zip(input_ids.tolist(), labels.tolist(), strict=True):
            text = [label for label in expected if label != -100]
            assert text[-1] == END
            assert text[:-1] == row[1 : len(text)]
            assert text[:-1] in texts
    shown = torch.cat([pixel_values for training, pixel_values, *_ in seen if not training])
    validation = PairDataset(pairs, "val")
    by_them = processor(images=[validation.image(number) for number in range(len(validation))], return_tensors="pt").pixel_values
    found = sorted(float(picture.double().mean()) for picture in shown)
    assert found == pytest.approx(sorted(float(picture.double().mean()) for picture in by_them), abs=0.02)

    tokenizer = PromptTokenizer.load(tmp_path / "run" / "tokenizer.json")
    assert tokenizer.encode("a cat on a dog") == processor.tokenizer("a cat on a dog", add_special_tokens=False).input_ids
    assert tokenizer.vocab_size == len(WORDS)
    network = THEIRS[kind].from_pretrained(tmp_path / "run" / "model")
    saved = AutoProcessor.from_pretrained(tmp_path / "run" / "model")
    assert saved.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    assert saved.image_processor.to_dict() == processor.image_processor.to_dict()
    assert network.config.get_text_config().bos_token_id == (DEC if kind == "blip" else 1)
    assert {name for name, tensor in network.state_dict().items() if torch.equal(tensor, before[name])} == set()


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_and_gone_on_with_it_comes_to_the_same_weights(
    pairs: Path, tmp_path: Path, train_here: Callable[..., None], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Bit for bit, with dropout, random parts of pictures, a running mean and several batches an update; it ends in the middle of a step."""
    arguments = ["mini", "--network", f"hf-{kind}", "--data", pairs, *TINY_VIT, "--max-steps", 8, "--model.dropout", 0.2, "--optimizer", "muon"]
    arguments += ["--ema-decay", 0.9, "--accumulate", 2, "--batch-size", 8, "--frozen-encoder", 0.5]
    train_here(*arguments, "--out", tmp_path / "whole")
    check_update = train.check_update

    def interrupted(model: Any, progress: Any, *values: Any) -> bool:
        if progress.step == 6:
            raise KeyboardInterrupt
        return check_update(model, progress, *values)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "check_update", interrupted)
        train_here(*arguments, "--out", tmp_path / "parts")
    assert [path.name for path in checkpoints(tmp_path / "parts")] == ["step-000004"]
    assert not torch.equal(*(next(iter(weights(tmp_path / name, step).values())) for name, step in (("whole", 8), ("parts", 4))))
    other = "hf-git" if kind == "blip" else "hf-blip"
    with pytest.raises(RunStateError, match=f"begun with other settings: network: 'hf-{kind}' there, '{other}' now|network: hf-{kind} there"):
        train_here(*arguments, "--network", other, "--out", tmp_path / "parts", "--resume")
    train_here(*arguments, "--out", tmp_path / "parts", "--resume")
    for file in ("checkpoints/step-000008/model.safetensors", "checkpoints/step-000008/average.safetensors", "model/model.safetensors"):
        whole, parts = (load_file(tmp_path / name / file) for name in ("whole", "parts"))
        assert whole.keys() == parts.keys()
        assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())
    last = weights(tmp_path / "whole", 8)
    exported = load_file(tmp_path / "whole" / "model" / "model.safetensors")
    assert any(not torch.equal(tensor, last[f"model.network.{name}"]) for name, tensor in exported.items())  # the running mean was exported


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["mini", "--network", "hf-git", *TINY_VIT, "--model.encoder", "resnet18", "--model.encoder-arguments"],
            "resnet18 is none: give --model.enc",
        ),
        (["mini", "--network", "hf-blip", *TINY_VIT, "--model.heads", "3"], "--model: a width of 32 is not divided by 3 heads"),
    ],
)
def test_what_cannot_be_trained_is_named(pairs: Path, tmp_path: Path, train_here: Callable[..., None], arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as refused:
        train_here(*arguments, "--data", pairs, "--out", tmp_path / "run")
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "run" / "model").exists()


def test_a_checkpoint_of_another_kind_or_none_is_named(pairs: Path, tmp_path: Path, train_here: Callable[..., None]) -> None:
    save_git(tmp_path / "git")
    for init, message in ((tmp_path / "git", "holds a model of the type 'git', not 'blip'"), (tmp_path / "none", "could not be loaded: ")):
        with pytest.raises(CheckpointError, match=message):
            train_here("--network", "hf-blip", "--init", init, "--data", pairs, "--out", tmp_path / "run", *BRIEF, "--max-steps", 4)


@pytest.mark.slow
def test_at_the_command_line_each_is_said_without_a_traceback(pairs: Path, tmp_path: Path) -> None:
    """Some are found while the options are read, one when the network is built."""
    reuse = ["mini-git", "--frozen-encoder", 1, "--no-augment", "--reuse-features"]
    for arguments, message in (
        (reuse, "hf-git takes pictures, not features computed before; add --no-reuse-features"),
        (["small", "--network", "hf-blip"], "hf-blip has an encoder of its own, into which timm's weights do not go"),
    ):
        _, err = run("train.py", *arguments, "--data", pairs, "--out", tmp_path / "run", fails=True)
        assert message in " ".join(err.replace("│", "").split())  # in a frame
    _, err = run("train.py", "mini", "--network", "hf-git", "--data", pairs, "--out", tmp_path / "run", fails=True)
    (line,) = [line for line in err.splitlines() if line.startswith("train.py: ")]
    assert line.startswith("train.py: --network: BLIP and GIT look with a plain vision transformer; resnet18 is none")
    assert err.rstrip().endswith(line)
