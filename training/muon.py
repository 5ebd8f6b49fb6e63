"""timm's Muon, with the matrices of one shape made orthogonal together and in a precision that the device multiplies in."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from timm.optim.muon import Muon, get_lr_scale, zeropower_via_newtonschulz
from torch import Tensor
from torch.distributed.tensor import DTensor

# of each of five iterations X <- a X + b (X X^T) X + c (X X^T)^2 X: timm's default, by F. L. Cesista, "Squeezing 1-2% efficiency gains out of Muon"
COEFFICIENTS = [
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
]
_WIDE = 1.5  # columns for each row, from which the Gram matrix saves products


class BatchedMuon(Muon):
    """Muon (Jordan et al., 2024) for groups with `use_muon`, AdamW for the others; parameters, groups and state are timm's.

    timm's class makes one matrix after another orthogonal, and in bfloat16 on every device, which a CPU without it emulates.
    """

    def __init__(self, groups: list[dict[str, Any]], *, dtype: torch.dtype, **options: Any) -> None:
        """
        Args:
            dtype: of the Newton-Schulz iteration.
            options: of timm's class.
        """
        super().__init__(groups, ns_steps=len(COEFFICIENTS), ns_coefficients=COEFFICIENTS, **options)
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        groups = self.param_groups
        try:
            self.param_groups = [group for group in groups if not group["use_muon"]]
            loss = super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            if group["use_muon"]:
                self._orthogonal_step(group)
        return loss

    def _orthogonal_step(self, group: dict[str, Any]) -> None:
        """Nesterov's momentum (timm's: a running mean), made orthogonal, times 0.2 sqrt(larger side)."""
        momentum, rate = group["momentum"], group["lr"]
        alike: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state.update(use_muon=True, momentum_buffer=torch.zeros_like(parameter, memory_format=torch.preserve_format))
            mean = state["momentum_buffer"].lerp_(parameter.grad, 1 - momentum)
            update = parameter.grad.lerp(mean, momentum).flatten(1)
            alike[(min(update.shape), max(update.shape))].append((parameter, update))
        for matrices in alike.values():
            for (parameter, update), orthogonal in zip(matrices, self._orthogonal([update for _, update in matrices], group), strict=True):
                parameter.mul_(1 - rate * group["weight_decay"])
                scale = get_lr_scale(update.shape, group["adjust_lr_fn"])
                parameter.add_(orthogonal.reshape(parameter.shape), alpha=-rate * scale)

    def _orthogonal(self, updates: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """(M, N) or (N, M) each -> the nearest orthogonal matrices. Sharded ones are gathered by timm's function one by one."""
        if isinstance(updates[0], DTensor):
            return [_by_products_with_all(update, group["eps"], self._dtype) for update in updates]
        is_wide = [update.shape[0] <= update.shape[1] for update in updates]
        stacked = torch.stack([update if wide else update.mT for update, wide in zip(updates, is_wide, strict=True)])
        return [matrix if wide else matrix.mT for matrix, wide in zip(orthogonal(stacked, group["eps"], self._dtype), is_wide, strict=True)]


def orthogonal(matrices: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """Newton-Schulz's iteration, X <- (a + b G + c G^2) X with G = X X^T.

    In float32 the polynomials are multiplied with each other, M x M, and once with X, instead of with X in every iteration: for the matrices of a
    transformer half the products. The Gram matrix has the squares of the singular values, for which bfloat16 is too coarse.

    Args:
        matrices: (B, M, N), M <= N.
        eps: the least norm that they are divided by.

    Returns:
        (B, M, N), in `dtype`.
    """
    rows, columns = matrices.shape[1:]
    if dtype.itemsize < 4 or columns < _WIDE * rows:
        return _by_products_with_all(matrices, eps, dtype)
    x = matrices.to(dtype)
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)
    gram = x @ x.mT
    product = None
    for number, (a, b, c) in enumerate(COEFFICIENTS, 1):
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        polynomial.diagonal(dim1=-2, dim2=-1).add_(a)
        product = polynomial if product is None else polynomial @ product
        if number < len(COEFFICIENTS):
            gram = polynomial @ (polynomial @ gram)  # all of them are polynomials of one matrix, so their order does not matter
    assert product is not None
    return product @ x


def _by_products_with_all(matrices: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    return zeropower_via_newtonschulz(matrices, len(COEFFICIENTS), COEFFICIENTS, eps=eps, dtype=dtype)
