"""NT-Xent against the paper's algorithm in plain loops, and over two processes."""

import math
import os
import subprocess
import sys

import pytest
import torch

from wafer_lab.losses.contrastive import feature_spread, nt_xent


def by_the_paper(first, second, temperature):
    """Algorithm 1 of Chen et al. 2020: views 2k-1 and 2k are of one wafer."""
    views = [row for pair in zip(first.tolist(), second.tolist(), strict=True) for row in pair]

    def similarity(a, b):
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))

    def term(i, j):
        others = [math.exp(similarity(views[i], views[k]) / temperature) for k in range(len(views)) if k != i]
        return -math.log(math.exp(similarity(views[i], views[j]) / temperature) / sum(others))

    pairs = range(0, len(views), 2)
    return sum(term(i, i + 1) + term(i + 1, i) for i in pairs) / len(views)


@pytest.mark.parametrize("temperature", [0.07, 0.5, 2.0])
def test_the_loss_is_the_papers(temperature):
    first, second = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0))
    expected = by_the_paper(first.double(), second.double(), temperature)
    assert float(nt_xent(first, second, temperature)) == pytest.approx(expected, rel=1e-5)
    assert float(nt_xent(10 * first, second / 3, temperature)) == pytest.approx(expected, rel=1e-5)  # lengths are free


def test_where_all_views_are_alike_the_partner_is_one_of_many():
    views = torch.ones(6, 4)
    assert float(nt_xent(views, views, 0.1)) == pytest.approx(math.log(11), rel=1e-5)


def test_wafers_that_are_told_apart_perfectly_cost_next_to_nothing():
    views = torch.eye(6)
    expected = math.log(1 + 10 * math.exp(-1 / 0.1))
    assert float(nt_xent(views, views, 0.1)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_narrow_numbers_and_a_low_temperature_stay_finite(kind):
    first = torch.randn(8, 16, generator=torch.Generator().manual_seed(0)).to(kind).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = nt_xent(first, first.detach(), 0.01)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(first.grad).all()


ONE_OF_TWO = """
import os, sys, torch, torch.distributed as dist
from wafer_lab.losses.contrastive import nt_xent
rank = int(os.environ["RANK"])
dist.init_process_group("gloo")
views = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
mine = views[:, 3 * rank : 3 * rank + 3].clone().requires_grad_()
loss = nt_xent(mine[0], mine[1], 0.2, exchange=True)
loss.backward()
total = loss.detach().clone()
dist.all_reduce(total)
whole = views.clone().requires_grad_()
expected = nt_xent(whole[0], whole[1], 0.2)
expected.backward()
torch.testing.assert_close(total / 2, expected.detach())
torch.testing.assert_close(mine.grad / 2, whole.grad[:, 3 * rank : 3 * rank + 3], rtol=1e-4, atol=1e-6)
dist.destroy_process_group()
"""


def test_two_processes_have_the_loss_and_the_gradient_of_one():
    """The mean of the processes' gradients, which is what data-parallel training takes, is that of the whole batch."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(29500 + os.getpid() % 2000), "WORLD_SIZE": "2"}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_OF_TWO],
            env=os.environ | place | {"RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in both:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said


def test_spread_is_zero_where_features_collapse_and_one_where_they_point_everywhere():
    generator = torch.Generator().manual_seed(0)
    assert float(feature_spread(torch.randn(1, 64, generator=generator).expand(32, 64))) == pytest.approx(0, abs=1e-6)
    assert float(feature_spread(torch.randn(4096, 64, generator=generator))) == pytest.approx(1, abs=0.01)
    some = torch.randn(32, 64, generator=generator)
    torch.testing.assert_close(feature_spread(some), feature_spread(5 * some))
