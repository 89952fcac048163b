"""What is usual of the val wafers of a finished run."""

from pathlib import Path

from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.evaluation.predictor.predictor import Predictor
from wafer_lab.evaluation.predictor.usual import Usual, fit_usual
from wafer_lab.evaluation.views import wafers
from wafer_lab.workflows.finished import TABLE


def usual_of(run: Path, predictor: Predictor) -> Usual | None:
    """Fit it on the run's table of predictions.

    Args:
        run: A run's folder, or a .ckpt file.
        predictor: What is deployed of the run.

    Returns:
        None of a bare .ckpt file, or a folder without the table.

    Raises:
        UserError: The table is damaged, or lacks val wafers in the predictor's views.
    """
    if not (run / TABLE).is_file():
        return None
    return fit_usual(wafers(Predictions.read(run / TABLE), "val", predictor.tta), predictor.settings)
