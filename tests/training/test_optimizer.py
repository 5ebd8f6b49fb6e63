import math

import pytest
import torch
from examples import tiny_config
from torch import nn

from model import CaptionModel
from training.optimizer import build_optimizer, warmup_cosine


def test_every_parameter_is_in_one_group_and_only_matrices_decay() -> None:
    model = CaptionModel(tiny_config())
    optimizer = build_optimizer(model.encoder, model.decoder, learning_rate=1.0, encoder_rate=0.2, weight_decay=0.1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    seen = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(seen) == sorted(names)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            assert group["lr"] == pytest.approx(0.2 if name.startswith("encoder") else 1.0)
            plain = name.endswith("bias") or "norm" in name or "embedding" in name or "pos_embed" in name or "cls_token" in name
            if plain:
                assert group["weight_decay"] == 0, name
            elif name.endswith("weight") and parameter.ndim >= 2 and "projection.1" not in name:
                assert group["weight_decay"] == 0.1, name


def test_what_is_learnt_as_an_input_does_not_decay() -> None:
    """Frames' embeddings, register, class and distillation tokens, positions, relative ones too: matrices in shape only."""
    encoder = nn.Module()
    shapes = {"frame_embedding": (6, 1, 8), "reg_token": (1, 4, 8), "cls_token": (1, 1, 8), "dist_token": (2, 8), "pos_embed": (1, 16, 8)}
    shapes |= {"relative_position_bias_table": (49, 3), "position": (1, 16, 8), "kernel": (8, 3, 2, 2), "weight": (8, 8), "gamma": (8,)}
    for name, shape in shapes.items():
        encoder.register_parameter(name, nn.Parameter(torch.zeros(shape)))
    decoder = nn.Linear(2, 2)
    decoder.weight.requires_grad_(False)
    optimizer = build_optimizer(encoder, decoder, learning_rate=1.0, encoder_rate=1.0, weight_decay=0.1)
    names = {id(parameter): name for name, parameter in (*encoder.named_parameters(), *decoder.named_parameters())}
    decayed = {names[id(parameter)] for group in optimizer.param_groups if group["weight_decay"] for parameter in group["params"]}
    others = [names[id(parameter)] for group in optimizer.param_groups if not group["weight_decay"] for parameter in group["params"]]
    assert decayed == {"kernel", "weight"}
    assert others == [*(name for name in shapes if name not in decayed), "bias"]
    assert all(group["fused"] for group in optimizer.param_groups)


def test_schedule_by_hand() -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=2.0)
    schedule = warmup_cosine(optimizer, warmup_steps=4, max_steps=12)
    rates = []
    for _ in range(13):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:5] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    assert rates[8] == pytest.approx(1.0)  # halfway down
    assert rates[10] == pytest.approx(1 + math.cos(math.pi * 6 / 8))
    assert rates[12] == pytest.approx(0.0)
