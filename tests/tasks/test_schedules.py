import math

import pytest
import torch

from wafer_lab.tasks.schedules import cosine, one_cycle


def rates(schedule, steps, peak=0.1, **options):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak, momentum=0.9)
    scheduler = schedule(optimizer, total_steps=steps, **options)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_cosine_rises_then_falls_to_the_floor():
    seen = rates(cosine, 100, warmup=0.1, floor=0.01)
    assert seen[:10] == pytest.approx([0.1 * (i + 1) / 10 for i in range(10)])
    expected = [0.1 * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * i / 90))) for i in range(90)]
    assert seen[10:] == pytest.approx(expected)


def test_cosine_without_warmup_starts_at_the_peak():
    assert rates(cosine, 10, warmup=0.0)[0] == pytest.approx(0.1)


def test_one_cycle_peaks_once():
    seen = rates(one_cycle, 50, warmup=0.3)
    assert max(seen) == pytest.approx(0.1)
    top = seen.index(max(seen))
    assert seen[: top + 1] == sorted(seen[: top + 1])
    assert seen[top:] == sorted(seen[top:], reverse=True)
    assert seen[-1] < 1e-5
