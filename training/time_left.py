"""How long a job will take: a few updates are timed before there is any data, and the rest is counted in updates."""

from __future__ import annotations

import time
from itertools import islice

import torch

from core.device import autocast, compute_precision
from data.loading.examples import Collate, Example, TextFormat
from diffusion.mini.world import random_scenes
from model import IGNORED_LABEL
from tokenizer import PromptTokenizer
from training.config import TrainConfig
from training.objective import CaptionLoss
from training.optimizer import build_optimizer
from training.starting import build_network

_PROMPTS = 1000
_WARM_UP, _TIMED = 2, 3  # updates
# what comes after the last update, calibration and comparison, in the time of updates; `python train.py` prints both
_END_PAIRS = 6000
_END_SECONDS = 15  # of libraries that are imported for it


def seconds_of_end(config: TrainConfig, update_seconds: float) -> float:
    """The time from the last update to the end of the command."""
    return _END_SECONDS + _END_PAIRS / config.batch_size * update_seconds


def seconds_of_training(config: TrainConfig, device: torch.device) -> float:
    """The time that a run on the bundled world will take after its data is made, by a few updates on random pixels and prompts of that world."""
    prompts = [prompt for _, prompt in islice(random_scenes(0, held_out=False), _PROMPTS)]
    tokenizer = PromptTokenizer.train(prompts, config.model.vocab_size)
    text = TextFormat(tokenizer.encode, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, max_tokens=64)
    model = build_network(config, tokenizer, text_tokens=text.max_tokens, pretrained=False).to(device).train()
    objective, collate = CaptionLoss(model), Collate(tokenizer.pad_id, IGNORED_LABEL)
    options = {"learning_rate": config.learning_rate, "encoder_rate": config.encoder_rate, "weight_decay": config.weight_decay}
    optimizer = build_optimizer(config.optimizer, model.encoder, model.decoder, dtype=compute_precision(device).dtype, **options)
    height, width = model.config.preprocessing.size
    for number in range(_WARM_UP + _TIMED):
        if number == _WARM_UP:
            begun = time.perf_counter()
        for part in range(config.accumulate):
            first = (number * config.accumulate + part) * config.batch_size
            some = [prompts[place % len(prompts)] for place in range(first, first + config.batch_size)]
            pixels = torch.randint(0, 256, (len(some), 3, height, width), dtype=torch.uint8)
            batch = collate([Example(image, text(prompt)) for image, prompt in zip(pixels, some, strict=True)])
            batch = batch.to(device, model.config.preprocessing.normalise)
            with autocast(device, compute_precision(device, config.precision)):
                loss = objective(batch.images, batch.input_ids, batch.labels) / batch.num_tokens
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    seconds = (time.perf_counter() - begun) / _TIMED
    return config.max_steps * seconds + seconds_of_end(config, seconds)
