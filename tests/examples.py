"""Small models and data sets for the tests of several rooms."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from data.files import write_json
from data.splits import SPLITS, Split, split_of
from data.store.directory import DATASET_FILE
from data.store.writer import ShardWriter
from diffusion.mini.world import COLOURS, SUBJECTS, random_scenes
from model import CaptionModel, EncoderConfig, ModelConfig, Preprocessing
from synthesis.plan import image_seed
from synthesis.prompts import PromptRecord


def tiny_config(**changes: object) -> ModelConfig:
    values: dict[str, object] = {
        "encoder": EncoderConfig(name="test_vit", arguments={"img_size": 32}),
        "preprocessing": Preprocessing(image_size=32),
        "vocab_size": 23,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "width": 32,
        "layers": 3,
        "heads": 4,
        "ffn_width": 48,
        "max_text_tokens": 16,
        "dropout": 0.0,
    }
    return ModelConfig(**(values | changes))  # type: ignore[arg-type]


def lively(model: CaptionModel) -> CaptionModel:
    """Redraw all weights at a scale at which every part matters; the usual initialisation makes most parts nearly silent."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(centre + 0.25 * torch.randn(parameter.shape, generator=generator))
    return model


def painted(subject: str, colour: str, size: int = 64) -> Image.Image:
    """A stand-in for a generated picture that says what it shows: a colour for the subject, a stripe for its tint."""
    place = list(SUBJECTS).index(subject)
    image = Image.new("RGB", (size, size), ((place * 37) % 256, (place * 91) % 256, (place * 53) % 256))
    image.paste(COLOURS.get(colour, (128, 128, 128)), (0, 0, size, size // 4))
    return image


def write_dataset(directory: Path, count: int, shard_size: int = 25, images_per_prompt: int = 1) -> Path:
    """Of several images of a prompt each has a patch of another grey."""
    by_split: dict[Split, list[tuple[str, PromptRecord]]] = {split: [] for split in SPLITS}
    scenes = random_scenes(1, held_out=False)
    for i in range(count):
        if i % images_per_prompt == 0:
            scene, prompt = next(scenes)
        record = PromptRecord(prompt=prompt, group=scene.key, slots=scene.slots())
        by_split[split_of(record.group)].append((f"{i:09d}", record))
    for split, pairs in by_split.items():
        for number, start in enumerate(range(0, len(pairs), shard_size)):
            with ShardWriter(directory / split, number) as writer:
                for key, record in pairs[start : start + shard_size]:
                    slots = dict(record.slots)
                    metadata = {"prompt": record.prompt, "seed": image_seed(0, int(key)), "prompt_group": record.group, "slots": slots}
                    image = painted(slots["subject"], slots["colour"])
                    if images_per_prompt > 1:
                        image.paste((int(key) % images_per_prompt * 40,) * 3, (0, 32, 32, 64))
                    writer.add(key, image, metadata)
    shards = {split: -(-len(pairs) // shard_size) for split, pairs in by_split.items()}
    write_json(directory / DATASET_FILE, {"settings": {}, "arguments": [], "shards": shards})
    return directory
