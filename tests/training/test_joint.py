"""Training on several images of a prompt at once: the network, its batches, and a run."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from commands import BRIEF, TINY_VIT
from examples import lively, tiny_config, write_dataset
from gits import save_git
from inverters import tiny_inverter
from left_by_runs import curve, weights
from PIL import Image

from data.errors import ShardError
from data.files import write_json
from data.loading.examples import Batch
from data.splits import SPLITS
from data.store.directory import DATASET_FILE
from data.store.pairs import PairDataset
from data.store.writer import ShardWriter
from inference import PromptInverter
from model import CaptionModel, EncoderConfig, load_model
from tokenizer import PromptTokenizer
from training.config import ConfigError, TrainConfig, mini
from training.data import Batches, TrainingData
from training.processes import start_accelerator
from training.starting import build_network, with_frames

NAME = "encoder.frame_embedding"


@pytest.fixture(scope="module")
def tokenizer() -> PromptTokenizer:
    return PromptTokenizer.train(["a cat on a beach"] * 3, vocab_size=300)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of three images of each prompt."""
    return write_dataset(tmp_path_factory.mktemp("joint") / "data", 240, images_per_prompt=3)


def small(data: object = "", **changes: Any) -> TrainConfig:
    model: dict[str, Any] = {"encoder": "test_vit", "encoder_arguments": ("img_size=32",), "stage": None, "image_size": 32, "width": 32, "heads": 2}
    model |= {"layers": 1, "ffn_width": 48, "dropout": 0.0}
    about: dict[str, Any] = {"data": str(data), "batch_size": 4, "workers": 0, "augment": False}
    return dataclasses.replace(mini(), model=dataclasses.replace(mini().model, **model), **(about | changes))


def begin(config: TrainConfig, tokenizer: PromptTokenizer) -> CaptionModel:
    built = build_network(config, tokenizer, text_tokens=300, pretrained=False)
    assert isinstance(built, CaptionModel)
    return built


def model_of(frames: int, seed: int = 5) -> CaptionModel:
    torch.manual_seed(seed)
    return lively(CaptionModel(tiny_config(encoder=EncoderConfig(name="test_vit", arguments={"img_size": 32}, frames=frames)))).eval()


def logits(model: CaptionModel, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    pixels, ids = torch.randn(2, *shape, 3, 32, 32, generator=generator), torch.randint(3, 20, (2, 6), generator=generator)
    with torch.no_grad():
        return model(pixels, ids)


# the network


@pytest.mark.parametrize("frames", [0, 2])
def test_with_more_frames_a_network_computes_the_same_to_the_last_bit(frames: int) -> None:
    before = model_of(frames)
    after = with_frames(before, 4)
    assert after.config == dataclasses.replace(before.config, encoder=dataclasses.replace(before.config.encoder, frames=4))
    assert torch.equal(logits(after), logits(before))
    embedding = after.state_dict()[NAME]
    assert embedding.shape == (4, 1, before.state_dict()["encoder.projection.0.weight"].shape[1])
    assert not embedding[frames:].any()
    others = before.state_dict().keys() - {NAME}
    assert all(torch.equal(after.state_dict()[name], before.state_dict()[name]) for name in others)
    assert after.state_dict().keys() == others | {NAME}
    if frames:
        assert torch.equal(embedding[:2], before.state_dict()[NAME])
        assert embedding[:2].any()
        assert torch.equal(logits(after, 2), logits(before, 2))
    assert logits(after, 4).isfinite().all()


@pytest.mark.parametrize("wanted", [1, 2, 3])
def test_a_network_never_loses_frames(wanted: int) -> None:
    before = model_of(3)
    after = with_frames(before, wanted)
    assert after.config.encoder.frames == 3
    assert torch.equal(after.state_dict()[NAME], before.state_dict()[NAME])


@pytest.mark.parametrize("joint", [1, 2, 5])
def test_a_network_from_nothing_has_an_embedding_for_each_image_that_learns(joint: int, tokenizer: PromptTokenizer) -> None:
    model = begin(small(joint=joint), tokenizer)
    assert model.config.encoder.frames == (joint if joint > 1 else 0)
    embedding = model.encoder.frame_embedding
    assert (embedding is None) == (joint == 1)
    if embedding is not None:
        assert embedding.requires_grad
        assert len(embedding) == joint


@pytest.mark.parametrize(("joint", "frames"), [(1, 3), (2, 3), (5, 5)])
def test_a_checkpoint_s_embeddings_are_kept_and_learn_where_they_have_a_part(joint: int, frames: int, tmp_path: Path) -> None:
    save_git(tmp_path, num_image_with_embedding=3)
    own = PromptTokenizer.load(tmp_path / "tokenizer.json")
    before = load_model(tmp_path)
    model = begin(dataclasses.replace(small(joint=joint), init=str(tmp_path), label_smoothing=0.3), own)
    embedding = model.encoder.frame_embedding
    assert embedding is not None
    assert embedding.requires_grad == (joint > 1)
    assert model.config.encoder.frames == len(embedding) == frames
    assert model.config.label_smoothing == 0.3
    assert torch.equal(embedding[:3], before.state_dict()[NAME])
    assert not embedding[3:].any()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.equal(logits(model.eval()), logits(before))


def test_of_a_network_that_is_to_stay_as_it_is_only_the_embeddings_learn(tokenizer: PromptTokenizer, tmp_path: Path) -> None:
    tiny_inverter().save_pretrained(tmp_path)
    model = begin(small(joint=3, frozen_encoder=1.0, frozen_decoder=True, init=str(tmp_path)), tokenizer)
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == [NAME]
    model = begin(small(joint=3, frozen_decoder=True), tokenizer)
    assert all(parameter.requires_grad for parameter in model.encoder.parameters())
    assert not any(parameter.requires_grad for parameter in model.decoder.parameters())
    alone: dict[str, Any] = {"frozen_encoder": 1.0, "frozen_decoder": True}
    for changes in (alone | {"init": "runs/mine/model"}, alone | {"joint": 3}, {"frozen_decoder": True, "network": "hf-git"}):
        with pytest.raises(ConfigError, match=r"add --init and --joint 4|frozen_decoder are of our own network"):
            small(**changes)


@pytest.mark.parametrize("all_used", [True, False])
def test_processes_look_for_what_had_no_part_in_a_batch_where_there_may_be_such(all_used: bool) -> None:
    handler = start_accelerator("fp32", all_used=all_used).ddp_handler
    assert handler is not None
    assert handler.find_unused_parameters == (not all_used)


# its batches


def batches_of(config: TrainConfig, tokenizer: PromptTokenizer, run: Path, after: int, count: int) -> list[Batch]:
    source = Batches(TrainingData(config), begin(config, tokenizer), tokenizer, run, Accelerator(cpu=True))
    return list(itertools.islice(source.after(after), count))


def test_batches_show_images_of_one_prompt_and_go_on_where_they_stopped(data: Path, tokenizer: PromptTokenizer, tmp_path: Path) -> None:
    config = small(data, joint=3, accumulate=2, augment=True)
    whole = batches_of(config, tokenizer, tmp_path, after=0, count=16)
    assert {tuple(batch.images.shape) for batch in whole} == {(4, 3, 32, 32), (4, 2, 3, 32, 32), (4, 3, 3, 32, 32)}
    assert all(batch.num_pairs == batch.images.flatten(0, -4).shape[0] for batch in whole)
    assert all(one.images.shape == other.images.shape for one, other in zip(whole[::2], whole[1::2], strict=True))  # of one update
    parts = batches_of(config, tokenizer, tmp_path, after=3, count=10)
    assert all(torch.equal(one.images, other.images) for one, other in zip(whole[6:], parts, strict=True))
    assert all(torch.equal(one.labels, other.labels) for one, other in zip(whole[6:], parts, strict=True))


def test_where_only_the_embeddings_learn_no_single_images_are_shown(data: Path, tokenizer: PromptTokenizer, tmp_path: Path) -> None:
    tiny_inverter().save_pretrained(tmp_path / "model")
    config = small(data, joint=3, frozen_encoder=1.0, frozen_decoder=True, init=str(tmp_path / "model"))
    assert {tuple(batch.images.shape[1:-3]) for batch in batches_of(config, tokenizer, tmp_path, after=0, count=16)} == {(2,), (3,)}


def test_images_of_a_batch_are_those_of_its_texts(data: Path, tokenizer: PromptTokenizer, tmp_path: Path) -> None:
    config = small(data, joint=3)
    pairs = PairDataset(data, "train")
    preprocess = begin(config, tokenizer).config.preprocessing
    of: dict[str, set[bytes]] = {}
    for number in range(len(pairs)):
        of.setdefault(pairs.prompt(number), set()).add(preprocess.pixels(pairs.image(number)).numpy().tobytes())
    assert {len(images) for images in of.values()} == {3}
    shown = 0
    for batch in batches_of(config, tokenizer, tmp_path, after=0, count=12):
        for images, ids in zip(batch.images, batch.input_ids.tolist(), strict=True):
            prompt = tokenizer.decode([token for token in ids[1:] if token != tokenizer.pad_id])
            group = [image.numpy().tobytes() for image in images.reshape(-1, 3, 32, 32)]
            assert set(group) <= of[prompt]
            assert len(set(group)) == len(group)
            shown += len(group)
    assert shown > 60


def test_features_of_a_frozen_encoder_are_shown_together(data: Path, tokenizer: PromptTokenizer, tmp_path: Path) -> None:
    about = {"joint": 3, "frozen_encoder": 1.0, "precision": "fp32"}
    plain = batches_of(small(data, **about), tokenizer, tmp_path, after=0, count=8)
    torch.manual_seed(3)
    config = small(data, reuse_features=True, **about)
    model = begin(config, tokenizer).eval()
    featured = list(itertools.islice(Batches(TrainingData(config), model, tokenizer, tmp_path, Accelerator(cpu=True)).after(0), 8))
    assert len({batch.images.ndim for batch in featured}) == 2
    for one, other in zip(plain, featured, strict=True):
        with torch.no_grad():
            expected = model.encoder.features(model.config.preprocessing.normalise(one.images))
        assert torch.equal(one.labels, other.labels)
        torch.testing.assert_close(other.images, expected, atol=2e-2, rtol=2e-3)  # kept in 16 bits


def test_data_of_one_image_a_prompt_are_refused_with_what_to_do(tmp_path: Path) -> None:
    singles = tmp_path / "singles"
    for split in SPLITS:
        with ShardWriter(singles / split, 0) as writer:
            for number in range(6):
                text = f"picture {number} of {split}" if split == "train" else "a picture"  # of which several do not help
                writer.add(f"{number:05d}", Image.fromarray(np.full((8, 8, 3), number, np.uint8)), {"prompt": text})
    write_json(singles / DATASET_FILE, {"shards": dict.fromkeys(SPLITS, 1)})
    with pytest.raises(ShardError, match=rf"each prompt of {singles} has but one image, .* generate_data\.py --images-per-prompt 4"):
        TrainingData(small(singles, joint=2))
    assert TrainingData(small(singles)).prompt_numbers == []


# a run


def test_a_run_teaches_the_embeddings_and_goes_on_where_it_stopped(data: Path, tmp_path: Path, train_here: Callable[..., None]) -> None:
    arguments = ["mini", "--data", data, *TINY_VIT, "--joint", 3, "--accumulate", 2, "--max-steps", 8, "--batch-size", 4, "--keep-checkpoints", 9]
    train_here(*arguments, "--out", tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    shutil.rmtree(tmp_path / "parts" / "checkpoints" / "step-000008")
    train_here(*arguments, "--out", tmp_path / "parts", "--resume")
    whole, parts = (weights(tmp_path / name, 8) for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    moved = whole[f"model.{NAME}"]
    assert moved.shape[:2] == (3, 1)
    assert all(float(one.abs().max()) > 1e-5 for one in moved)  # from nothing
    inverter = PromptInverter.from_pretrained(tmp_path / "whole" / "model", device="cpu")
    assert inverter.most_together == 3
    pairs = PairDataset(data, "test")
    assert len(inverter.predict_joint([[pairs.image(0), pairs.image(1)], [pairs.image(2)]])) == 2
    assert curve(tmp_path / "whole", "speed/updates_per_second")[-1] > 0


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_of_the_embeddings_alone_leaves_single_images_to_be_read_as_before(
    optimizer: str, data: Path, tmp_path: Path, train_here: Callable[..., None]
) -> None:
    tiny_inverter().save_pretrained(tmp_path / "before")
    arguments = ["--init", tmp_path / "before", "--frozen-encoder", 1, "--frozen-decoder", "--joint", 3, *BRIEF, "--batch-size", 4, "--max-steps", 4]
    train_here("mini", "--data", data, *arguments, "--optimizer", optimizer, "--out", tmp_path / "run")
    before, after = load_model(tmp_path / "before"), load_model(tmp_path / "run" / "model")
    assert torch.equal(logits(after), logits(before))
    assert all(float(one.abs().max()) > 1e-5 for one in after.state_dict()[NAME])
    assert after.state_dict().keys() == before.state_dict().keys() | {NAME}
    assert all(torch.equal(tensor, after.state_dict()[name]) for name, tensor in before.state_dict().items())
