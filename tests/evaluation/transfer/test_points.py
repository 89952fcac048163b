"""Points of a transfer study, by hand and against scipy."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from wafer_lab.evaluation.comparison.significance import over_runs, t_quantile
from wafer_lab.evaluation.transfer.points import Run, points
from wafer_lab.evaluation.transfer.report import headline, report, verdict


def runs(source, fraction, scores, seed=0):
    """Runs of these scores, whose draws lie close round them and move together."""
    drift = np.random.default_rng(9).normal(0, 0.01, 400)
    random = np.random.default_rng(seed)
    right = [random.random(200) < score for score in scores]
    return [Run(source, fraction, k, score, score + drift, right[k]) for k, score in enumerate(scores)]


@pytest.fixture
def found():
    every = [
        *runs("scratch", 0.1, [0.50, 0.60, 0.58]),
        *runs("scratch", 1.0, [0.80, 0.81, 0.82]),
        *runs("simclr", 0.1, [0.70, 0.81, 0.77], 1),
        *runs("simclr", 1.0, [0.83, 0.79, 0.82], 2),
    ]
    return points(every, {0.1: 50, 1.0: 500})


def test_differences_are_paired_by_seed(found):
    scratch, _, simclr, full = found
    steps = np.array([0.20, 0.21, 0.19])
    assert simclr.difference == pytest.approx(0.2)
    assert simclr.difference_seeds == pytest.approx(stats.t.interval(0.95, 2, steps.mean(), stats.sem(steps)), abs=1e-5)
    assert simclr.difference_wafers == pytest.approx((0.2, 0.2))  # the draws move together
    assert scratch.seeds == pytest.approx(stats.t.interval(0.95, 2, 0.56, stats.sem([0.50, 0.60, 0.58])), abs=1e-5)
    assert scratch.wafers[0] < 0.56 < scratch.wafers[1]
    assert (verdict(scratch), verdict(simclr), verdict(full)) == ("", "better", "not told apart")
    assert full.difference == pytest.approx(0.01 / 3)
    assert simclr.p_bootstrap < 0.05
    assert verdict(replace(simclr, p_bootstrap=0.06)) == "not told apart"  # after adjustment for several tests


def test_the_report_has_every_point(found):
    text = report("run", found, "Judged on all.", ["a note"], ["f.png"], ["scratch_0.1_seed_0"])
    assert "| simclr | 0.1 | 50 | 0.7600 [" in text
    assert "+0.2000 | [+0.1752, +0.2248] | [+0.2000, +0.2000]" in text
    assert "(scratch_0.1_seed_0/report.md)" in text
    assert headline(found)[3].split()[:3] == ["simclr", "50", "0.7600"]


def test_an_interval_of_scores_lies_among_scores():
    found = points(runs("scratch", 1.0, [0.01, 0.2]), {1.0: 9})
    assert found[0].seeds[0] == 0
    assert found[0].seeds[1] == 1


def test_one_seed_says_nothing_over_seeds():
    found = points([*runs("scratch", 1.0, [0.5]), *runs("other", 1.0, [0.6], 1)], {1.0: 9})
    assert np.isnan(found[1].difference_seeds).all()
    assert verdict(found[1]) == "better, of one seed"
    assert "nan" not in report("run", found, "", [], [], [])


@pytest.mark.parametrize("freedom", [1, 2, 9, 10, 11, 30, 200])
def test_quantiles_of_t(freedom):
    assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), abs=2e-4)
    assert over_runs([0.5]) == (pytest.approx(np.nan, nan_ok=True),) * 2
