"""Intervals of shares."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_NORMAL_95 = 1.959964


def wilson(hits: NDArray[Any] | float, total: NDArray[Any] | float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wilson's 95 % interval of a share of independent trials, which has a width at 0 and 1 too.

    Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the American
    Statistical Association 22, 1927.

    Args:
        hits: (...) successes.
        total: (...) trials, positive.

    Returns:
        Lower and upper ends, (...) in [0, 1].
    """
    z2, total = _NORMAL_95**2, np.asarray(total, np.float64)
    share = np.asarray(hits, np.float64) / total
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    reach = np.sqrt(z2 * (share * (1 - share) / total + z2 / (4 * total**2))) / (1 + z2 / total)
    return np.clip(centre - reach, 0, 1), np.clip(centre + reach, 0, 1)
