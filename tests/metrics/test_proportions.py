import numpy as np
import pytest
from scipy.stats import binomtest

from wafer_lab.metrics.proportions import wilson


def test_wilson_intervals_are_those_of_scipy() -> None:
    low, high = wilson(np.array([0, 3, 50]), np.array([1, 10, 50]))
    for k, (hits, total) in enumerate([(0, 1), (3, 10), (50, 50)]):
        expected = binomtest(hits, total).proportion_ci(method="wilson")
        assert (low[k], high[k]) == pytest.approx((expected.low, expected.high), abs=1e-6)
