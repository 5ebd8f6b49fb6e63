import math
from typing import get_args

import pytest
import torch
from examples import tiny_config
from torch import nn

from model import CaptionModel
from training.config import OptimizerName
from training.optimizer import build_optimizer, warmup_cosine


@pytest.mark.parametrize("kind", get_args(OptimizerName))
def test_every_parameter_is_in_one_group_and_only_matrices_decay(kind: OptimizerName) -> None:
    model = CaptionModel(tiny_config())
    optimizer = build_optimizer(kind, model.encoder, model.decoder, learning_rate=1.0, encoder_rate=0.2, weight_decay=0.1)
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
    shapes |= {
        "relative_position_bias_table": (49, 3),
        "position": (1, 16, 8),
        "kernel": (8, 3, 2, 2),
        "weight": (8, 8),
        "gamma": (8,),
        "row": (1, 8),
    }
    for name, shape in shapes.items():
        encoder.register_parameter(name, nn.Parameter(torch.zeros(shape)))
    decoder = nn.Linear(2, 2)
    decoder.weight.requires_grad_(False)
    optimizer = build_optimizer("adamw", encoder, decoder, learning_rate=1.0, encoder_rate=1.0, weight_decay=0.1)
    names = {id(parameter): name for name, parameter in (*encoder.named_parameters(), *decoder.named_parameters())}
    decayed = {names[id(parameter)] for group in optimizer.param_groups if group["weight_decay"] for parameter in group["params"]}
    others = [names[id(parameter)] for group in optimizer.param_groups if not group["weight_decay"] for parameter in group["params"]]
    assert decayed == {"kernel", "weight"}
    assert others == [*(name for name in shapes if name not in decayed), "bias"]
    assert all(group["fused"] for group in optimizer.param_groups)


class Parts(nn.Module):
    """What Muon moves, what it leaves to AdamW, and a kernel of one channel each, which is no matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix, self.kernel, self.depthwise = nn.Linear(12, 8), nn.Conv2d(4, 6, 3), nn.Conv2d(5, 5, 3, groups=5)
        self.norm, self.embedding = nn.LayerNorm(8), nn.Embedding(7, 8)
        self.pos_embed = nn.Parameter(torch.zeros(1, 9, 8))

    def take(self, gradients: int) -> None:
        torch.manual_seed(gradients)
        for parameter in self.parameters():
            parameter.grad = torch.randn_like(parameter)


def muon(parts: nn.Module, nothing: nn.Module, *, weight_decay: float = 0.0) -> torch.optim.Optimizer:
    return build_optimizer("muon", parts, nothing, learning_rate=0.01, encoder_rate=0.5, weight_decay=weight_decay)


def test_muon_moves_matrices_and_kernels_by_orthogonal_steps_of_adamws_size() -> None:
    """Singular values by torch.linalg.svd: those of a step are all alike, 0.2 x rate x sqrt(larger side), whatever the gradient's were."""
    torch.manual_seed(0)
    parts, nothing = Parts(), nn.Module()
    before = {name: parameter.detach().clone() for name, parameter in parts.named_parameters()}
    parts.take(1)
    muon(parts, nothing).step()
    for name, shape in (("matrix.weight", (8, 12)), ("kernel.weight", (6, 36))):
        parameter = parts.get_parameter(name)
        assert parameter.grad is not None
        step, gradient = ((tensor.reshape(shape)) for tensor in (parameter.detach() - before[name], parameter.grad))
        left, _, right = torch.linalg.svd(gradient, full_matrices=False)
        size = 0.5 * 0.01 * 0.2 * max(shape) ** 0.5
        along = -(left.T @ step @ right.T) / size  # in the gradient's own axes it is the identity
        assert torch.allclose(along, torch.eye(len(along)), atol=0.25), name
        assert float(along.diagonal().mean()) == pytest.approx(1, abs=0.1), name


def test_muons_steps_follow_the_momentum_looked_at_ahead() -> None:
    parts, nothing = Parts(), nn.Module()
    optimizer = muon(parts, nothing)
    parts.take(1)
    first = parts.matrix.weight.grad
    optimizer.step()
    before = parts.matrix.weight.detach().clone()
    assert first is not None
    parts.take(2)
    second = parts.matrix.weight.grad = -0.9 * first  # what is looked at ahead turns back, the momentum itself does not yet
    optimizer.step()
    momentum = 0.95 * 0.05 * first + 0.05 * second
    left, _, right = torch.linalg.svd(0.95 * momentum + 0.05 * second, full_matrices=False)
    along = -(left.T @ (parts.matrix.weight.detach() - before) @ right.T) / (0.5 * 0.01 * 0.2 * 12**0.5)
    assert torch.allclose(along, torch.eye(8), atol=0.25)


def test_beside_muon_the_rest_moves_as_under_adamw_alone() -> None:
    torch.manual_seed(0)
    one, other, nothing = Parts(), Parts(), nn.Module()
    other.load_state_dict(one.state_dict())
    reference = build_optimizer("adamw", other, nothing, learning_rate=0.01, encoder_rate=0.5, weight_decay=0.1)
    optimizer = muon(one, nothing, weight_decay=0.1)
    for gradients in range(3):
        for parts, by in ((one, optimizer), (other, reference)):
            parts.take(gradients)
            by.step()
    # a kernel of one channel each is no matrix: nothing to make orthogonal
    for name in ("matrix.bias", "kernel.bias", "depthwise.weight", "norm.weight", "norm.bias", "embedding.weight", "pos_embed"):
        assert torch.allclose(one.get_parameter(name), other.get_parameter(name), atol=1e-6), name
    assert not torch.allclose(one.matrix.weight, other.matrix.weight, atol=1e-3)


def test_muon_decays_what_it_moves() -> None:
    torch.manual_seed(0)
    parts, nothing = Parts(), nn.Module()
    before = parts.matrix.weight.detach().clone()
    for parameter in parts.parameters():
        parameter.grad = torch.zeros_like(parameter)
    muon(parts, nothing, weight_decay=0.1).step()
    assert torch.allclose(parts.matrix.weight, before * (1 - 0.5 * 0.01 * 0.1))


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
