"""The exported graphs against PyTorch: what is known of the images, tokens and scores of every way of decoding."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from examples import painted
from inverters import tiny_inverter

import export
from inference import PromptInverter
from inference.onnx import OnnxModel, quantise
from model import CheckpointError, NotFiniteError

IMAGES = [painted("cat", "red"), painted("dog", "blue"), painted("owl", "green"), painted("fox", "white")]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[PromptInverter, Path]:
    """A checkpoint, and the directory of its graphs."""
    pytest.importorskip("onnxruntime")
    directory = tmp_path_factory.mktemp("exported")
    inverter = tiny_inverter()
    with torch.no_grad():
        inverter.model.decoder.output_bias[inverter.tokenizer.eos_id] += 4.0  # so that texts end at different lengths
    inverter.save_pretrained(directory / "model")
    export.main(export.ExportConfig(checkpoint=str(directory / "model"), out=directory / "graphs"))
    return inverter, directory


def test_the_graphs_write_what_pytorch_writes(both: tuple[PromptInverter, Path]) -> None:
    ours, directory = both
    theirs = PromptInverter.from_pretrained(directory / "graphs")
    assert isinstance(theirs.model, OnnxModel)
    torch.testing.assert_close(theirs.encode(IMAGES), ours.encode(IMAGES), atol=1e-5, rtol=1e-4)
    lengths = set()
    for options in (
        {"num_beams": 1},
        {"num_beams": 1, "prefix": "two dogs"},
        {"num_beams": 4, "num_return_sequences": 3},
        {"do_sample": True, "seed": 3, "num_return_sequences": 4, "temperature": 1.5},
    ):
        for one, other in zip(theirs.predict(IMAGES, batch_size=3, **options), ours.predict(IMAGES, batch_size=3, **options), strict=True):
            assert [token.text for token in one.tokens] == [token.text for token in other.tokens]
            assert one.log_probs == pytest.approx(other.log_probs, abs=1e-4)
            assert [candidate.prompt for candidate in one.alternatives] == [candidate.prompt for candidate in other.alternatives]
            lengths.add(len(one.tokens))
    assert len(lengths) > 1


def test_where_pytorch_is_needed_it_is_said(both: tuple[PromptInverter, Path], tmp_path: Path) -> None:
    theirs = PromptInverter.from_pretrained(both[1] / "graphs")
    for ask in (lambda: theirs.save_pretrained(tmp_path / "x"), lambda: theirs.assess(IMAGES[:1], ["a cat"]), lambda: theirs.features(IMAGES)):
        with pytest.raises(ValueError, match="the checkpoint that the ONNX graphs were exported from"):
            ask()
    assert theirs.most_together == 1
    assert theirs.predict_joint([IMAGES[:1]]) == theirs.predict(IMAGES[:1])
    with pytest.raises(ValueError, match="1 to 1 pictures of one prompt together, not 2"):
        theirs.predict_joint([IMAGES[:2]])
    with pytest.raises(ValueError, match="leave device and dtype out"):
        PromptInverter.from_pretrained(both[1] / "graphs", dtype="bfloat16")


def test_other_graphs_are_known_as_others_and_broken_ones_named(both: tuple[PromptInverter, Path], tmp_path: Path) -> None:
    whole = PromptInverter.from_pretrained(both[1] / "graphs").fingerprint()
    shutil.copytree(both[1] / "graphs", tmp_path / "changed")
    quantise(tmp_path / "changed")
    assert PromptInverter.from_pretrained(tmp_path / "changed").fingerprint() != whole
    step = tmp_path / "changed" / "step.onnx"
    step.write_bytes(step.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="export it again"):
        PromptInverter.from_pretrained(tmp_path / "changed")


def test_numbers_that_are_none_are_an_error_and_no_text(both: tuple[PromptInverter, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = PromptInverter.from_pretrained(both[1] / "graphs")
    encode = OnnxModel.encode
    monkeypatch.setattr(OnnxModel, "encode", lambda self, pixels: encode(self, pixels) * torch.nan)
    with pytest.raises(NotFiniteError, match="export it again"):
        theirs.predict(IMAGES, num_beams=1)


def test_what_cannot_be_exported_leaves_nothing(both: tuple[PromptInverter, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = str(both[1] / "model")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other things"):
        export.main(export.ExportConfig(checkpoint=model, out=tmp_path / "full"))
    monkeypatch.setattr(export, "export_graphs", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        export.main(export.ExportConfig(checkpoint=model, out=tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_an_export_that_writes_other_texts_is_refused(both: tuple[PromptInverter, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = both[1] / "graphs"
    other = tiny_inverter()
    with torch.no_grad():
        other.model.decoder.output_bias += torch.from_numpy(np.random.default_rng(0).normal(0, 3, len(other.model.decoder.output_bias))).float()
    other.save_pretrained(tmp_path / "other")

    def copied(model: object, directory: Path) -> None:
        for name in ("encoder.onnx", "prefill.onnx", "step.onnx"):
            shutil.copy(graphs / name, directory / name)

    monkeypatch.setattr(export, "export_graphs", copied)
    with pytest.raises(CheckpointError, match="onnxruntime writes another text than PyTorch"):
        export.main(export.ExportConfig(checkpoint=str(tmp_path / "other"), out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    export.main(export.ExportConfig(checkpoint=str(tmp_path / "other"), out=tmp_path / "out", int8=True))  # which may differ, and says how often


@pytest.mark.slow
def test_post_norm_networks_are_exported_too(tmp_path: Path) -> None:
    """GIT's layout."""
    pytest.importorskip("onnxruntime")
    inverter = tiny_inverter(norm="post", tied_output=False)
    assert dataclasses.asdict(inverter.model.config)["norm"] == "post"
    inverter.save_pretrained(tmp_path / "model")
    export.main(export.ExportConfig(checkpoint=str(tmp_path / "model"), out=tmp_path / "graphs"))
