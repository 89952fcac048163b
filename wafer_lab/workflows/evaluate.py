"""Judging a finished run again, from its predictions table alone: other views, calibration, decisions or costs."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from wafer_lab.errors import UserError
from wafer_lab.evaluation.judgement import Judgement, judge_predictions
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.workflows import outcome
from wafer_lab.workflows.finished import read_config, settings_of, store_of
from wafer_lab.workflows.outcome import Gallery


def evaluate(run: Path, changes: Mapping[str, Any], out: Path | None = None) -> Judgement:
    """Fit the predictor of a run anew and write its report again.

    Args:
        run: The run's folder.
        changes: Settings of `Evaluation` that differ from those of the run.
        out: Folder to write to; None writes into the run's own.

    Returns:
        The judgement; predictor.json, metrics.json, rules.csv, figures and reports are written.

    Raises:
        UserError: The run's files are missing or damaged, or the settings do not suit them.
    """
    config = read_config(run)
    parts = sorted(file.parent.name for file in run.glob("*/predictions.parquet"))
    if parts:
        raise UserError(f"{run} holds several models, each with a predictor; evaluate one of them: {', '.join(parts)}")
    predictions = Predictions.read(run / "predictions.parquet")
    judgement = judge_predictions(predictions, replace(settings_of(config), **changes))
    outcome.write(run, judgement, config, _gallery(config, predictions), out)
    return judgement


def _gallery(config: Mapping[str, Any], predictions: Predictions) -> Gallery | None:
    """The run's wafers, where its data is still at hand and what it was."""
    try:
        store = store_of(config)
    except (UserError, LookupError, TypeError, ValueError, AttributeError, OSError):
        return None
    return Gallery.of(store) if store.header.digest == predictions.data_fingerprint else None
