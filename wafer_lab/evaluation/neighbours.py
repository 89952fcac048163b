"""What a vote of nearest neighbours says of pretrained features, judged on test beside the run's own predictor."""

from dataclasses import replace
from pathlib import Path

from wafer_lab.errors import UserError
from wafer_lab.evaluation.judgement import Judgement, calibrate_none, judge_wafers
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.evaluation.predictor.decisions import Argmax
from wafer_lab.evaluation.views import wafers

FILE = "neighbours.parquet"


def judge_neighbours(judgement: Judgement, folder: Path) -> Judgement:
    """Add the scores `test/knn/...`, where a run left a table of votes.

    Args:
        judgement: What is known of the run.
        folder: The run's.

    Raises:
        UserError: The table is damaged, or of other wafers than the run's predictions.
    """
    if not (folder / FILE).is_file():
        return judgement
    table, test = Predictions.read(folder / FILE), judgement.test.wafers
    part = wafers(table, "test", judgement.predictor.tta)
    if part.class_names != test.class_names or part.index.tolist() != test.index.tolist():
        raise UserError(f"{folder / FILE} is of other wafers than the run's predictions; train again, or delete it")
    votes = calibrate_none(judgement.predictor, part)
    judged = judge_wafers(part, votes, Argmax(part.target_kind)(votes), judgement.settings)
    low, high = judged.intervals["f1_macro"]
    score = f"{judged.scores['f1_macro']:.3f} [{low:.3f}, {high:.3f}]"
    note = f"a vote of nearest neighbours in the pretrained features, whitened, has a test macro F1 of {score}"
    return replace(judgement, neighbours=judged, notes=(*judgement.notes, note))
