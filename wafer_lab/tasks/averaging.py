"""An exponential moving average of the weights, which is what is validated, kept and tested."""

from typing import Any

import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from wafer_lab.errors import UserError


class EMA(WeightAveraging):
    """Average the weights and the statistics of batch normalisation over the steps.

    The decay grows as (1 + step) / (10 + step) until it reaches its value, as in the reference implementation of
    EfficientNet and others. With a constant .999 the random weights of the start would be a third of the average still
    after a thousand steps, and the first epochs of a run would be judged by them.

    Args:
        decay: Share of the old average kept in a step, in [0, 1); .999 remembers about a thousand steps.
    """

    def __init__(self, decay: float = 0.999):
        if not 0 <= decay < 1:
            raise UserError(f"callbacks.ema.decay={decay} must lie in [0, 1)")
        super().__init__(multi_avg_fn=self._average)
        self.decay, self._step = decay, 0

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """After every step."""
        if step_idx is None:
            return False
        self._step = step_idx
        return True

    @torch.no_grad()
    def _average(self, averaged: Any, current: Any, _: Any) -> None:
        """Move the averages (tensors of one type) towards the current values, all in one call."""
        values: list[Tensor] = list(averaged)
        if values[0].is_floating_point():
            decay = min(self.decay, (1 + self._step) / (10 + self._step))
            torch._foreach_lerp_(values, list(current), 1 - decay)
        else:
            torch._foreach_copy_(values, list(current))
