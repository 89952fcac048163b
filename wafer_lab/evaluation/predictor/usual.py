"""What is usual of a run's val wafers: how many classes it takes to hold the truth, and how sure the model is."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictor.conformal import Conformal, fit_conformal
from wafer_lab.evaluation.predictor.predictor import calibrate
from wafer_lab.evaluation.settings import Evaluation
from wafer_lab.evaluation.views import Wafers

#: The share of val wafers that is called usual.
SHARE = 0.95


@dataclass(frozen=True)
class Usual:
    """What new wafers are compared with.

    Attributes:
        sets: Conformal prediction sets, marginal.
        doubt: The `doubt` that a share `SHARE` of the val wafers does not exceed.
    """

    sets: Conformal
    doubt: float

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` reads: plain values, as JSON has them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Usual":
        """What `to_dict` described.

        Raises:
            UserError: The values describe nothing of the kind.
        """
        try:
            sets = values["sets"]
            found = Conformal(
                float(sets["coverage"]),
                sets["mode"],
                tuple(float(value) for value in sets["thresholds"]),
                tuple(int(k) for k in sets["always"]),
            )
            return cls(found, float(values["doubt"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"its prediction sets are damaged ({type(error).__name__}: {error}); export it again"
            ) from None


def fit_usual(val: Wafers, settings: Evaluation) -> Usual:
    """Fit on val wafers, each by the calibration of the folds that it is not in.

    Args:
        val: Labelled wafers that the model was not trained on, in the views of `settings.tta`.
        settings: Calibration and coverage.

    Raises:
        UserError: There are fewer than two wafers.
    """
    probabilities = calibrate(val, settings).probabilities
    sets = fit_conformal(probabilities, val.target, settings.coverage)
    return Usual(sets, float(np.quantile(doubt(probabilities, val.target_kind), SHARE)))


def doubt(probabilities: NDArray[Any], target_kind: str) -> NDArray[np.float64]:
    """1 - the probability of the most probable answer, as `open_set.scores.max_probability` of uncalibrated logits.

    Args:
        probabilities: (N, C), calibrated.
        target_kind: `multiclass`, or `multilabel`: then an answer is a whole combination of labels.

    Returns:
        (N,) in [0, 1).
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if target_kind == "multilabel":
        return np.asarray(1.0 - np.maximum(p, 1.0 - p).prod(axis=1))
    return np.asarray(1.0 - p.max(axis=1))
