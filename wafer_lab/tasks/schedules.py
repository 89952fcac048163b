"""Learning-rate schedules, stepped once per batch."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR


def cosine(optimizer: Optimizer, total_steps: int, warmup: float = 0.05, floor: float = 0.0) -> LRScheduler:
    """Linear warm-up, then half a cosine down (Loshchilov and Hutter 2017, without restarts).

    Args:
        optimizer: The optimizer; its learning rate is the peak.
        total_steps: Optimizer steps of the whole run.
        warmup: Fraction of the steps spent warming up, in [0, 1).
        floor: Final learning rate as a fraction of the peak.

    Returns:
        The schedule.
    """
    rising = round(warmup * total_steps)

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        progress = min(1.0, (step - rising) / max(1, total_steps - rising))
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)


def one_cycle(
    optimizer: Optimizer,
    total_steps: int,
    warmup: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> LRScheduler:
    """One-cycle policy (Smith and Topin 2018): up, down, and momentum the other way round.

    Args:
        optimizer: The optimizer; its learning rate is the peak.
        total_steps: Optimizer steps of the whole run.
        warmup: Fraction of the steps spent rising.
        div_factor: Peak over initial learning rate.
        final_div_factor: Initial over final learning rate.

    Returns:
        The schedule.
    """
    peaks = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(
        optimizer,
        max_lr=peaks,
        total_steps=total_steps,
        pct_start=warmup,
        div_factor=div_factor,
        final_div_factor=final_div_factor,
    )
