"""When a run must not go on: losses that are no numbers, data that cannot be read."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from training.run_state import Progress

LOST_UPDATES = 10  # in a row
SKIPPED_SHARE = 0.05
_ENOUGH_SEEN = 200


class TrainingError(RuntimeError):
    """A run that had to stop; says why and what to do."""


class NormStatistics:
    """The running means and variances of batch normalisation, which a forward pass changes, whatever becomes of its update."""

    def __init__(self, model: nn.Module) -> None:
        layers = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._NormBase)]
        self._now = [buffer for layer in layers for buffer in layer.buffers(recurse=False)]
        self._kept = [buffer.clone() for buffer in self._now]

    def keep(self) -> None:
        """Before an update's forward passes."""
        for kept, now in zip(self._kept, self._now, strict=True):
            kept.copy_(now)

    def restore(self) -> None:
        """With an update that is lost: one batch that is no number would leave them so for good, while the training loss, which does not use them,
        looks as ever."""
        for kept, now in zip(self._kept, self._now, strict=True):
            now.copy_(kept)


def check_update(model: nn.Module, progress: Progress, loss: Tensor, norm: float, learning_rate: float, dtype: torch.dtype) -> bool:
    """Whether an update can be made: its gradients are finite. One that cannot is counted and passed over.

    Args:
        dtype: that the network computes in.

    Raises:
        TrainingError: `LOST_UPDATES` in a row were lost; with a diagnosis.
    """
    if math.isfinite(norm):
        progress.lost_in_a_row = 0
        return True
    progress.lost_updates += 1
    progress.lost_in_a_row += 1
    if progress.lost_in_a_row < LOST_UPDATES:
        return False
    broken = [name for name, parameter in model.named_parameters() if not bool(parameter.isfinite().all())]
    gradients = [name for name, parameter in model.named_parameters() if parameter.grad is not None and not bool(parameter.grad.isfinite().all())]
    if broken:
        cause = f"weights are no longer numbers ({_some(broken)})"
    elif not bool(loss.isfinite()):
        cause = "the loss is no number, while all weights are: the activations overflow"
    else:
        cause = f"the loss is {float(loss):.3g}, but gradients are no numbers ({_some(gradients)})"
    remedy = "--precision bf16 has the range that fp16 lacks" if dtype == torch.float16 else "a lower --learning-rate, a longer --warmup-steps"
    raise TrainingError(
        f"{LOST_UPDATES} updates in a row were lost up to step {progress.step}: {cause}. The learning rate is {learning_rate:.2g}. "
        f"Go on from the last checkpoint, or begin anew, with {remedy} or a smaller --clip-norm"
    )


def check_skipped(progress: Progress) -> None:
    """
    Raises:
        TrainingError: more than 5 % of the pairs could not be used.
    """
    skipped = sum(progress.skipped.values())
    if skipped > SKIPPED_SHARE * (progress.seen + skipped) and progress.seen + skipped >= _ENOUGH_SEEN:
        raise TrainingError(
            f"{skipped} of {progress.seen + skipped} pairs could not be used: {skipped_kinds(progress)}. Mend or remove them, then resume"
        )


def skipped_kinds(progress: Progress) -> str:
    return ", ".join(f"{count} x {kind}" for kind, count in sorted(progress.skipped.items(), key=lambda item: -item[1]))


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
