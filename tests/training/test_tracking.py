from pathlib import Path

import pytest
import torch
from examples import painted
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from model import CaptionModel
from training.config import mini
from training.tracking import Tracker, attention_panel, word_maps


def events(run: Path) -> EventAccumulator:
    found = EventAccumulator(str(run), size_guidance={"images": 0, "scalars": 0})
    found.Reload()
    return found


def test_everything_arrives_in_tensorboard(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, 0)
    tracker.scalars({"train/loss": 2.5, "skipped/damaged image": 3}, 10)
    tracker.panel([painted("cat", "red")] * 2, ["a", "b"], ["c", "d"], 10)
    tracker.attention([painted("cat", "red")], [[("cat", torch.rand(4, 4)), ("beach", torch.rand(4, 4))]], 10)
    tracker.settings(mini(), {"test/similarity": 0.9})
    tracker.close()
    found = events(tmp_path)
    assert found.Scalars("train/loss")[0].value == 2.5
    assert set(found.Tags()["images"]) == {"validation/predictions", "validation/attention"}
    assert found.Scalars("test/similarity")[0].value == pytest.approx(0.9)
    hparams = found.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"learning_rate" in hparams
    assert b"model.encoder" in hparams


def test_a_resumed_run_takes_back_what_was_shown_after_its_checkpoint(tmp_path: Path) -> None:
    first = Tracker(tmp_path, 0)
    for step in (10, 20, 30):
        first.scalars({"train/loss": step}, step)
    first.close()
    second = Tracker(tmp_path, 20)
    second.scalars({"train/loss": 31}, 30)
    second.close()
    assert [(event.step, event.value) for event in events(tmp_path).Scalars("train/loss")] == [(10, 10), (20, 20), (30, 31)]


def test_a_full_disk_silences_it_and_the_run_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Tracker(tmp_path, 0)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tracker.writer, "add_scalar", full)
    tracker.scalars({"a": 1.0}, 1)
    tracker.scalars({"a": 1.0}, 2)
    tracker.panel([painted("cat", "red")], ["a"], ["b"], 2)
    tracker.close()
    assert capsys.readouterr().err.count("training goes on without them") == 1


def test_the_panel_is_light_where_the_word_looks() -> None:
    where = torch.zeros(4, 4)
    where[0, 3] = 1  # the upper right corner
    panel = attention_panel([Image.new("RGB", (32, 32), (200, 200, 200))], [[("corner", where)]])
    right, left = panel.getpixel((160 + 155, 4)), panel.getpixel((160 + 5, 155))
    assert isinstance(right, tuple)
    assert isinstance(left, tuple)
    assert right[0] > 180
    assert left[0] < 100


def test_pieces_of_a_word_are_one_word(tiny_model: CaptionModel) -> None:
    pieces = {3: "water", 4: "color", 5: " of", 6: " a", 7: " cat", 8: ",", 9: " beach"}
    tokens = [3, 4, 5, 6, 7, 8, 9, tiny_model.config.eos_token_id]
    pixels = torch.randn(1, 3, 32, 32)
    words = word_maps(tiny_model, lambda ids: "".join(pieces[i] for i in ids), pixels, tokens)
    assert [word for word, _ in words] == ["watercolor", "beach"]
    text = torch.tensor([[tiny_model.config.bos_token_id, *tokens[:-2]]])
    maps = tiny_model.attention_maps(pixels, text)
    assert maps is not None
    torch.testing.assert_close(words[0][1], maps[0, :2].mean(0))
    assert word_maps(tiny_model, str, pixels, [tiny_model.config.eos_token_id]) == []
